"""The Prometheus side of the numbers: one ``Collector`` on a registry of our own, read only when somebody asks.

Names and labels are the contract with dashboards and alerts (tests/unit/test_metrics.py holds the table).
"""

import re
from collections.abc import Callable, Iterable, Iterator
from itertools import accumulate, chain
from platform import python_version
from typing import Final, get_args

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, InfoMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.exposition import generate_latest as text_format
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics.exposition import CONTENT_TYPE_LATEST as CONTENT_TYPE_OPENMETRICS
from prometheus_client.openmetrics.exposition import generate_latest as openmetrics_format
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from proxy.counters import (
    LAG_BUCKETS,
    DenyReason,
    Histogram,
    IdentityMetrics,
    RejectionOutcome,
    RouteMetrics,
    StoreMetrics,
)

__all__ = [
    "NO_ROUTE",
    "DenyReason",
    "Histogram",
    "IdentityMetrics",
    "Metrics",
    "RejectionOutcome",
    "RouteMetrics",
    "StoreMetrics",
]

PREFIX: Final = "opentv_proxy_"
NO_ROUTE: Final = "none"  # the label of requests that matched no route; a configured path begins with a slash


class Metrics(Collector):
    """All numbers of one gateway, and their exposition."""

    def __init__(self, version: str) -> None:
        self._version = version
        self._routes: dict[str, RouteMetrics] = {}
        self._identities: dict[str, IdentityMetrics] = {}
        self._stores: dict[str, StoreMetrics] = {}
        self._retired_routes: set[str] = set()
        self._retired_identities: set[str] = set()
        self.requests_in_flight = 0
        self.client_denied: dict[str, int] = dict.fromkeys(get_args(DenyReason), 0)
        self.config_reload_ok = True
        self.config_reload_at = 0.0
        self.event_loop_lag = Histogram(LAG_BUCKETS)
        self._registry = CollectorRegistry(auto_describe=False)
        ProcessCollector(registry=self._registry)
        PlatformCollector(registry=self._registry)
        GCCollector(registry=self._registry)
        self._registry.register(self)

    def route(self, path: str) -> RouteMetrics:
        """The numbers of the route with this configured path, made when new."""
        self._retired_routes.discard(path)
        return self._routes.setdefault(path, RouteMetrics())

    def identity(self, name: str) -> IdentityMetrics:
        """The numbers of the identity with this configured name, made when new."""
        self._retired_identities.discard(name)
        return self._identities.setdefault(name, IdentityMetrics())

    def store(self, name: str) -> StoreMetrics:
        """The numbers of one kind of store (``memory``, ``file``, ``redis``), made when new."""
        return self._stores.setdefault(name, StoreMetrics())

    def retain(self, routes: Iterable[str], identities: Iterable[str]) -> None:
        """After a reload: only these routes and identities exist.

        Counters and histograms of the others stay until the process ends, because a counter must not go backwards
        (the route may come back, its last requests may still run). Their gauges go: ``token_usable 0`` of an
        identity that nobody has any more would ring an alarm for ever.
        """
        self._retired_routes = set(self._routes) - set(routes) - {NO_ROUTE}
        self._retired_identities = set(self._identities) - set(identities)

    def checkpoint(self) -> Callable[[], None]:
        """Answers what takes back the routes and identities made from here on: their configuration was refused."""
        routes, identities = self._routes.copy(), self._identities.copy()
        retired = self._retired_routes.copy(), self._retired_identities.copy()

        def take_back() -> None:
            self._routes, self._identities = routes, identities
            self._retired_routes, self._retired_identities = retired

        return take_back

    def render(self, accept: str) -> tuple[bytes, str]:
        """The exposition and its content type: OpenMetrics for whoever names it in ``Accept``, else text 0.0.4."""
        slices, content_type = self.slices(accept)
        return b"".join(slices), content_type

    def slices(self, accept: str) -> tuple[Iterator[bytes], str]:
        """The same in pieces of at most a few hundred series.

        Writing one series takes the client library about 10 µs, so ten identities would hold the event loop for
        25 ms at every scrape; between two pieces the caller can let requests through.
        """
        openmetrics = _wants_openmetrics(accept)
        write: Callable[[Collector], bytes] = _openmetrics_text if openmetrics else text_format
        pieces = (_piece(write, family, part) for family in self._registry.collect() for part in _parts(family))
        if openmetrics:
            return chain(pieces, (b"# EOF\n",)), CONTENT_TYPE_OPENMETRICS
        return pieces, CONTENT_TYPE_PLAIN_0_0_4

    def collect(self) -> Iterator[Metric]:
        """Called by the registry at every scrape."""
        build = {"version": self._version, "python_version": python_version()}
        yield InfoMetricFamily(PREFIX + "build", "The running gateway.", value=build)
        yield from _route_families(self._routes, self._retired_routes)
        yield from _identity_families(self._identities, self._retired_identities)
        yield _counter(
            "store_errors",
            "Failed operations of the token store.",
            ["store", "operation"],
            (([name, kind], n) for name, store in self._stores.items() for kind, n in store.errors.items()),
        )
        denied = (([reason], n) for reason, n in self.client_denied.items())
        yield _counter("client_denied", "Requests refused because of who sent them.", ["reason"], denied)
        yield _gauge("requests_in_flight", "Requests being served now.", [], [([], self.requests_in_flight)])
        yield _gauge(
            "config_last_reload_successful",
            "Whether the last reading of the configuration succeeded.",
            [],
            [([], self.config_reload_ok)],
        )
        yield _gauge(
            "config_last_reload_timestamp_seconds",
            "When the configuration in force was read, Unix time.",
            [],
            [([], self.config_reload_at)],
        )
        lag = "How late the event loop ran a timer."
        yield _histogram("event_loop_lag_seconds", lag, [], [([], self.event_loop_lag)])


