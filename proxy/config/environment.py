"""The environment as a layer: ``OPENTV_PROXY__`` + the path, joined by ``__``.

``OPENTV_PROXY__ROUTES__0__UPSTREAM`` changes one route of the file,
``OPENTV_PROXY__IDENTITIES__MY_IDP__PASSWORD_FILE`` finds the identity ``my-idp``. pydantic-settings' own source would
lower-case the names of identities, knows no places in a list and stops at the first wrong JSON: hence a source of our
own in its frame. Imported only when there are such variables, as that library takes a tenth of a second to import.
"""

import json
from collections.abc import Mapping
from typing import Any, NoReturn

from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from proxy.config import schema
from proxy.config.overlay import Overlay, folded
from proxy.config.types import OverlayText
from proxy.errors import Fault


class Settings(BaseSettings):
    """How names of variables are made."""

    model_config = SettingsConfigDict(env_prefix="OPENTV_PROXY__", env_nested_delimiter="__")


class EnvironmentSource(PydanticBaseSettingsSource):
    """Puts every variable into the written tree of ``overlay``; what is wrong goes to its faults."""

    def __init__(self, overlay: Overlay, environ: Mapping[str, str]) -> None:
        super().__init__(Settings)
        self._overlay = overlay
        prefix, delimiter = str(self.config["env_prefix"]), str(self.config["env_nested_delimiter"])
        found = ((name, name.removeprefix(prefix).split(delimiter)) for name in environ if name.startswith(prefix))
        # Parents before what is in them, places of a list by number.
        self._paths = sorted(
            found, key=lambda item: [(0, int(part), "") if _digits(part) else (1, 0, part) for part in item[1]]
        )
        self._environ = environ

    def get_field_value(self, field: FieldInfo, field_name: str) -> NoReturn:
        """Not asked for: the frame asks field by field, this source answers whole."""
        raise NotImplementedError

    def __call__(self) -> dict[str, Any]:
        overlay = self._overlay
        seen: dict[tuple[str, ...], str] = {}
        for name, path in self._paths:
            first = seen.setdefault(tuple(map(folded, path)), name)
            if first != name:
                overlay.faults.append(Fault(".".join(path).lower(), f"the variables {first} and {name} both name it"))
            if not all(path):
                overlay.faults.append(Fault("", f"the variable {name} names no key: a part between __ is empty"))
                continue
            nodes = _nodes(overlay.tree, path)
            try:
                value = _value(self._environ[name], nodes)
            except ValueError as exc:
                where = f" at character {exc.pos + 1}" if isinstance(exc, json.JSONDecodeError) else f": {exc}"
                overlay.faults.append(Fault(".".join(path).lower(), f"the variable {name} is not valid JSON{where}"))
            else:
                overlay.assign(path, value, f"env {name}")
        return overlay.tree


def _digits(part: str) -> bool:
    return part.isascii() and part.isdigit()


def _nodes(tree: dict[str, Any], path: list[str]) -> list[schema.Node]:
    """The schemas of the place that a variable names, which need not be in the tree yet."""
    value: object = tree
    nodes = schema.root(tree)
    for part in path:
        known = [*(value if isinstance(value, dict) else []), *schema.names(nodes)]
        key: schema.Key = next((name for name in known if folded(name) == folded(part)), part.lower())
        if _digits(part) and any(node.get("type") == "array" for node in nodes):
            key = int(part)
        value = schema.below(value, key)
        nodes = [leaf for option in schema.child(nodes, key) for leaf in schema.expand(option, value)]
    return nodes


def _value(text: str, nodes: list[schema.Node]) -> object:
    """What a variable's text stands for at a place. Raises ValueError for wrong JSON."""
    kinds = {str(node.get("type")) for node in nodes}
    secret = any(node.get("writeOnly") for node in nodes)
    if text == "null" and "null" in kinds and not secret:
        return None
    if kinds & {"object", "array"} and text.lstrip()[:1] in ("{", "["):
        return _marked(json.loads(text, object_pairs_hook=_once, parse_constant=_no_constant))
    return OverlayText(text)


def _marked(value: object) -> object:
    """All text in it as OverlayText, so that a relative path starts at the working directory."""
    if isinstance(value, dict):
        return {key: _marked(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_marked(item) for item in value]
    return OverlayText(value) if isinstance(value, str) else value


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key is repeated")
    return found


def _no_constant(_name: str) -> NoReturn:
    raise ValueError("NaN and Infinity are no JSON")
