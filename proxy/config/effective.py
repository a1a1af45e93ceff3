"""The configuration in force, as YAML: each value with where it came from, secrets masked."""

import json
import re
from collections.abc import Iterator
from typing import Any

from pydantic import SecretStr

from proxy.config.load import Loaded
from proxy.config.overlay import DEFAULT, origin_of

MASK = "********"
_NOT_TEXT = re.compile(r"true|false|null|yes|no|on|off|[0-9]+(\.[0-9]*)?(e[+-]?[0-9]+)?|[0-9:]+", re.IGNORECASE)
_PLAIN = re.compile(r"[A-Za-z0-9/](?:[A-Za-z0-9_./:@+-]*[A-Za-z0-9_./@+-])?")
_TELLING = re.compile(r"auth|cookie|credential|key|pass|secret|session|sign|token", re.IGNORECASE)
_COLUMN = 60


def render_effective(loaded: Loaded) -> str:
    """YAML, one value a line, ``# default``, ``# file``, ``# env NAME`` or ``# flag --name`` behind each."""
    tree = loaded.config.model_dump(mode="json")
    if not loaded.config.store.file and not loaded.config.store.redis:
        tree["store"] = "memory"
    for section in (*tree["identities"].values(), *tree["routes"]):
        if section.get("proxy", {}).get("username", "") is None:
            section["proxy"] = section["proxy"]["url"] or "none"
    head = f"# from {loaded.path}" if loaded.path else "# from no file"
    return "\n".join([head, *_Renderer(loaded).section(tree, (), "")]) + "\n"


class _Renderer:
    def __init__(self, loaded: Loaded) -> None:
        self._origins = loaded.origins
        self._config = loaded.config

    def section(self, tree: dict[str, Any], path: tuple[str, ...], indent: str) -> Iterator[str]:
        for key in sorted(tree, key=lambda key: key != "system"):  # it says how to read the rest
            value = tree[key]
            here = (*path, key)
            name = _written(key)
            origin = origin_of(".".join(here), self._origins)
            if value is None and origin == DEFAULT:
                continue  # a key left out: says nothing, and half of the keys are of another grant or system
            if isinstance(value, dict) and value:
                yield f"{indent}{name}:"
                yield from self.section(value, here, f"{indent}  ")
            elif isinstance(value, list) and value and isinstance(value[0], dict):
                yield f"{indent}{name}:"
                for index, item in enumerate(value):
                    lines = list(self.section(item, (*here, str(index)), f"{indent}    "))
                    yield f"{indent}  - {lines[0].lstrip()}"
                    yield from lines[1:]
            else:
                yield f"{indent}{name}: {self._scalar(here, value)}".ljust(_COLUMN) + f" # {origin}"

    def _scalar(self, path: tuple[str, ...], value: object) -> str:
        if value is not None and _is_secret(self._at(path), path):
            return json.dumps(MASK)
        if isinstance(value, str):
            value = _masked(value)
        if isinstance(value, list):
            return "[" + ", ".join(_written(item) for item in value) + "]"
        return _written(value)

    def _at(self, path: tuple[str, ...]) -> object:
        """The value as the models hold it, where a secret still is a SecretStr."""
        value: Any = self._config
        for key in path:
            value = (
                value[int(key)]
                if isinstance(value, list)
                else value[key]
                if isinstance(value, dict)
                else getattr(value, key)
            )
        return value


def _is_secret(value: object, path: tuple[str, ...]) -> bool:
    """SecretStr, and what people put into free-form places: further form fields, headers that carry credentials."""
    if isinstance(value, SecretStr) or (isinstance(value, list) and value and isinstance(value[0], SecretStr)):
        return True
    if len(path) > 3 and path[0] == "identities" and path[2] in ("extra", "device"):
        return True
    in_headers = path[-2:-1] == ("set",) or path[-2:-1] == ("headers",)
    return in_headers and isinstance(value, str) and _TELLING.search(path[-1]) is not None


def _masked(text: str) -> str:
    """A URL without its user and the values of its query: some servers take a key there."""
    if not text.startswith(("https://", "http://")):
        return text
    place, mark, query = re.sub("//[^/?]*@", f"//{MASK}@", text, count=1).partition("?")
    fields = (field.partition("=") for field in query.split("&"))
    return place + mark + "&".join(f"{name}={MASK}" if equals else MASK * bool(name) for name, equals, _ in fields)


def _written(value: object) -> str:
    if isinstance(value, str) and _PLAIN.fullmatch(value) and not _NOT_TEXT.fullmatch(value):
        return value
    return json.dumps(value, ensure_ascii=False)