_SLICE: Final = 250  # series


class _OneFamily(Collector):
    """What the client library's writers take: something that collects."""

    def __init__(self, family: Metric) -> None:
        self._family = family

    def collect(self) -> Iterable[Metric]:
        return (self._family,)


def _parts(family: Metric) -> Iterator[slice]:
    for start in range(0, max(len(family.samples), 1), _SLICE):
        yield slice(start, start + _SLICE)


def _piece(write: Callable[[Collector], bytes], family: Metric, part: slice) -> bytes:
    """A family's samples in ``part``; its HELP and TYPE lines only before the first."""
    some = Metric(family.name, family.documentation, family.type)
    some.samples = family.samples[part]
    text = write(_OneFamily(some))
    return text if part.start == 0 else text.split(b"\n", 2)[2]


def _openmetrics_text(collector: Collector) -> bytes:
    # The library marks it untyped. Escaping only matters for names outside [a-zA-Z0-9_:]; ours never are, and the
    # library's default walks every name character by character.
    text: bytes = openmetrics_format(collector, escaping="allow-utf-8")  # type: ignore[no-untyped-call]  # see above
    return text.removesuffix(b"# EOF\n")


Rows = Iterable[tuple[list[str], float]]


def _wants_openmetrics(accept: str) -> bool:
    """Prometheus lists its formats best first; 0.0.1 was a draft that the client library does not write."""
    for offer in accept.lower().split(","):
        media, *parameters = (part.strip() for part in offer.split(";"))
        refused = any(re.fullmatch(r"q=0(\.0*)?", parameter) for parameter in parameters)
        if media == "application/openmetrics-text" and not refused and "version=0.0.1" not in parameters:
            return True
    return False


def _counter(name: str, words: str, labels: list[str], rows: Rows) -> Metric:
    family = CounterMetricFamily(PREFIX + name, words, labels=labels)
    for values, number in rows:
        family.add_metric(values, number)
    return family


def _gauge(name: str, words: str, labels: list[str], rows: Rows) -> Metric:
    family = GaugeMetricFamily(PREFIX + name, words, labels=labels)
    for values, number in rows:
        family.add_metric(values, number)
    return family


def _histogram(name: str, words: str, labels: list[str], rows: Iterable[tuple[list[str], Histogram]]) -> Metric:
    family = HistogramMetricFamily(PREFIX + name, words, labels=labels)
    for values, histogram in rows:
        bounds = [*map(floatToGoString, histogram.bounds), "+Inf"]
        family.add_metric(values, list(zip(bounds, accumulate(histogram.counts), strict=True)), histogram.total)
    return family


