"""Pure: the document of ``/status`` as the page's makers use it. What a document lacks is None, 0 or empty here.

Times are Unix seconds. Words that came from outside are printable, on one line.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from proxy.admin.page.words import printable

Document = Mapping[str, object]
State = Literal["fresh", "stale", "expired", "suspended"]


@dataclass(frozen=True)
class Attempt:
    """One exchange with the provider. detail: words, empty after a success. duration: seconds."""

    at: float | None
    trigger: str
    grant: str
    result: str
    duration: float
    detail: str


@dataclass(frozen=True)
class Identity:
    """One token. needed: a route uses it. failures: in a row. history: newest first."""

    name: str
    state: str
    usable: bool
    needed: bool
    fingerprint: str
    issued: float | None
    expires: float | None
    next_refresh: float | None
    refresh_expires: float | None
    session_ends: float | None
    suspended_until: float | None
    failures: int
    waiting: int
    system: str
    endpoint: str
    history: tuple[Attempt, ...]

    @property
    def last(self) -> Attempt | None:
        return self.history[0] if self.history else None


@dataclass(frozen=True)
class Counted:
    """What was asked of a route, or lately was. broken_off: answers that broke in the middle, whatever their status.
    mean: seconds to the upstream's answer."""

    requests: float
    client_errors: float
    server_errors: float
    broken_off: float
    mean: float | None
    upstream_errors: Mapping[str, float]
    rejections: Mapping[str, float]


@dataclass(frozen=True)
class Route:
    """total: since the start. lately: in the last ``seconds``."""

    path: str
    upstream: str
    identity: str
    idle: int
    active: int
    seconds: float
    total: Counted
    lately: Counted


@dataclass(frozen=True)
class Facts:
    """All that is shown. now: when it held. unrouted, turned_away (connections), store_errors: lately, in ``seconds``.
    store_failed, store_words: when an operation of the store last did, and why. faults: why the last reload was
    refused."""

    version: str
    now: float
    started: float | None
    identities: tuple[Identity, ...]
    routes: tuple[Route, ...]
    unrouted: float
    turned_away: float
    seconds: float
    denied: Mapping[str, float]
    store: str
    store_errors: Mapping[str, float]
    store_failed: float | None
    store_words: str
    read_at: float | None
    reload_ok: bool
    faults: tuple[str, ...]
    warnings: tuple[str, ...]


def read(document: Document) -> Facts:
    """The facts of a ``/status`` document."""
    routes = tuple(_route(route) for route in _list(document, "routes"))
    needed = {route.identity for route in routes}
    identities = _mapping(document, "identities")
    store, config = _mapping(document, "store"), _mapping(document, "config")
    started, unrouted = _moment(document, "started_at"), _mapping(_mapping(document, "unrouted"), "last_minute")
    return Facts(
        version=_text(document, "version"),
        now=_moment(document, "at") or started or 0.0,
        started=started,
        identities=tuple(_identity(name, _mapping(identities, name), name in needed) for name in identities),
        routes=routes,
        unrouted=_number(unrouted, "requests"),
        turned_away=_number(unrouted, "connections_refused"),
        seconds=_number(unrouted, "seconds"),
        denied=_numbers(document, "denied"),
        store=_text(store, "kind"),
        store_errors=_numbers(_mapping(store, "last_minute"), "errors"),
        store_failed=_moment(store, "last_error_at"),
        store_words=_text(store, "last_error"),
        read_at=_moment(config, "read_at"),
        reload_ok=config.get("reload_ok") is not False,
        faults=tuple(_fault(fault) for fault in _list(config, "faults")),
        warnings=tuple(printable(word) for word in _strings(document, "warnings")),
    )


def _identity(name: str, document: Document, needed: bool) -> Identity:
    return Identity(
        name=printable(name),
        state=_text(document, "state"),
        usable=document.get("usable") is True,
        needed=needed,
        fingerprint=_text(document, "fingerprint"),
        issued=_moment(document, "issued_at"),
        expires=_moment(document, "expires_at"),
        next_refresh=_moment(document, "next_refresh_at"),
        refresh_expires=_moment(document, "refresh_expires_at"),
        session_ends=_moment(document, "session_ends_at"),
        suspended_until=_moment(document, "suspended_until"),
        failures=int(_number(document, "consecutive_failures")),
        waiting=int(_number(document, "waiting")),
        system=_text(document, "system"),
        endpoint=_text(document, "endpoint"),
        history=tuple(attempt(item) for item in reversed(_list(document, "history"))),
    )


def attempt(document: Document) -> Attempt:
    """One entry of ``history``; the outcome of a refresh by hand has the same fields."""
    return Attempt(
        at=_moment(document, "at"),
        trigger=_text(document, "trigger"),
        grant=_text(document, "grant"),
        result=_text(document, "result"),
        duration=_number(document, "duration_s"),
        detail=_text(document, "detail"),
    )


def _route(document: Document) -> Route:
    connections, lately = _mapping(document, "connections"), _mapping(document, "last_minute")
    return Route(
        path=_text(document, "path"),
        upstream=_text(document, "upstream"),
        identity=_text(document, "identity"),
        idle=int(_number(connections, "idle")),
        active=int(_number(connections, "active")),
        seconds=_number(lately, "seconds"),
        total=_counted(document),
        lately=_counted(lately),
    )


def _counted(document: Document) -> Counted:
    return Counted(
        requests=_number(document, "requests"),
        client_errors=_number(document, "client_errors"),
        server_errors=_number(document, "server_errors"),
        broken_off=_number(document, "broken_off"),
        mean=_number(document, "upstream_mean_s") if document.get("upstream_mean_s") is not None else None,
        upstream_errors=_numbers(document, "upstream_errors"),
        rejections=_numbers(document, "rejections"),
    )


def _fault(document: Document) -> str:
    path, words = _text(document, "path"), _text(document, "words")
    return f"{path}: {words}" if path else words


def _text(document: Document, key: str) -> str:
    value = document.get(key)
    return printable(value) if isinstance(value, str) else ""


def _number(document: Document, key: str) -> float:
    value = document.get(key)
    return value if isinstance(value, int | float) else 0


def _moment(document: Document, key: str) -> float | None:
    value = document.get(key)
    return datetime.fromisoformat(value).timestamp() if isinstance(value, str) else None


def _mapping(document: Document, key: str) -> Document:
    value = document.get(key)
    return value if isinstance(value, Mapping) else {}


def _numbers(document: Document, key: str) -> dict[str, float]:
    """Those that are not 0."""
    found = _mapping(document, key)
    return {name: count for name in found if (count := _number(found, name))}


def _list(document: Document, key: str) -> list[Document]:
    return [item for item in _items(document, key) if isinstance(item, Mapping)]


def _strings(document: Document, key: str) -> list[str]:
    return [item for item in _items(document, key) if isinstance(item, str)]


def _items(document: Document, key: str) -> list[object]:
    value = document.get(key)
    return list(value) if isinstance(value, list | tuple) else []
