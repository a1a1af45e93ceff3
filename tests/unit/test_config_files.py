"""ConfigFiles: what is told of files that cannot be used while the configuration that names them is in force."""

from pathlib import Path
from typing import Any

import pytest

from proxy.config import Config, ConfigFiles, parse_config
from tests.support.stores import key_file, key_line

IDP = {"system": "keycloak", "token_url": "https://idp/token", "client_id": "crm", "username": "alice"}


class Told:
    """A log: what was said of which place, "" for mended."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str]] = []

    def error(self, event: str, **fields: object) -> None:
        assert event == "file unusable"
        self.lines.append((str(fields["path"]), str(fields["words"])))

    def info(self, event: str, **fields: object) -> None:
        assert event == "file usable again"
        self.lines.append((str(fields["path"]), ""))


def config(folder: Path, **more: Any) -> Config:
    """Every kind of file, each of them good."""
    for name in ("password", "apikeys", "ca.pem"):
        (folder / name).write_text(f"{name}\n")
    key_file(folder)
    tree = {
        "clients": {"api_keys": {"keys_file": "apikeys"}},
        "identities": {"idp": IDP | {"password_file": "password"}, "late": {"system": "token_file", "file": "token"}},
        "routes": [{"path": "/", "upstream": "https://h", "identity": "idp", "tls": {"ca_file": "ca.pem"}}],
        "store": {"file": {"path": "tokens", "key_file": "keys"}},
    }
    return parse_config(tree | more, folder)


CASES = [
    ("identities.idp.password_file", "password", None, "does not exist"),
    ("identities.idp.password_file", "password", "", "is empty"),
    ("clients.api_keys.keys_file", "apikeys", None, "does not exist"),
    ("clients.api_keys.keys_file", "apikeys", "# gone\n", "holds no key: no client is admitted by one"),
    ("store.file.key_file", "keys", None, "does not exist"),
    ("store.file.key_file", "keys", "one for a safe", "expected 32 random bytes in base64"),
    ("routes.0.tls.ca_file", "ca.pem", None, "does not exist"),
    ("routes.0.tls.ca_file", "ca.pem", "", "is empty"),
]


@pytest.mark.parametrize(("where", "name", "content", "words"), CASES)
def test_a_file_that_cannot_be_used_is_told_once_and_stands_there_until_it_is_mended(
    tmp_path: Path, where: str, name: str, content: str | None, words: str
) -> None:
    told = Told()
    files = ConfigFiles(told)
    files.watch(config(tmp_path))
    files.poll()
    assert (told.lines, files.unusable) == ([], {})
    file, good = tmp_path / name, (tmp_path / name).read_text()
    file.unlink() if content is None else file.write_text(content)
    for _ in range(2):
        files.poll()
    ((place, said),) = told.lines
    assert (place, files.unusable) == (where, {where: said})
    assert words in said
    assert "safe" not in said
    file.write_text(good)
    for _ in range(2):
        files.poll()
    assert (told.lines[1:], files.unusable) == ([(where, "")], {})


def test_another_cause_is_told_anew(tmp_path: Path) -> None:
    told = Told()
    files = ConfigFiles(told)
    files.watch(config(tmp_path))
    for content in ("", " \n", "x" * 70000):
        (tmp_path / "password").write_text(content)
        files.poll()
    assert [words.rpartition(" is ")[2] for _, words in told.lines] == ["empty", "longer than 64 KiB"]


def test_only_what_can_be_used_counts_as_changed_but_an_emptied_keys_file_takes_the_keys_back(tmp_path: Path) -> None:
    files = ConfigFiles(Told())
    files.watch(config(tmp_path))
    for name in ("password", "apikeys", "keys", "ca.pem"):
        (tmp_path / name).write_text("")
    assert files.poll() == {tmp_path / "apikeys"}
    (tmp_path / "password").write_text("password\n")
    (tmp_path / "keys").write_text(key_line(5))
    (tmp_path / "token").write_text("later")
    assert files.poll() == {tmp_path / name for name in ("password", "keys", "token")}


def test_a_place_that_a_reload_took_away_is_forgotten(tmp_path: Path) -> None:
    told = Told()
    files = ConfigFiles(told)
    files.watch(config(tmp_path))
    (tmp_path / "apikeys").unlink()
    files.poll()
    files.watch(config(tmp_path, clients={}))
    (tmp_path / "apikeys").unlink()
    files.poll()
    assert (len(told.lines), files.unusable) == (1, {})
