"""Pure: which route a request belongs to, and whether its path may be judged by what it looks like.

The longest configured prefix wins, on whole path segments. A path is forwarded byte for byte, so wherever a rule hangs
on it (a route's ``allow``, a prefix that must not be left, a guarded route) a path that the upstream may read in
another way is refused, never repaired. ``paths`` knows the other readings; this module knows where they matter.
"""

from collections.abc import Sequence
from typing import Any, Generic, Literal, Protocol, TypeVar

from proxy.gateway.paths import AllowList, ambiguous, canonical, excessive, hazard, may_climb, plain

__all__ = ["AllowList", "RouteTable", "Routed", "Selection", "canonical", "hazard"]

Refusal = Literal["none", "forbidden", "ambiguous"]


class Routed(Protocol):
    """What the table needs of a route.

    prefix: ``b"/"`` or ``b"/adm"``. confined: its paths must not climb out of the prefix (a prefix other than ``/``,
    or a base path in front of it). guarded: no other spelling may smuggle a request past it into another route (it has
    an ``allow``, or signs with another identity than its neighbours).
    """

    @property
    def prefix(self) -> bytes: ...
    @property
    def allow(self) -> AllowList | None: ...
    @property
    def confined(self) -> bool: ...
    @property
    def guarded(self) -> bool: ...


R = TypeVar("R", bound=Routed)


class Selection(Generic[R]):
    """The outcome for one request. One is built per route beforehand, so that the usual case allocates nothing.

    refusal: None (forward to ``route``), ``none`` (404), ``forbidden`` (403, ``allow``), ``ambiguous`` (400).
    route: also set on a refusal by it, for the metric's label. words: why, for the client; never its own bytes.
    """

    __slots__ = ("refusal", "route", "words")

    def __init__(self, route: R | None, refusal: Refusal | None = None, words: str = "") -> None:
        self.route = route
        self.refusal = refusal
        self.words = words


_NO_ROUTE: Selection[Any] = Selection(None, "none", "No route of this gateway covers the path.")


class _Entry(Generic[R]):
    """One route with everything that can be known before a request comes.

    inside: where the part of a path begins that must not climb. watch: another route is guarded, so other spellings
    count. simple: there is nothing to judge, whatever the path.
    """

    __slots__ = ("folded", "inside", "route", "selection", "simple", "watch")

    def __init__(self, route: R, prefix: bytes, watch: bool) -> None:
        self.route = route
        self.folded = canonical(prefix).lower()
        self.inside = len(prefix) if prefix != b"/" else 0
        self.watch = watch
        self.simple = route.allow is None and not route.confined and not watch
        self.selection = Selection(route)


class RouteTable(Generic[R]):
    """Immutable after construction. Raises ValueError for a prefix given twice or one that no path can match."""

    __slots__ = ("_entries", "_folded", "_longest", "_longest_folded", "_root")

    def __init__(self, routes: Sequence[R]) -> None:
        self._entries: dict[bytes, _Entry[R]] = {}
        for route in routes:
            prefix = _normal(route.prefix)
            if prefix in self._entries:
                raise ValueError(f"{prefix.decode(errors='replace')} is the path of two routes")
            elsewhere = any(other.guarded for other in routes if other is not route)
            self._entries[prefix] = _Entry(route, prefix, elsewhere)
        self._root = self._entries.get(b"/")
        self._longest = max((len(prefix) for prefix in self._entries if prefix != b"/"), default=0)
        self._folded: dict[bytes, _Entry[R]] = {}
        for entry in sorted(self._entries.values(), key=lambda entry: entry.route.guarded):
            self._folded[entry.folded] = entry
        self._longest_folded = max((len(prefix) for prefix in self._folded if prefix != b"/"), default=0)

    def find(self, path: bytes) -> R | None:
        """The route with the longest prefix of ``path``, judging nothing. ``*`` and other non-paths have none."""
        entry = self._entry(path)
        return None if entry is None else entry.route

    def select(self, method: bytes, path: bytes) -> Selection[R]:
        """``path``: the raw target without its query. Costs one lookup where no rule hangs on the path."""
        entry = self._entry(path)
        if entry is None:
            return _NO_ROUTE
        if entry.simple:
            return entry.selection
        return self._judge(entry, method, path)

    def _entry(self, path: bytes) -> _Entry[R] | None:
        if path[:1] != b"/":
            return None
        if not self._longest:
            return self._root
        found = _longest_prefix(self._entries, self._longest, path)
        return self._root if found is None else found

    def _judge(self, entry: _Entry[R], method: bytes, path: bytes) -> Selection[R]:
        route = entry.route
        one_reading = plain(path)
        if not one_reading and excessive(path):
            return Selection(route, "ambiguous", "The path has too many segments or escapes to be judged.")
        if route.allow is not None:
            words = None if one_reading else hazard(path)
            if words is not None:
                return Selection(route, "forbidden", f"The path holds {words}, which this route does not accept.")
            if not route.allow.permits(method, path):
                return Selection(route, "forbidden", "This route does not allow the method and path.")
        if not one_reading and route.confined and may_climb(path[entry.inside :]):
            return Selection(route, "ambiguous", "The path has dot segments that leave its route.")
        if entry.watch:
            if not one_reading and (words := ambiguous(path)) is not None:
                told = f"The path holds {words}: some servers could read it as one of another, restricted route."
                return Selection(route, "forbidden", told)
            reading = path if one_reading else canonical(path)
            if self._meets_guard(entry, reading.lower()):
                return Selection(route, "forbidden", "Another spelling of the path belongs to a restricted route.")
        return entry.selection

    def _meets_guard(self, entry: _Entry[R], reading: bytes) -> bool:
        """Whether ``reading`` (canonical, in lower case: some upstreams ignore case) belongs to another, guarded route.

        A route whose prefix differs only in case was written by the operator to be told apart, so it is no neighbour.
        """
        other = _longest_prefix(self._folded, self._longest_folded, reading) or self._folded.get(b"/")
        return other is not None and other.route.guarded and other.folded != entry.folded


def _longest_prefix(entries: dict[bytes, _Entry[R]], longest: int, path: bytes) -> _Entry[R] | None:
    """Cuts ``path`` segment by segment from the right, starting where the longest prefix could still fit."""
    if len(path) > longest:
        path = path[: path.rfind(b"/", 0, longest + 1)]
    while path:
        entry = entries.get(path)
        if entry is not None:
            return entry
        path = path[: path.rfind(b"/")]
    return None


def _normal(prefix: bytes) -> bytes:
    """``/adm/`` and ``/adm`` are the same prefix."""
    if prefix[:1] != b"/":
        raise ValueError("a route's path begins with a slash")
    normal = prefix.rstrip(b"/") or b"/"
    words = hazard(normal)
    if words is not None:
        raise ValueError(f"a route's path cannot hold {words}")
    return normal
