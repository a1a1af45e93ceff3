"""pydantic's findings as Faults: where in the file, what was expected, and the nearest known name for a typo.

Nothing that was written as a value is repeated: it may be a secret in the wrong place.
"""

import difflib
from collections.abc import Iterable
from typing import Any

from pydantic import ValidationError

from proxy.config import schema
from proxy.errors import Fault

SYSTEMS = ("keycloak", "oauth2", "ags", "veeam", "ssp", "token_file")
_WORDS = {
    "string_type": "expected text (a number, true or false needs quotes to be text)",
    "bool_type": "expected true or false",
    "bool_parsing": "expected true or false",
    "int_type": "expected a whole number",
    "int_parsing": "expected a whole number",
    "int_parsing_size": "expected a whole number, of less digits",
    "int_from_float": "expected a whole number",
    "float_type": "expected a number",
    "float_parsing": "expected a number",
    "finite_number": "expected a number",
    "dict_type": "expected a mapping of keys",
    "list_type": "expected a list",
    "greater_than": "expected more than {gt}",
    "greater_than_equal": "expected at least {ge}",
    "less_than": "expected less than {lt}",
    "less_than_equal": "expected at most {le}",
    "too_short": "expected at least {min_length} of them",
    "string_pattern_mismatch": "expected letters, digits, - _ and . only, at most 63, a letter or digit first",
}


def nearest(name: object, known: Iterable[str]) -> str:
    """``; did you mean x?`` when one of the known names is near, else nothing."""
    folded = {candidate.lower(): candidate for candidate in known}
    close = difflib.get_close_matches(str(name).lower(), list(folded), 1, 0.6)
    return f"; did you mean {folded[close[0]]}?" if close else ""


def with_systems_guessed(tree: dict[str, Any]) -> dict[str, Any] | None:
    """The tree with the nearest known system in place of each misspelt one; None when there is none to guess.

    Which keys an identity may have hangs on its system, so a misspelt one would hide every other fault of it.
    """
    identities, guessed = tree.get("identities"), False
    if not isinstance(identities, dict):
        return None
    better: dict[Any, Any] = {}
    for name, identity in identities.items():
        better[name] = identity
        system = identity.get("system") if isinstance(identity, dict) else None
        if isinstance(system, str) and system not in SYSTEMS:
            close = difflib.get_close_matches(system.lower(), SYSTEMS, 1, 0.6)
            if close:
                better[name], guessed = {**identity, "system": close[0]}, True
    return {**tree, "identities": better} if guessed else None


def translate(error: ValidationError, tree: dict[str, Any]) -> list[Fault]:
    """Every finding of one validation of ``tree``, in the words of this project."""
    details = error.errors(include_url=False, include_input=True)
    # A default that hangs on a wrong value is no fault beside it.
    return [_fault(dict(detail), tree) for detail in details if detail["type"] != "default_factory_not_called"]


def _fault(detail: dict[str, Any], tree: dict[str, Any]) -> Fault:
    path = _path(detail["loc"], tree)
    kind, context = detail["type"], detail.get("ctx", {})
    if kind == "union_tag_not_found":
        path, kind = (*path, "system"), "missing"
    if kind == "union_tag_invalid":
        path = (*path, "system")
    return Fault(schema.dotted(path), _message(kind, context, path, detail, tree))


def _message(
    kind: str, context: dict[str, Any], path: schema.Path, detail: dict[str, Any], tree: dict[str, Any]
) -> str:
    if kind == "value_error":
        return str(context["error"])
    if kind == "missing":
        purpose = schema.description(tree, path)
        return f"is required: {purpose}" if purpose else "is required"
    if kind == "extra_forbidden":
        known = list(dict.fromkeys(schema.names(schema.at(tree, path[:-1]))))
        return f"unknown key{nearest(path[-1], known) or '; known here: ' + ', '.join(known)}"
    if kind in ("literal_error", "union_tag_invalid"):
        wanted = context.get("expected") or context["expected_tags"]
        names = [name.strip(" '") for name in str(wanted).replace(" or ", ", ").split(",")]
        given = context.get("tag", detail["input"])
        return f"expected one of {', '.join(names)}{nearest(given, names)}"
    if kind in ("model_type", "model_attributes_type"):
        return f"expected a mapping with keys such as {', '.join(schema.names(schema.at(tree, path))[:4])}"
    if kind in _WORDS:
        return _WORDS[kind].format(**{name: _number(bound) for name, bound in context.items()})
    return "is not valid here"


def _path(loc: tuple[schema.Key, ...], tree: dict[str, Any]) -> schema.Path:
    """pydantic's location without its own marks: the union's tag, ``[key]``, the long form of what is short."""
    path = tuple(part for part in loc if part != "[key]")
    if path[:1] == ("identities",) and len(path) > 2:
        path = path[:2] + path[3:]
    if path == ("listen", "address") and not isinstance(tree.get("listen"), dict):
        return ("listen",)
    if path[-2:] == ("proxy", "url"):
        written: object = tree
        for part in path[:-1]:
            written = schema.below(written, part)
        return path if isinstance(written, dict) else path[:-1]
    return path


def _number(bound: object) -> object:
    """As the documents write it: 1, not 1.0."""
    return int(bound) if isinstance(bound, float) and bound.is_integer() else bound
