"""What is committed beside the code says what the code does."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from proxy.config import json_schema, load_config, parse_config, schema_text, warnings
from proxy.config.reference import render
from proxy.config.yamlfile import read_yaml

ROOT = Path(__file__).parents[2]
FILES = [ROOT / "config/proxy.yaml", *sorted((ROOT / "config/examples").glob("*.yaml"))]
MINIMAL = {"routes": [{"path": "/", "upstream": "http://127.0.0.1:1"}]}


def test_the_committed_schema_is_current() -> None:
    """`opentv-proxy schema > config/schema.json` brings it up to date."""
    assert (ROOT / "config/schema.json").read_text() == schema_text()


def test_the_committed_reference_is_current() -> None:
    """`python -m proxy.config.reference > docs/configuration.md` brings it up to date."""
    assert (ROOT / "docs/configuration.md").read_text() == render()


def test_the_schema_is_a_valid_schema() -> None:
    """A JSON Schema 2020-12 validator takes it."""
    jsonschema.Draft202012Validator.check_schema(json_schema())


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_every_example_validates_against_the_schema_and_loads(file: Path) -> None:
    """An operator may start from any of them."""
    tree, faults = read_yaml(file)
    jsonschema.validate(tree, json_schema())
    assert not faults
    config = load_config(file, {}, {}, read_secrets=False).config
    assert warnings(config) == []


def test_the_examples_mean_the_same_to_a_yaml_1_1_reader() -> None:
    """Other tools read them with YAML 1.1's scalars."""
    for file in FILES:
        assert yaml.safe_load(file.read_text()) == read_yaml(file)[0]


def test_the_commented_example_shows_the_defaults() -> None:
    """What the example says about a key with a default is that default, but for the keys that say otherwise."""
    shown = load_config(FILES[0], {}, {}, read_secrets=False).config
    bare = parse_config({**MINIMAL, "identities": {"opentv": _identity()}})
    for section in ("listen", "admin", "clients", "limits", "store", "shutdown", "log", "uvloop"):
        assert getattr(shown, section) == getattr(bare, section), section
    theirs = shown.identities["opentv"].model_dump(exclude={"expect_roles"})
    assert theirs == bare.identities["opentv"].model_dump(exclude={"expect_roles"})
    varied = {"path", "upstream", "identity", "headers"}
    assert shown.routes[0].model_dump(exclude=varied) == bare.routes[0].model_dump(exclude=varied)


def _identity() -> dict[str, Any]:
    tree, _ = read_yaml(ROOT / "config/examples/opentv.yaml")
    return dict(tree["identities"]["opentv"])


def test_every_key_of_the_schema_is_described() -> None:
    """Editors show the description, and the reference is made of it."""
    found = json_schema()
    for name, section in [("", found), *found["$defs"].items()]:
        for option in section.get("anyOf", [section]):
            for key, node in option.get("properties", {}).items():
                section_of = found["$defs"].get(node.get("$ref", "").rpartition("/")[2], {})
                assert node.get("description") or section_of.get("description"), f"{name}.{key}"


@pytest.mark.parametrize(
    "wrong",
    [
        {**MINIMAL, "listn": "127.0.0.1:1"},
        {**MINIMAL, "listen": "8080"},
        {**MINIMAL, "shutdown": {"drain": "25 s"}},
        {**MINIMAL, "limits": {"head_size": "64Kb"}},
        {**MINIMAL, "store": "disk"},
        {**MINIMAL, "identities": {"x": {**_identity(), "password": "twice"}}},
        {**MINIMAL, "clients": {"basic": {"crm": {}}}},
        {**MINIMAL, "clients": {"basic": {"crm": {"password": "a", "password_file": "b"}}}},
        {"routes": [{"path": "/", "upstream": "http://h", "tls": {"cert_file": "a"}}]},
        {"routes": [{"path": "/", "upstream": "http://h", "headers": {"set": {"a b": "x"}}}]},
    ],
    ids=lambda tree: json.dumps(tree)[:60],
)
def test_the_schema_refuses_what_the_loader_refuses(wrong: dict[str, Any]) -> None:
    """An editor underlines it before the gateway does."""
    assert list(jsonschema.Draft202012Validator(json_schema()).iter_errors(wrong))
