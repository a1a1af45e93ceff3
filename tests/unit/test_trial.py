"""What proves unusable when it is put to use is a fault of the configuration, beside all the others."""

from pathlib import Path
from typing import Any

import pytest

from proxy.config import load_config
from proxy.errors import ConfigError
from proxy.tokens.stores.link import parse_place
from proxy.trial import unusable
from tests.support.cli import written
from tests.support.stores import key_file

ROUTES = [{"path": "/", "upstream": "https://127.0.0.1:1"}]


def listing(tmp_path: Path, **config: Any) -> list[str]:
    """Where the faults are."""
    file = written({"routes": ROUTES} | config, tmp_path)
    try:
        load_config(file, {}, {}, read_secrets=False, judge=unusable)
    except ConfigError as error:
        return [fault.path for fault in error.faults]
    return []


def in_file(tmp_path: Path) -> dict[str, Any]:
    return {"file": {"path": f"{tmp_path}/tokens/", "key_file": "keys"}}


def test_a_good_key_file_is_no_fault_and_nothing_is_made(tmp_path: Path) -> None:
    key_file(tmp_path)
    assert listing(tmp_path, store=in_file(tmp_path)) == []
    assert not (tmp_path / "tokens").exists()


def test_a_bad_line_in_the_key_file_is_a_fault_there(tmp_path: Path) -> None:
    key_file(tmp_path).write_text("not a key\n")
    assert listing(tmp_path, store=in_file(tmp_path)) == ["store.file.key_file"]


def test_a_bad_line_shows_beside_a_fault_of_another_section(tmp_path: Path) -> None:
    key_file(tmp_path).write_text("not a key\n")
    assert listing(tmp_path, store=in_file(tmp_path), routes=[]) == ["routes", "store.file.key_file"]


def test_a_file_that_is_not_there_is_left_to_who_reads_secrets(tmp_path: Path) -> None:
    """`config` shows a configuration where its secrets are not mounted."""
    assert listing(tmp_path, store=in_file(tmp_path)) == []


def test_a_file_that_is_there_is_looked_at_where_no_secret_is_needed(tmp_path: Path) -> None:
    """`config` refuses what `run` would, as far as it can see."""
    (tmp_path / "empty").write_text("")
    (tmp_path / "keys").write_text("# nobody\n")
    basic = {"a": {"password_file": "empty"}, "b": {"password_file": "missing"}}
    clients = {"basic": basic, "api_keys": {"keys_file": "keys"}}
    places = ["clients.basic.a.password_file", "clients.api_keys.keys_file"]
    assert listing(tmp_path, clients=clients) == places


@pytest.mark.parametrize("url", ["redis://h:port/0", "http://h/", "redis://h?no_such_option=1"])
def test_a_url_that_redis_py_refuses_is_a_fault_there(tmp_path: Path, url: str) -> None:
    key_file(tmp_path)
    assert listing(tmp_path, store={"redis": {"url": url, "key_file": "keys"}}) == ["store.redis.url"]


@pytest.mark.parametrize(
    "url",
    [
        *(f"redis://:pw@h:{port}/0" for port in ("port", "0", "65536", "-1")),
        *(f"redis+sentinel://h,i:{port}/main" for port in ("port", "0", "65536")),
        *(f"rediss+cluster://h:6379,i:{port}" for port in ("port", "0", "65536")),
    ],
)
def test_a_port_that_is_none_is_said_in_words_of_ours(url: str) -> None:
    with pytest.raises(ValueError, match=r"^expected host:port, a port from 1 to 65535$"):
        parse_place(url)


@pytest.mark.parametrize("url", ["redis://h?db=secret", "redis://h?socket_timeout=secret", "redis+cluster://h?db=x"])
def test_an_options_value_that_redis_py_refuses_is_not_repeated(url: str) -> None:
    with pytest.raises(ValueError, match=r"^an option in its query"):
        parse_place(url)


def test_sections_of_tls_are_each_put_to_use(tmp_path: Path) -> None:
    (tmp_path / "a.pem").write_text("no certificate\n")
    tls = {"ca_file": "a.pem"}
    routes = [{"path": f"/{name}", "upstream": "https://127.0.0.1:1", "tls": tls} for name in "ab"]
    assert listing(tmp_path, routes=routes) == ["routes.0.tls.ca_file", "routes.1.tls.ca_file"]
