"""A secret is read when it is asked for, and shown never."""

import copy
import pickle
from pathlib import Path

import pytest

from proxy.config import SecretValue, parse_config
from proxy.config.secrets import LIMIT
from proxy.errors import SecretError


@pytest.mark.parametrize(
    ("content", "secret"),
    [
        (b"s3cret", "s3cret"),
        (b"s3cret\n", "s3cret"),
        (b"s3cret\r\n", "s3cret"),
        (b"s3cret\n\n", "s3cret\n"),
        (b" s3cret \n", " s3cret "),
        ("pässword".encode(), "pässword"),
    ],
)
def test_one_newline_at_the_end_is_not_part_of_it(tmp_path: Path, content: bytes, secret: str) -> None:
    """Editors and echo add one; anything else belongs to the secret."""
    (tmp_path / "s").write_bytes(content)
    assert SecretValue(path=tmp_path / "s").read() == secret


def test_a_changed_file_is_read_again(tmp_path: Path) -> None:
    """Nothing is cached."""
    file = tmp_path / "s"
    file.write_text("old")
    secret = SecretValue(path=file)
    assert secret.read() == "old"
    file.write_text("new")
    assert secret.read() == "new"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "does not exist"),
        (b"", "is empty"),
        (b"\n", "is empty"),
        (b" \t\n\n", "is empty"),
        (b"\xff\xfe", "UTF-8"),
        (b"x" * (LIMIT + 1), "64 KiB"),
    ],
    ids=["missing", "empty", "one newline", "blank", "not text", "too long"],
)
def test_an_unusable_file_is_named_in_words(tmp_path: Path, content: bytes | None, words: str) -> None:
    """The operator learns which file and why, never what is in it."""
    file = tmp_path / "s"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(SecretError, match=words) as caught:
        SecretValue(path=file).read()
    assert str(file) in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_directory_is_no_secret(tmp_path: Path) -> None:
    """A volume mounted one level too high is said so."""
    with pytest.raises(SecretError, match="cannot be read"):
        SecretValue(path=tmp_path).read()


def test_several_secrets_stand_one_a_line(tmp_path: Path) -> None:
    """Blank lines, comments and white space around do not count; none at all is how keys are taken back."""
    file = tmp_path / "keys"
    file.write_text("# whose\none\n\n  two \r\n")
    assert SecretValue(path=file).keys() == ["one", "two"]
    file.write_text(" \n# gone\n\n")
    assert SecretValue(path=file).keys() == []


def test_a_secret_never_shows_itself() -> None:
    """Neither repr, str, a format, a pickle nor a copy gives it away."""
    secret = SecretValue(text="hunter2")
    assert "hunter2" not in f"{secret} {secret!r} {[secret]}"
    for leak in (pickle.dumps, copy.deepcopy):
        with pytest.raises(TypeError, match="not serialised"):
            leak(secret)


def test_a_configuration_never_shows_its_secrets() -> None:
    """A repr in a traceback or a dump in a log holds none."""
    config = parse_config(
        {
            "clients": {"basic": {"crm": {"password": "hunter2"}}, "api_keys": {"keys": ["hunter2-a", "hunter2-b"]}},
            "identities": {
                "idp": {
                    "system": "oauth2",
                    "token_url": "https://idp/token",
                    "grant": "client_credentials",
                    "client_id": "x",
                    "client_auth": "post",
                    "client_secret": "hunter2",
                    "extra": {"pin": "hunter2"},
                    "headers": {"x-key": "hunter2"},
                }
            },
            "routes": [{"path": "/", "upstream": "https://h", "headers": {"set": {"x-key": "hunter2"}}}],
        }
    )
    shown = [repr(config), str(config), repr(config.clients), repr(config.identities), repr(config.routes)]
    assert "hunter2" not in "".join(shown)
    identity, keys = config.identities["idp"], config.clients.api_keys
    assert keys is not None
    assert [secret and secret.read() for secret in (identity.secret("client_secret"), keys.secret("keys"))] == [
        "hunter2",
        "hunter2-a\nhunter2-b",
    ]
    assert identity.secret("password") is None
    with pytest.raises(KeyError):
        identity.secret("passwort")