def _route_families(routes: dict[str, RouteMetrics], retired: set[str]) -> Iterator[Metric]:
    each = list(routes.items())
    yield _counter(
        "requests",
        "Requests answered, by the gateway itself or by the upstream; 499: the client left first.",
        ["route", "method", "code"],
        (([path, method, str(code)], n) for path, route in each for (method, code), n in route.requests.items()),
    )
    words = "From the request's head to the end of the response."
    yield _histogram("request_duration_seconds", words, ["route"], (([path], r.duration) for path, r in each))
    words = "From sending a request to the upstream to its response head."
    yield _histogram("upstream_response_seconds", words, ["route"], (([path], r.upstream_response) for path, r in each))
    words = "Bytes of request bodies received from clients."
    yield _counter("request_body_bytes", words, ["route"], (([path], r.request_bytes) for path, r in each))
    words = "Bytes of response bodies sent to clients."
    yield _counter("response_body_bytes", words, ["route"], (([path], r.response_bytes) for path, r in each))
    yield _counter(
        "upstream_errors",
        "Requests that the upstream did not answer properly.",
        ["route", "reason"],
        (([path, reason], n) for path, route in each for reason, n in route.upstream_errors.items()),
    )
    yield _counter(
        "rejections",
        "Answers by which the upstream refused the token, and what became of them.",
        ["route", "outcome"],
        (([path, outcome], n) for path, route in each for outcome, n in route.rejections.items()),
    )
    live = [(path, route) for path, route in each if path not in retired and path != NO_ROUTE]
    yield _gauge(
        "upstream_connections",
        "Connections to the upstream now.",
        ["route", "state"],
        (([path, s], n) for path, route in live for s, n in (("idle", route.idle), ("active", route.active))),
    )


_TIMES: Final[tuple[tuple[str, str, Callable[[IdentityMetrics], float | None]], ...]] = (
    ("access_token_expiry_timestamp_seconds", "When the access token expires", lambda i: i.access_expiry),
    ("access_token_issued_timestamp_seconds", "When the access token was issued", lambda i: i.access_issued),
    ("refresh_token_expiry_timestamp_seconds", "When the refresh token expires", lambda i: i.refresh_expiry),
    ("session_end_timestamp_seconds", "When the session ends whatever is refreshed", lambda i: i.session_end),
    ("token_last_success_timestamp_seconds", "When a token was last obtained", lambda i: i.last_success),
    ("token_next_refresh_timestamp_seconds", "When the next refresh is due", lambda i: i.next_refresh),
)

_STATES: Final[tuple[tuple[str, str, Callable[[IdentityMetrics], float]], ...]] = (
    ("token_waiters", "Requests waiting for a token now.", lambda i: i.waiters),
    ("token_usable", "Whether there is a token to sign with now.", lambda i: i.usable_now()),
    ("token_login_suspended", "Whether login waits because the provider refused it.", lambda i: i.login_suspended),
    (
        "token_refresh_consecutive_failures",
        "Failures since a token was last obtained.",
        lambda i: i.consecutive_failures,
    ),
)


def _identity_families(identities: dict[str, IdentityMetrics], retired: set[str]) -> Iterator[Metric]:
    each = list(identities.items())
    yield _counter(
        "token_refreshes",
        "Exchanges with the token endpoint.",
        ["identity", "grant", "trigger", "result"],
        (([name, *labels], n) for name, identity in each for labels, n in identity.refreshes.items()),
    )
    words = "How long an exchange with the token endpoint took."
    yield _histogram(
        "token_refresh_duration_seconds", words, ["identity"], (([n], i.refresh_duration) for n, i in each)
    )
    words = "How long requests waited for a token."
    yield _histogram("token_wait_seconds", words, ["identity"], (([n], i.wait) for n, i in each))
    live = [(name, identity) for name, identity in each if name not in retired]
    for metric, words, state in _STATES:
        yield _gauge(metric, words, ["identity"], [([name], state(identity)) for name, identity in live])
    for metric, words, time in _TIMES:
        at = [([name], value) for name, identity in live if (value := time(identity)) is not None]
        yield _gauge(metric, f"{words}, Unix time.", ["identity"], at)
    words = "The provider's clock minus ours."
    skews = [([name], identity.clock_skew) for name, identity in live if identity.clock_skew is not None]
    yield _gauge("idp_clock_skew_seconds", words, ["identity"], skews)
