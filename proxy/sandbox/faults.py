"""How an endpoint is made to misbehave: a queue of faults for each, the oldest one that fits is met first.

A request meets at most one fault. Kinds, with the fields each reads besides ``times`` (None: until cleared),
``delay_ms`` (before anything else, but for ``late``) and ``grant`` (meet only this one; ``token``: the grant type,
``ags``: ``signOn``, ``refresh``, ``signOut`` or ``servicediscovery``, ``veeam``: ``Password`` or ``Refresh_token``):

=================== ==================================================================================================
``delay``           only the delay, then the ordinary answer; a client that left by then was not handled
``late``            handled at once, answered after the delay: a client that left by then has rotated its token
``reject``          token: ``status``, ``error``, ``description`` (default: as Keycloak refuses that grant);
                    ags, veeam: a bare 401 (or ``status``), with ``error`` its words;
                    api: the platform's "bad token" answer, in the configured style
``reply``           ``status``, ``body``, ``headers`` as given, nothing handled
``html``            a proxy's HTML page (``status``, default 200)
``redirect``        302 (or ``status``) to ``location``
``rate-limit``      429 (or ``status``) with ``Retry-After: retry_after``; with ``retry_date`` those seconds as a date
``big-body``        200 and ``size`` bytes of JSON (default 20 MiB)
``close``           the connection ends without an answer, nothing handled
``half-json``       handled; the head and half of the body, then the connection ends
``rotate-then-reset`` handled (the refresh token *is* rotated), then the connection is reset without an answer
``null-fields``, ``number-fields``, ``empty-fields``  handled; ``fields`` of the JSON answer become null, 12345, ""
``set-fields``      handled; ``values`` replace fields of the JSON answer, ``drop`` removes some
=================== ==================================================================================================
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import Any, Literal, get_args

Endpoint = Literal["token", "logout", "api", "ags", "veeam"]
FaultKind = Literal[
    "delay",
    "late",
    "reject",
    "reply",
    "html",
    "redirect",
    "rate-limit",
    "big-body",
    "close",
    "half-json",
    "rotate-then-reset",
    "null-fields",
    "number-fields",
    "empty-fields",
    "set-fields",
]
KINDS: tuple[str, ...] = get_args(FaultKind)
CANNED: frozenset[str] = frozenset({"reply", "html", "redirect", "rate-limit", "big-body"})
REPLACEMENTS: Mapping[str, Any] = {"null-fields": None, "number-fields": 12345, "empty-fields": ""}

_TOKEN_FIELDS = (
    "access_token",
    "refresh_token",
    "expires_in",
    "refresh_expires_in",
    "fixed_refresh_expires_in",
    ".issued",
    ".expires",
    "token_type",
)


@dataclass
class Fault:
    """One misbehaviour, ``times`` times over. See the module for what each kind reads."""

    kind: FaultKind
    times: int | None = 1
    delay_ms: int = 0
    grant: str | None = None
    status: int | None = None
    body: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    error: str | None = None
    description: str | None = None
    location: str = "https://login.example.com/"
    retry_after: str = "30"
    retry_date: bool = False
    size: int = 20 * 1024 * 1024
    fields: tuple[str, ...] = _TOKEN_FIELDS
    values: dict[str, Any] = field(default_factory=dict)
    drop: tuple[str, ...] = ()

    @property
    def pause(self) -> float:
        """Seconds to wait before the request is looked at."""
        return 0.0 if self.kind == "late" else self.delay_ms / 1000

    def canned(self, now: float) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body of a kind that answers without handling anything. now: Unix seconds."""
        headers = {"Content-Type": "application/json", **self.headers}
        if self.kind == "html":
            headers["Content-Type"] = "text/html; charset=utf-8"
            return self.status or 200, headers, b"<!DOCTYPE html><html><body><h1>Sorry</h1></body></html>"
        if self.kind == "redirect":
            return self.status or 302, {**headers, "Location": self.location}, b""
        if self.kind == "rate-limit":
            after = formatdate(int(now) + int(self.retry_after), usegmt=True) if self.retry_date else self.retry_after
            return self.status or 429, {**headers, "Retry-After": after}, b'{"error":"slow_down"}'
        if self.kind == "big-body":
            return self.status or 200, headers, b'{"access_token":"' + b"x" * (self.size - 19) + b'"}'
        return self.status or 200, headers, self.body.encode()

    def mangle(self, answer: dict[str, Any]) -> dict[str, Any]:
        """The JSON answer as this fault leaves it."""
        if self.kind in REPLACEMENTS:
            return {key: REPLACEMENTS[self.kind] if key in self.fields else value for key, value in answer.items()}
        if self.kind == "set-fields":
            kept = {key: value for key, value in answer.items() if key not in self.drop}
            return {**kept, **self.values}
        return answer


def take(queue: list[Fault], grant: str | None = None) -> Fault | None:
    """The fault this request meets, if any, using it up by one."""
    for index, fault in enumerate(queue):
        if fault.grant not in (None, grant):
            continue
        if fault.times is not None:
            fault.times -= 1
            if fault.times <= 0:
                del queue[index]
        return fault
    return None


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _header_fields(value: object) -> bool:
    if not isinstance(value, dict) or not _strings(list(value.values())):
        return False
    return not any(set("\r\n\0") & set(name + text) for name, text in value.items())


def _strings(value: object) -> bool:
    return isinstance(value, (list, tuple)) and all(isinstance(item, str) for item in value)


_CHECKS: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "kind": (lambda value: value in KINDS, "one of " + ", ".join(KINDS)),
    "times": (lambda value: value is None or (_whole(value) and value > 0), "a whole number above 0, or null"),
    "delay_ms": (lambda value: _whole(value) and value >= 0, "a whole number of milliseconds"),
    "grant": (lambda value: value is None or isinstance(value, str), "a grant type or null"),
    "status": (lambda value: value is None or (_whole(value) and 200 <= value <= 599), "a status from 200 to 599"),
    "retry_date": (lambda value: isinstance(value, bool), "true or false"),
    "size": (lambda value: _whole(value) and 19 <= value <= 1 << 30, "bytes, from 19 to 1 GiB"),
    "fields": (_strings, "a list of names"),
    "drop": (_strings, "a list of names"),
    "values": (lambda value: isinstance(value, dict), "an object"),
    "headers": (_header_fields, "an object of strings without line breaks"),
}


def parse_fault(raw: object) -> Fault:
    """A fault from its JSON object. Raises ValueError with words naming the field that is wrong."""
    if not isinstance(raw, dict) or "kind" not in raw:
        raise ValueError("expected an object with at least `kind`")
    known = Fault.__dataclass_fields__
    for name, value in raw.items():
        if name not in known:
            raise ValueError(f"unknown field {name!r}; known: {', '.join(known)}")
        check, expected = _CHECKS.get(name, (lambda value: isinstance(value, str), "a string"))
        if not check(value):
            raise ValueError(f"{name}: expected {expected}")
    seconds = str(raw.get("retry_after", "30"))
    if raw.get("retry_date") and not (seconds.isascii() and seconds.isdigit() and len(seconds) < 10):
        raise ValueError("retry_after: expected seconds, since retry_date makes a date of them")
    checked: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in raw.items()}
    return Fault(**checked)
