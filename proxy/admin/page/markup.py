"""Pure: HTML that cannot be injected into. Whatever is not ``Markup`` already is escaped."""

from collections.abc import Iterable
from html import escape
from typing import Final

_VOID: Final = frozenset({"br", "input", "link", "meta"})


class Markup(str):
    """Text that is HTML and may stand in a page as it is."""

    __slots__ = ()


Child = str | None | Iterable["str | None"]
Value = str | int | float | bool | None


def tag(name: str, /, *children: Child, **attributes: Value) -> Markup:
    """An element. A child that is None is left out. Attributes: ``class_`` is class, ``aria_label`` is aria-label;
    True has no value, None and False leave it out."""
    opening = name + "".join(_attribute(key, value) for key, value in attributes.items())
    return Markup(f"<{opening}>" if name in _VOID else f"<{opening}>{join(*children)}</{name}>")


def join(*children: Child) -> Markup:
    return Markup("".join(text for child in children for text in _texts(child)))


def _texts(child: Child) -> Iterable[str]:
    if child is None:
        return ()
    if isinstance(child, Markup):
        return (child,)
    if isinstance(child, str):
        return (escape(child),)
    return (text for one in child for text in _texts(one))


def _attribute(key: str, value: Value) -> str:
    if value is None or value is False:
        return ""
    name = key.rstrip("_").replace("_", "-")
    return f" {name}" if value is True else f' {name}="{escape(str(value))}"'
