"""Changing fields of the sandbox's dataclasses from JSON, checked against the type of what is there."""

from typing import Any, get_args

from proxy.sandbox.settings import RejectStyle, SandboxSettings

_FIXED = frozenset({"username", "client_id", "clients", "users", "realms", "name"})
_FIXED_SETTINGS = _FIXED | {"password", "ags", "veeam", "ssp"}
_OPTIONAL = frozenset({"secret", "public_key", "certificate_name"})
_STRINGS = _OPTIONAL | {"password", "signing_key"}


class EditError(Exception):
    """A control request that cannot be done: the status it gets, and words."""

    def __init__(self, status: int, words: str) -> None:
        super().__init__(words)
        self.status = status


def edit(target: Any, raw: object) -> Any:  # noqa: ANN401 - any of the settings' dataclasses
    """Set the fields ``raw`` names on ``target`` and return it; nothing is set when one of them is wrong."""
    if not isinstance(raw, dict):
        raise EditError(400, "expected a JSON object")
    changes = {name: _checked(target, name, value) for name, value in raw.items()}
    for name, value in changes.items():
        setattr(target, name, value)
    return target


def _checked(target: object, name: str, value: object) -> object:
    fixed = _FIXED_SETTINGS if isinstance(target, SandboxSettings) else _FIXED
    known = [field for field in vars(target) if field not in fixed]
    if name not in known:
        raise EditError(400, f"unknown field {name[:40]!r}; known: {', '.join(known)}")
    if name == "reject" and value not in get_args(RejectStyle):
        raise EditError(400, f"reject: expected one of {', '.join(get_args(RejectStyle))}")
    if name in _OPTIONAL and value is None:
        return None
    expected = str if name in _STRINGS else type(getattr(target, name))
    if expected is tuple and isinstance(value, list) and all(isinstance(item, str) for item in value):
        return tuple(value)
    if expected is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if type(value) is not expected or (isinstance(value, (int, float)) and not 0 <= value <= 1e10):
        raise EditError(400, f"{name}: expected {_WORDS[expected]}{' or null' if name in _OPTIONAL else ''}")
    return value


_WORDS: dict[type, str] = {
    bool: "true or false",
    int: "a whole number from 0",
    float: "a number from 0",
    str: "a string",
    tuple: "a list of strings",
}
