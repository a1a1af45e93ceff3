"""The open door is refused; what works but should not stay so is warned of."""

from ipaddress import ip_network
from typing import Any

import pytest

from proxy.config import parse_config, warnings
from proxy.config.safety import open_to_the_world
from proxy.errors import ConfigError

ROUTE = {"path": "/", "upstream": "https://h", "identity": None}


def door(listen: object, **clients: object) -> list[str]:
    """Paths of the faults of a gateway that listens there and admits these clients."""
    try:
        parse_config({"listen": listen, "clients": clients, "routes": [ROUTE]})
    except ConfigError as exc:
        return [fault.path for fault in exc.faults]
    return []


WORLD = ["0.0.0.0/0"]


@pytest.mark.parametrize(
    ("listen", "clients", "faults"),
    [
        ("0.0.0.0:80", {"allow_from": WORLD}, ["clients.allow_from"]),
        ("[::]:80", {"allow_from": ["::/0"]}, ["clients.allow_from"]),
        ("10.0.0.1:80", {"allow_from": WORLD}, ["clients.allow_from"]),
        ("gw.example.com:80", {"allow_from": WORLD}, ["clients.allow_from"]),
        ({"address": "0.0.0.0:80"}, {"allow_from": ["0.0.0.0/1", "128.0.0.0/1"]}, ["clients.allow_from"]),
        ("0.0.0.0:80", {"trusted_proxies": WORLD}, ["clients.trusted_proxies"]),
        ("0.0.0.0:80", {"allow_from": WORLD, "basic": {}}, ["clients.allow_from"]),
        ("0.0.0.0:80", {"allow_from": WORLD, "open": True}, []),
        ("0.0.0.0:80", {"allow_from": WORLD, "basic": {"crm": {"password": "x"}}}, []),
        ("0.0.0.0:80", {"allow_from": WORLD, "api_keys": {"keys": ["x"]}}, []),
        (
            {"address": "0.0.0.0:80", "tls": {"cert_file": "a", "key_file": "b", "client_ca_file": "c"}},
            {"allow_from": WORLD},
            [],
        ),
        (
            {"address": "0.0.0.0:80", "tls": {"cert_file": "a", "key_file": "b"}},
            {"allow_from": WORLD},
            ["clients.allow_from"],
        ),
        ("0.0.0.0:80", {"allow_from": ["10.0.0.0/8", "203.0.113.0/24"]}, []),
        ("0.0.0.0:80", {}, []),
        ("127.0.0.1:80", {"allow_from": WORLD}, []),
        ("[::1]:80", {"allow_from": ["::/0"]}, []),
    ],
)
def test_the_open_door_is_refused(listen: object, clients: dict[str, Any], faults: list[str]) -> None:
    """Beyond loopback, open to the world and no credential: refused unless it is said to be meant."""
    assert door(listen, **clients) == faults


@pytest.mark.parametrize(
    ("networks", "is_open"),
    [
        ([], False),
        (["10.0.0.0/8"], False),
        (["fc00::/7"], False),
        (["2001:db8::/32"], False),
        (["2000::/3"], True),
        (["8.0.0.0/7"], True),
        ([f"{first}.0.0.0/8" for first in range(256)], True),
    ],
)
def test_what_counts_as_the_world(networks: list[str], is_open: bool) -> None:
    """More than any one owner has; neighbours are joined, private networks are never the world."""
    assert open_to_the_world([ip_network(network) for network in networks]) is is_open


@pytest.mark.parametrize(
    ("listen", "admin", "clash"),
    [
        ("127.0.0.1:80", "127.0.0.1:80", True),
        ("0.0.0.0:80", "127.0.0.1:80", True),
        ("127.0.0.1:80", "[::]:80", True),
        ("127.0.0.1:0", "127.0.0.1:0", False),
        ("127.0.0.1:80", "127.0.0.1:81", False),
        ("127.0.0.1:80", "127.0.0.2:80", False),
    ],
)
def test_the_admin_port_is_never_the_proxied_one(listen: str, admin: str, clash: bool) -> None:
    """Not by a wildcard either; port 0 is another one each time."""
    tree = {"listen": listen, "admin": admin, "routes": [ROUTE]}
    if not clash:
        parse_config(tree)
        return
    with pytest.raises(ConfigError, match="admin: expected another port"):
        parse_config(tree)


def test_warnings_say_what_should_not_stay_so() -> None:
    """Verification off, an open door that is meant, credentials in the clear, what nothing uses."""
    identity = {"system": "keycloak", "client_id": "crm", "username": "a", "password": "hunter2"}
    config = parse_config(
        {
            "listen": "0.0.0.0:80",
            "clients": {"basic": {"crm": {"password": "hunter2"}}},
            "identities": {
                "a": {**identity, "token_url": "http://idp/token", "tls": {"verify": False}},
                "b": {**identity, "token_url": "http://127.0.0.1/token"},
            },
            "routes": [
                {"path": "/", "upstream": "http://h", "identity": "a", "tls": {"verify": False}},
                {"path": "/b", "upstream": "http://h"},
            ],
        }
    )
    found = warnings(config)
    assert [warning.partition(" ")[0].rstrip(":") for warning in found] == [
        "listen",
        "identities.a.tls.verify",
        "identities.a",
        "identities.b",
        "routes.0.tls.verify",
        "routes.0.upstream",
        "routes.1",
    ]
    assert "hunter2" not in "".join(found)


def test_an_open_door_that_is_meant_is_warned_of() -> None:
    """clients.open is loud."""
    config = parse_config({"listen": "0.0.0.0:80", "clients": {"allow_from": WORLD, "open": True}, "routes": [ROUTE]})
    (warning,) = warnings(config)
    assert warning.startswith("clients.open is true")
