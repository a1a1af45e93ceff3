"""How a layer above the file (environment, flags) changes the written tree: each value at its own place.

Keys match whatever their case, and ``-`` as ``_``. Setting one of ``password`` and ``password_file`` takes the other,
from a lower layer, away; both in one layer are a fault. A mapping is merged, a list replaced.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from proxy.config import schema
from proxy.errors import Fault

DEFAULT = "default"
_SHORT = {"listen": "address", "proxy": "url"}
"""Sections that may be written as text, and the key that it is short for."""
_NOTHING = (None, "memory", "none")
"""A section that is not there, as it is written: a higher layer may put one there."""


class Overlay:
    """A written tree that later layers change, and for each changed place the origin of what stands there."""

    def __init__(self, tree: dict[str, Any], origin: str = "file") -> None:
        self.tree = tree
        self.faults: list[Fault] = []
        self.origins: dict[str, str] = dict.fromkeys(_leaves(tree), origin)

    def assign(self, path: list[str], value: object, origin: str) -> None:
        """Put ``value`` at ``path``, whose parts match existing and known keys whatever their case."""
        if isinstance(value, dict):
            for key, item in value.items():
                self.assign([*path, str(key)], item, origin)
            if value:
                return
        node: Any = self.tree
        place: tuple[schema.Key, ...] = ()
        for depth, part in enumerate(path):
            key = self._key(node, place, part, origin)
            if key is None:
                return
            if isinstance(node, dict):
                self._replaces(node, place, key, origin)
            place = (*place, key)
            if depth < len(path) - 1:
                node = self._section(node, key, place, origin)
        self._put(node, place, value, origin)

    def _put(self, node: Any, place: tuple[schema.Key, ...], value: object, origin: str) -> None:  # noqa: ANN401 - a tree
        key = place[-1]
        if place == ("listen",) and isinstance(node.get(key), dict) and isinstance(value, str):
            node, key, place = node[key], "address", (*place, "address")  # host:port is short for the address alone
        if isinstance(node, list) and key == len(node):
            node.append(value)
        else:
            node[key] = value
        self._forget(place)
        self.origins.update(dict.fromkeys(_leaves(value, place), origin))

    def _forget(self, place: tuple[schema.Key, ...]) -> None:
        name = schema.dotted(place)
        for old in [known for known in self.origins if known == name or known.startswith(f"{name}.")]:
            del self.origins[old]

    def _key(self, node: object, place: tuple[schema.Key, ...], part: str, origin: str) -> schema.Key | None:
        if isinstance(node, list):
            if part.isascii() and part.isdigit() and int(part) <= len(node):
                return int(part)
            words = f"no such place in a list of {len(node)} ({origin}); the next free one is {len(node)}"
            self.faults.append(Fault(schema.dotted((*place, part)), words))
            return None
        existing = list(node) if isinstance(node, dict) else []
        for known in [*existing, *schema.names(schema.at(self.tree, place))]:
            if folded(known) == folded(part):
                return str(known)
        return part if origin.startswith("flag") else part.lower()

    def _section(self, node: Any, key: schema.Key, place: tuple[schema.Key, ...], origin: str) -> Any:  # noqa: ANN401 - a tree
        """The mapping or list under ``key``, made when there is none."""
        found = schema.below(node, key)
        if isinstance(found, dict | list):
            return found
        name, short = schema.dotted(place), _SHORT.get(str(key))
        made: Any = [] if any(leaf.get("type") == "array" for leaf in schema.at(self.tree, place)) else {}
        if found in _NOTHING and not self._same_layer(name, origin):
            pass
        elif short in schema.names(schema.at(self.tree, place)) and isinstance(found, str):
            made = {short: found}
            self.origins[f"{name}.{short}"] = self.origins.pop(name, "file")
        elif found is not None:
            self.faults.append(Fault(name, f"is no mapping of keys, and {_source(origin)} sets one in it"))
        if isinstance(node, list) and key == len(node):
            node.append(made)
        else:
            node[key] = made
        return made

    def _replaces(self, node: dict[str, Any], place: tuple[schema.Key, ...], key: schema.Key, origin: str) -> None:
        """Take away what excludes ``key``: the secret's twin, the other kind of store."""
        name, known = str(key), schema.names(schema.at(self.tree, place))
        twin = name.removesuffix("_file") if name.endswith("_file") else f"{name}_file"
        others = [twin] if twin in known else []
        if place == ("store",):
            others = [other for other in node if other != name]
        for other in others:
            where = schema.dotted((*place, other))
            if node.pop(other, None) is not None and (rival := self._same_layer(where, origin)):
                given = _source(origin) if rival == origin else f"{_source(rival)} and {_source(origin)}"
                words = f"give either {other} or {name}, not both: {given} set{'s' * (rival == origin)} them"
                self.faults.append(Fault(schema.dotted((*place, name)), words))
            self._forget((*place, other))

    def _same_layer(self, where: str, origin: str) -> str:
        """What set the place, or something in it, in the layer of ``origin``; empty when that left it alone."""
        layer = origin.partition(" ")[0]
        found = (by for known, by in self.origins.items() if known == where or known.startswith(f"{where}."))
        return next((by for by in found if by.partition(" ")[0] == layer), "")


def _source(origin: str) -> str:
    """The variable's or the flag's name."""
    return origin.partition(" ")[2]


def origin_of(path: str, origins: Mapping[str, str]) -> str:
    """Where the value at a dotted path was set: ``file``, ``env NAME``, ``flag --name`` or ``default``."""
    if path in origins:
        return origins[path]
    parent, _, last = path.rpartition(".")
    if last.isdigit():
        return origins.get(parent, DEFAULT)
    if path in ("listen", "listen.address"):  # `listen: host:port` is short for the address alone
        return origins.get("listen.address", origins.get("listen", DEFAULT))
    return DEFAULT


def _leaves(value: object, path: schema.Path = ()) -> Iterator[str]:
    """Dotted paths of the values in a written tree; a list of plain values counts as one."""
    items: list[tuple[schema.Key, object]] = []
    if isinstance(value, dict):
        items = list(value.items())
    elif isinstance(value, list) and any(isinstance(item, dict) for item in value):
        items = list(enumerate(value))
    if not items and path:
        yield schema.dotted(path)
    for key, item in items:
        yield from _leaves(item, (*path, key))


def folded(name: object) -> str:
    return str(name).lower().replace("-", "_")
