"""``proxy``: as it is written, as the environment says it, and that its password is a secret."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from proxy.config import Loaded, load_config, render_effective, warnings
from proxy.errors import ConfigError

ENV = {"HTTPS_PROXY": "http://tls.example.com:3128", "HTTP_PROXY": "plain.example.com:8080"}


def load(
    folder: Path, environ: Mapping[str, str] | None = None, *, route: Any = None, identity: Any = None, **more: Any
) -> Loaded:
    """route, identity: their ``proxy``; more: keys of the route."""
    opentv = {
        "system": "keycloak",
        "token_url": "https://idp.example.com/token",
        "client_id": "crm",
        "username": "alice",
        "password": "secret-of-alice",
        **({"proxy": identity} if identity is not None else {}),
    }
    first = {"path": "/", "upstream": "http://up.example.com:81", **({"proxy": route} if route is not None else {})}
    tree = {"identities": {"opentv": opentv}, "routes": [{**first, "identity": "opentv", **more}]}
    file = folder / "proxy.yaml"
    file.write_text(yaml.safe_dump(tree))
    return load_config(file, environ or {}, {})


def places(loaded: Loaded) -> tuple[object, object]:
    """Where the identity's and the route's proxy is."""
    identity: Any = loaded.config.identities["opentv"]
    return identity.proxy.place, loaded.config.routes[0].proxy.place


def faults(folder: Path, environ: Mapping[str, str] | None = None, **proxies: Any) -> dict[str, str]:
    with pytest.raises(ConfigError) as caught:
        load(folder, environ, **proxies)
    return {fault.path: fault.message for fault in caught.value.faults}


def test_without_a_word_the_way_is_direct(tmp_path: Path) -> None:
    loaded = load(tmp_path)
    assert places(loaded) == (None, None)
    assert "proxy: none" in render_effective(loaded)


def test_a_proxy_is_a_url_or_a_mapping_with_credentials(tmp_path: Path) -> None:
    (tmp_path / "word").write_text("p w\n")
    loaded = load(
        tmp_path,
        route="http://squid:3128/",
        identity={"url": "http://[::1]", "username": "us er", "password_file": "word"},
    )
    assert places(loaded) == (("::1", 80), ("squid", 3128))
    identity: Any = loaded.config.identities["opentv"]
    assert identity.proxy.credentials() == ("us er", "p w")
    (tmp_path / "word").write_text("another\n")
    assert identity.proxy.credentials() == ("us er", "another")
    assert loaded.config.routes[0].proxy.credentials() is None


def test_the_environment_names_one_by_the_scheme_of_the_server(tmp_path: Path) -> None:
    loaded = load(tmp_path, ENV)
    assert places(loaded) == (("tls.example.com", 3128), ("plain.example.com", 8080))
    shown = render_effective(loaded)
    assert "# env HTTPS_PROXY" in shown
    assert "# env HTTP_PROXY" in shown
    lower = {**ENV, "https_proxy": "http://lower:1"}
    assert places(load(tmp_path, lower))[0] == ("lower", 1)


def test_what_is_written_wins_and_none_is_a_direct_way(tmp_path: Path) -> None:
    assert places(load(tmp_path, ENV, route="none", identity="http://mine:1")) == (("mine", 1), None)


@pytest.mark.parametrize(
    ("no_proxy", "exempt"),
    [
        ("", False),
        ("*", True),
        ("example.com", True),
        (".example.com", True),
        ("*.example.com", True),
        ("UP.example.com", True),
        ("other.com, up.example.com", True),
        ("up.example.com:81", True),
        ("up.example.com:82", False),
        ("ample.com", False),
        ("com", True),
        (",", False),
        ("p.example.com", False),
    ],
)
def test_no_proxy_exempts_names_and_what_is_below_them(tmp_path: Path, no_proxy: str, exempt: bool) -> None:
    found = places(load(tmp_path, {**ENV, "NO_PROXY": no_proxy}))[1]
    assert found == (None if exempt else ("plain.example.com", 8080))


@pytest.mark.parametrize(
    ("upstream", "no_proxy", "exempt"),
    [
        ("http://10.1.2.3", "10.1.2.3", True),
        ("http://10.1.2.3", "10.1.0.0/16", True),
        ("http://10.1.2.3", "10.2.0.0/16", False),
        ("http://10.1.2.3:99", "10.1.2.3:99", True),
        ("http://10.1.2.3:99", "10.1.2.3:98", False),
        ("http://[2001:db8::1]", "2001:db8::/32", True),
        ("http://[2001:db8::1]", "[2001:db8::1]", True),
        ("http://[2001:db8::1]", "2001:db9::/32", False),
        ("http://127.0.0.1:1", "", True),
        ("http://localhost:1", "", True),
        ("http://[::1]:1", "", True),
    ],
)
def test_no_proxy_exempts_addresses_and_this_machine_is_always_exempt(
    tmp_path: Path, upstream: str, no_proxy: str, exempt: bool
) -> None:
    found = places(load(tmp_path, {**ENV, "NO_PROXY": no_proxy}, upstream=upstream))[1]
    assert found == (None if exempt else ("plain.example.com", 8080))


def test_credentials_in_a_variable_are_a_secret(tmp_path: Path) -> None:
    environ = {"HTTPS_PROXY": "http://us%20er:p%40ss%2Fword-of-proxy@tls.example.com:3128"}
    loaded = load(tmp_path, environ)
    identity: Any = loaded.config.identities["opentv"]
    assert identity.proxy.place == ("tls.example.com", 3128)
    assert identity.proxy.credentials() == ("us er", "p@ss/word-of-proxy")
    said = f"{loaded.config!r}{identity!r}{identity.proxy!r}{render_effective(loaded)}"
    assert "word-of-proxy" not in said


@pytest.mark.parametrize(
    ("written", "path", "words"),
    [
        ("https://squid:3128", "routes.0.proxy", "expected none or the URL of an HTTP proxy"),
        ("socks5://squid:1080", "routes.0.proxy", "begins with https:// or http://"),
        ("http://squid:3128/path", "routes.0.proxy", "expected none or the URL of an HTTP proxy"),
        ("http://me:hidden-word@squid:3128", "routes.0.proxy", "does not belong in a URL"),
        ("squid:3128", "routes.0.proxy", "begins with https:// or http://"),
        (["http://squid"], "routes.0.proxy", "or a mapping with the key url"),
        ({"url": "https://squid"}, "routes.0.proxy.url", "expected none or the URL of an HTTP proxy"),
        ({"username": "me", "password": "hidden-word"}, "routes.0.proxy.url", "where the proxy listens"),
        ({"url": "http://squid", "username": "me"}, "routes.0.proxy.password", "is required with username"),
        ({"url": "http://squid", "password": "hidden-word"}, "routes.0.proxy.username", "is required with password"),
        ({"url": "http://squid", "user": "me"}, "routes.0.proxy.user", "did you mean username?"),
    ],
)
def test_what_is_no_proxy_is_told_with_its_path_and_without_its_secret(
    tmp_path: Path, written: Any, path: str, words: str
) -> None:
    found = faults(tmp_path, route=written)
    assert words in found[path], found
    assert "hidden-word" not in str(found)


def test_a_variable_that_names_no_http_proxy_is_told_by_its_name(tmp_path: Path) -> None:
    found = faults(tmp_path, {"HTTPS_PROXY": "socks5://me:hidden-word@squid:1080"})
    (words,) = found.values()
    assert "(set by HTTPS_PROXY)" in words
    assert "hidden-word" not in words


def test_a_preserved_host_is_warned_of_where_a_proxy_does_not_keep_it(tmp_path: Path) -> None:
    loaded = load(tmp_path, route="http://squid:3128", host="preserve")
    assert any("whatever Host says" in words for words in warnings(loaded.config))
