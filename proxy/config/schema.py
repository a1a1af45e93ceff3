"""The JSON Schema of what a person writes, and a walk of a written configuration along it.

The schema is the one map of the configuration: the environment overlay, the faults, the origins and the reference all
ask it which keys exist somewhere, what they are, and which of them are paths or secrets.
"""

import copy
import functools
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

from proxy.config.model import Config
from proxy.config.types import Address, format_duration, format_size

Node = dict[str, Any]
"""One JSON Schema."""
Key = str | int
Path = tuple[Key, ...]
_FORMATS: dict[str, Callable[[Any], str]] = {
    "duration": format_duration,
    "size": format_size,
    "address": lambda pair: str(Address(*pair)),
}


@functools.cache
def _schema() -> Node:
    raw = Config.model_json_schema(mode="validation")
    defs = {name: _tidy(node) for name, node in raw.pop("$defs").items()}
    root = _tidy(raw)
    root["properties"]["listen"]["default"] = "127.0.0.1:8080"
    root["properties"]["store"]["default"] = "memory"
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **root,
        "title": "Configuration of opentv-proxy",
        "$defs": defs,
    }


def json_schema() -> Node:
    """JSON Schema 2020-12 of the configuration file (``config/schema.json``). The caller owns the copy."""
    return copy.deepcopy(_schema())


def _tidy(node: Node) -> Node:
    """One schema as a person wants to read it: no titles made of names, defaults as they are written."""
    node = {key: value for key, value in node.items() if key not in ("title", "discriminator")}
    if (show := _FORMATS.get(node.get("x-kind", ""))) and "default" in node:
        node["default"] = show(node["default"])
    if isinstance(node.get("default"), dict) and node["default"]:
        del node["default"]  # the section's own keys say their defaults
    if "patternProperties" in node:
        node["additionalProperties"] = False
    for group in ("properties", "patternProperties"):
        if group in node:
            node[group] = {key: _tidy(value) for key, value in node[group].items()}
    for part in ("items", "additionalProperties"):
        if isinstance(node.get(part), dict):
            node[part] = _tidy(node[part])
    for choice in ("anyOf", "oneOf"):
        if choice in node:
            node[choice] = [_tidy(option) for option in node[choice]]
    return _with_twins(node)


def _with_twins(node: Node) -> Node:
    needed = node.get("x-needs")
    rules: list[Node] = [
        {"oneOf": [{"required": [name]}, {"required": [f"{name}_file"]}]}
        if name == needed
        else {"not": {"required": [name, f"{name}_file"]}}
        for name in twins(node)
    ]
    return {**node, "allOf": rules} if rules else node


def twins(node: Node) -> list[str]:
    """Names of the secrets that a section takes as ``name`` or as ``name_file``."""
    properties = node.get("properties", {})
    return [name for name in properties if f"{name}_file" in properties]


def expand(node: Node, value: object = None) -> list[Node]:
    """The alternatives of a schema, references followed. Of identities only the one that ``value`` says, if it does."""
    if "$ref" in node:
        target = _schema()["$defs"][cast("str", node["$ref"]).rpartition("/")[2]]
        return expand({**target, **{key: item for key, item in node.items() if key != "$ref"}}, value)
    options = node.get("anyOf") or node.get("oneOf")
    if not options:
        return [node]
    found = [leaf for option in options for leaf in expand(option, value)]
    system = value.get("system") if isinstance(value, dict) else None
    return [leaf for leaf in found if _system(leaf) == system] or found if system else found


def _system(node: Node) -> object:
    return node.get("properties", {}).get("system", {}).get("const")


def child(nodes: Sequence[Node], key: Key) -> list[Node]:
    """The schemas, not expanded, that ``nodes`` have for what stands under ``key``."""
    found: list[Node] = []
    for node in nodes:
        if isinstance(key, int):
            options = [node.get("items")]
        elif key in node.get("properties", {}):
            options = [node["properties"][key]]
        else:
            options = [node.get("additionalProperties"), *node.get("patternProperties", {}).values()]
        found += [option for option in options if isinstance(option, dict)]
    return found


def root(value: object = None) -> list[Node]:
    return expand(_schema(), value)


def names(nodes: Sequence[Node]) -> list[str]:
    """The keys that a section knows."""
    return [name for node in nodes for name in node.get("properties", {})]


def below(value: object, key: Key) -> object:
    """What a written configuration has under ``key``; None when it has nothing there."""
    if isinstance(value, dict):
        return value.get(key)
    return value[key] if isinstance(value, list) and isinstance(key, int) and key < len(value) else None


def at(tree: object, path: Sequence[Key]) -> list[Node]:
    """The expanded schemas of the place ``path`` in a written configuration."""
    nodes, value = root(tree), tree
    for key in path:
        value = below(value, key)
        nodes = [leaf for option in child(nodes, key) for leaf in expand(option, value)]
    return nodes


def description(tree: object, path: Sequence[Key]) -> str:
    """What the key at ``path`` is for; empty when no key of that name is known."""
    parent = at(tree, path[:-1])
    return next((str(node["description"]) for node in child(parent, path[-1]) if "description" in node), "")


@dataclass(frozen=True, slots=True)
class Place:
    """One place of a written configuration: its path, what stands there, what may stand there."""

    path: Path
    value: Any
    nodes: list[Node]

    @property
    def kinds(self) -> set[str]:
        return {str(node.get("x-kind")) for node in self.nodes}


def places(value: object, nodes: list[Node] | None = None, path: Path = ()) -> Iterator[Place]:
    """Every place of a written configuration, the sections before what is in them."""
    nodes = root(value) if nodes is None else nodes
    yield Place(path, value, nodes)
    items: list[tuple[Any, Any]] = []
    if isinstance(value, dict):
        items = list(value.items())
    elif isinstance(value, list):
        items = list(enumerate(value))
    for key, item in items:
        below_it = [leaf for option in child(nodes, key) for leaf in expand(option, item)]
        yield from places(item, below_it, (*path, key))


def dotted(path: Sequence[Key]) -> str:
    """How faults, flags and origins name a place: ``routes.0.upstream``."""
    return ".".join(str(key) for key in path)


def schema_text() -> str:
    """What ``opentv-proxy schema`` prints and ``config/schema.json`` holds."""
    return json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"
