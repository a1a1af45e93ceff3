"""docs/security.md speaks of every secret there is, and of no setting that does not exist."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from proxy.config import json_schema, load_config, warnings

ROOT: Final = Path(__file__).resolve().parents[2]
PAGE: Final = (ROOT / "docs/security.md").read_text()
SCHEMA: Final = json_schema()
SECTIONS: Final = frozenset(SCHEMA["properties"])


def settings(node: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every key's path as docs/configuration.md writes it, with its schema: `identities.NAME.tls.verify`."""
    if "$ref" in node:
        yield from settings(SCHEMA["$defs"][node["$ref"].rpartition("/")[2]], path)
    for option in [*node.get("anyOf", []), *node.get("oneOf", [])]:
        yield from settings(option, path)
    if isinstance(node.get("items"), dict):
        yield from settings(node["items"], path)
    for below in [*node.get("patternProperties", {}).values(), node.get("additionalProperties")]:
        if isinstance(below, dict):
            yield from settings(below, f"{path}.NAME")
    for key, below in node.get("properties", {}).items():
        here = f"{path}.{key}".lstrip(".")
        yield here, below
        yield from settings(below, here)


ALL: Final = dict(settings(SCHEMA))


def secret(path: str, node: dict[str, Any]) -> bool:
    """What the schema marks as one, and files that hold one and have no twin."""
    return "'writeOnly': True" in str(node) or path.endswith((".key_file", ".credentials_file", "NAME.file"))


def section(title: str) -> str:
    found = re.search(rf"^## {title}\n(.*?)(?=^## )", PAGE, re.DOTALL | re.MULTILINE)
    assert found is not None, f"no section {title}"
    return found[1]


def test_it_is_said_of_every_secret_what_it_opens() -> None:
    """In the first column, by its whole path. A new secret has to be thought about here."""
    told = {name for row in re.findall(r"^\|([^|]+)\|", section("What each secret opens"), re.MULTILINE)
            for name in re.findall(r"`([^`]+)`", row)}  # fmt: skip
    there = {path for path, node in ALL.items() if secret(path, node)}
    assert {"identities.NAME.password", "store.redis.url", "listen.tls.key_file"} <= there, "nothing is found"
    assert sorted(there - told) == []


def named() -> list[str]:
    """Whatever looks like the path of a setting."""
    return sorted(
        {name for name in re.findall(r"`([a-z_]+(?:\.[A-Za-z_]+)+)`", PAGE) if name.split(".")[0] in SECTIONS}
    )


@pytest.mark.parametrize("name", named())
def test_every_setting_that_it_names_exists(name: str) -> None:
    assert name in ALL


def test_the_defaults_that_it_calls_safe_are_the_defaults() -> None:
    """Loopback on both ports, nobody let in from elsewhere, certificates checked."""
    config = load_config(ROOT / "config/examples/opentv.yaml", {}, {}, read_secrets=False).config
    assert config.listen.address.is_loopback
    assert config.admin.is_loopback
    assert all(network.is_loopback for network in config.clients.allow_from)
    assert not config.clients.open
    assert config.clients.trusted_proxies == []
    assert config.routes[0].tls.verify
    assert config.limits.connections == 10_000
    assert warnings(config) == []
