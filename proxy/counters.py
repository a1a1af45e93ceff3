"""The numbers themselves: plain integers, counted where things happen.

The request path touches slots and preallocated lists and nothing else; ``proxy.metrics`` reads them at scrape.
Everything belongs to the event loop's thread, so nothing is locked.

Every series whose labels are known at start exists at 0 from the start. ``requests_total`` is the exception by nature:
its ``code`` is known only when an answer went out, and inventing a code would invent answers.
"""

import time
from bisect import bisect_left
from collections.abc import Callable
from typing import Final, Literal, get_args

from proxy.errors import RefreshResult

Grant = Literal["login", "refresh"]
Trigger = Literal["startup", "ahead", "expired", "rejected", "manual", "session_end", "credentials_changed"]
UpstreamErrorReason = Literal["connect", "tls", "timeout", "reset", "protocol"]
RejectionOutcome = Literal["replayed", "passed_on", "not_replayable"]
DenyReason = Literal["address", "credential", "allow"]
StoreOperation = Literal["load", "save", "lock", "delete"]

METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT"})

# Seconds. The gateway itself adds well under a millisecond; operator calls take milliseconds to a second; the longest
# default time-out is 60 s. Event loop lag is of interest from where a request would feel it.
REQUEST_BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
REFRESH_BUCKETS: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
WAIT_BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
QUIET: Final = 60.0
"""Seconds for which the same failure of a store is counted without another line in the log."""
LAG_BUCKETS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)


class Histogram:
    """bounds: upper bounds, seconds, ascending, inclusive. counts: one bucket a bound and one for everything above,
    not cumulative. total: the sum of everything observed, seconds."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, seconds: float) -> None:
        self.counts[bisect_left(self.bounds, seconds)] += 1
        self.total += seconds


class RouteMetrics:
    """One route's numbers. idle and active: connections to the upstream now (counted up and down by their owners).
    broken_off: answers that the upstream did not bring to their end; each is one of ``upstream_errors`` too."""

    __slots__ = (
        "active",
        "broken_off",
        "duration",
        "idle",
        "rejections",
        "request_bytes",
        "requests",
        "response_bytes",
        "upstream_errors",
        "upstream_response",
    )

    def __init__(self) -> None:
        self.requests: dict[tuple[str, int], int] = {}
        self.duration = Histogram(REQUEST_BUCKETS)
        self.upstream_response = Histogram(REQUEST_BUCKETS)
        self.request_bytes = 0
        self.response_bytes = 0
        self.upstream_errors: dict[str, int] = dict.fromkeys(get_args(UpstreamErrorReason), 0)
        self.broken_off = 0
        self.rejections: dict[str, int] = dict.fromkeys(get_args(RejectionOutcome), 0)
        self.idle = 0
        self.active = 0

    def count(self, method: str, code: int) -> None:
        """One answered request. A method that is not a registered one counts as ``other``: clients choose it."""
        key = (method if method in METHODS else "other", code)
        self.requests[key] = self.requests.get(key, 0) + 1


class IdentityMetrics:
    """One identity's numbers. Times are Unix seconds, None where there is no such time.

    usable_probe, where set, is asked at every scrape instead of ``usable``: a token dies without any event.
    """

    __slots__ = (
        "access_expiry",
        "access_issued",
        "clock_skew",
        "consecutive_failures",
        "last_success",
        "login_suspended",
        "next_refresh",
        "refresh_duration",
        "refresh_expiry",
        "refreshes",
        "session_end",
        "usable",
        "usable_probe",
        "wait",
        "waiters",
    )

    def __init__(self) -> None:
        self.refreshes: dict[tuple[Grant, Trigger, RefreshResult], int] = {
            (grant, trigger, result): 0
            for grant in get_args(Grant)
            for trigger in get_args(Trigger)
            for result in get_args(RefreshResult)
        }
        self.refresh_duration = Histogram(REFRESH_BUCKETS)
        self.wait = Histogram(WAIT_BUCKETS)
        self.waiters = 0
        self.usable = False
        self.usable_probe: Callable[[], bool] | None = None
        self.login_suspended = False
        self.consecutive_failures = 0
        self.access_expiry: float | None = None
        self.access_issued: float | None = None
        self.refresh_expiry: float | None = None
        self.session_end: float | None = None
        self.last_success: float | None = None
        self.next_refresh: float | None = None
        self.clock_skew: float | None = None

    def count_refresh(self, grant: Grant, trigger: Trigger, result: RefreshResult) -> None:
        self.refreshes[grant, trigger, result] += 1

    def usable_now(self) -> bool:
        return self.usable if self.usable_probe is None else self.usable_probe()


class StoreMetrics:
    """errors: failed operations of one token store, by operation. last_error: when the last was, None for never;
    last_words: what it was.

    now: Unix seconds.
    """

    __slots__ = ("_now", "_told", "errors", "last_error", "last_words")

    def __init__(self, now: Callable[[], float] = time.time) -> None:
        self._now = now
        self._told: dict[tuple[StoreOperation, str, str], float] = {}
        self.errors: dict[str, int] = dict.fromkeys(get_args(StoreOperation), 0)
        self.last_error: float | None = None
        self.last_words = ""

    def count_error(self, operation: StoreOperation) -> None:
        self.errors[operation] += 1
        self.last_error = self._now()

    def is_news(self, operation: StoreOperation, identity: str, words: str) -> bool:
        """Whether nobody told this within the last minute; whoever asks tells it now."""
        now, what, self.last_words = self._now(), (operation, identity, words), words
        self._told = {key: at for key, at in self._told.items() if abs(now - at) < QUIET}
        if what in self._told:
            return False
        self._told[what] = now
        return True
