"""The metrics as a scraper reads them, against the contract's table."""

import re
from platform import python_version

import pytest
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from proxy.counters import REQUEST_BUCKETS, StoreMetrics
from proxy.metrics import NO_ROUTE, Histogram, Metrics

# Name without prefix and without a counter's _total: type, labels. The contract's table, word for word.
CONTRACT = {
    "build": ("info", ["python_version", "version"]),
    "requests": ("counter", ["code", "method", "route"]),
    "request_duration_seconds": ("histogram", ["route"]),
    "requests_in_flight": ("gauge", []),
    "request_body_bytes": ("counter", ["route"]),
    "response_body_bytes": ("counter", ["route"]),
    "upstream_response_seconds": ("histogram", ["route"]),
    "upstream_errors": ("counter", ["reason", "route"]),
    "upstream_connections": ("gauge", ["route", "state"]),
    "rejections": ("counter", ["outcome", "route"]),
    "client_denied": ("counter", ["reason"]),
    "token_refreshes": ("counter", ["grant", "identity", "result", "trigger"]),
    "token_refresh_duration_seconds": ("histogram", ["identity"]),
    "token_wait_seconds": ("histogram", ["identity"]),
    "token_waiters": ("gauge", ["identity"]),
    "token_usable": ("gauge", ["identity"]),
    "token_login_suspended": ("gauge", ["identity"]),
    "token_refresh_consecutive_failures": ("gauge", ["identity"]),
    "access_token_expiry_timestamp_seconds": ("gauge", ["identity"]),
    "access_token_issued_timestamp_seconds": ("gauge", ["identity"]),
    "refresh_token_expiry_timestamp_seconds": ("gauge", ["identity"]),
    "session_end_timestamp_seconds": ("gauge", ["identity"]),
    "token_last_success_timestamp_seconds": ("gauge", ["identity"]),
    "token_next_refresh_timestamp_seconds": ("gauge", ["identity"]),
    "idp_clock_skew_seconds": ("gauge", ["identity"]),
    "store_errors": ("counter", ["operation", "store"]),
    "config_last_reload_successful": ("gauge", []),
    "config_last_reload_timestamp_seconds": ("gauge", []),
    "event_loop_lag_seconds": ("histogram", []),
}
# The values of labels that are known at start, as the contract lists them.
KNOWN = {
    "reason of upstream_errors": "connect tls timeout reset protocol",
    "state of upstream_connections": "idle active",
    "outcome of rejections": "replayed passed_on not_replayable",
    "reason of client_denied": "address credential allow",
    "grant of token_refreshes": "login refresh",
    "trigger of token_refreshes": "startup ahead expired rejected manual session_end credentials_changed",
    "result of token_refreshes": "success invalid_grant invalid_credentials operator http_error rate_limited timeout"
    " network malformed",
    "operation of store_errors": "load save lock delete",
}
OPENMETRICS = "application/openmetrics-text;version=1.0.0;q=0.6,text/plain;version=0.0.4;q=0.3,*/*;q=0.2"


def gateway() -> Metrics:
    metrics = Metrics(version="1.2.3")
    metrics.route("/")
    metrics.identity("opentv")
    metrics.store("memory")
    return metrics


def scraped(metrics: Metrics, accept: str = OPENMETRICS) -> dict[str, Metric]:
    """Families by name without the prefix; the client library's own keep theirs."""
    body, _ = metrics.render(accept)
    parse = parse_openmetrics if "openmetrics" in accept else parse_text
    return {family.name.removeprefix("opentv_proxy_"): family for family in parse(body.decode())}


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    body, _ = metrics.render("")
    for family in parse_text(body.decode()):
        for sample in family.samples:
            if sample.name == f"opentv_proxy_{name}" and sample.labels == labels:
                return sample.value
    return None


def busy() -> Metrics:
    """Every family has a sample."""
    metrics = gateway()
    metrics.route("/").count("GET", 200)
    identity = metrics.identity("opentv")
    identity.access_expiry = identity.access_issued = identity.refresh_expiry = identity.session_end = 1.0
    identity.last_success = identity.next_refresh = identity.clock_skew = 1.0
    return metrics


def test_names_types_and_labels_are_the_contracts() -> None:
    """All of them, and none besides but the client library's own."""
    families = scraped(busy())
    ours = {name: family for name, family in families.items() if not re.match("process_|python_", name)}
    found = {
        name: (family.type, sorted({label for sample in family.samples for label in sample.labels} - {"le"}))
        for name, family in ours.items()
    }
    assert found == CONTRACT
    assert {"process_resident_memory_bytes", "process_start_time_seconds", "python_info"} <= set(families)
    assert "python_gc_collections" in families


@pytest.mark.parametrize("known", KNOWN)
def test_every_known_label_value_is_there_at_zero_from_the_start(known: str) -> None:
    """An alert on a rate needs the zero before the first one."""
    label, family = known.split(" of ")
    samples = scraped(gateway())[family].samples
    assert {sample.labels[label] for sample in samples} == set(KNOWN[known].split())
    assert {sample.value for sample in samples} == {0}


def test_every_combination_of_a_refreshs_labels_is_there_at_the_start() -> None:
    """2 grants, 7 triggers, 9 results."""
    assert len(scraped(gateway())["token_refreshes"].samples) == 2 * 7 * 9


@pytest.mark.parametrize("accept", ["", OPENMETRICS])
def test_there_are_no_created_series(accept: str) -> None:
    """The client library would add one to every counter and histogram of its own."""
    body, _ = busy().render(accept)
    assert b"_created" not in body


def test_times_that_do_not_exist_have_no_series() -> None:
    """0 would read as 1970."""
    families = scraped(gateway())
    times = [name for name in CONTRACT if "_timestamp_" in name and not name.startswith("config_")]
    assert len(times) == 6
    assert [families[name].samples for name in [*times, "idp_clock_skew_seconds"]] == [[]] * 7


def test_the_build_is_an_info_of_value_one() -> None:
    """Joined to other series by a dashboard."""
    body, _ = gateway().render("")
    line = f'opentv_proxy_build_info{{python_version="{python_version()}",version="1.2.3"}} 1.0\n'
    assert line.encode() in body


def test_requests_count_by_route_method_and_code() -> None:
    """A method that no RFC names is ``other``, however a client spells it."""
    metrics = gateway()
    for method, code in [("GET", 200), ("GET", 200), ("get", 200), ("X" * 99, 501), ("POST", 499)]:
        metrics.route("/").count(method, code)
    assert value(metrics, "requests_total", route="/", method="GET", code="200") == 2
    assert value(metrics, "requests_total", route="/", method="other", code="200") == 1
    assert value(metrics, "requests_total", route="/", method="other", code="501") == 1
    assert value(metrics, "requests_total", route="/", method="POST", code="499") == 1


def test_a_histogram_is_cumulative_with_inclusive_bounds() -> None:
    """``le`` means less than or equal."""
    metrics = gateway()
    for seconds in (0.0, 0.001, 0.0011, 60.0, 3600.0):
        metrics.route("/").duration.observe(seconds)
    name = "request_duration_seconds"
    assert value(metrics, f"{name}_bucket", route="/", le="0.001") == 2
    assert value(metrics, f"{name}_bucket", route="/", le="0.0025") == 3
    assert value(metrics, f"{name}_bucket", route="/", le="60.0") == 4
    assert value(metrics, f"{name}_bucket", route="/", le="+Inf") == 5
    assert value(metrics, f"{name}_count", route="/") == 5
    assert value(metrics, f"{name}_sum", route="/") == pytest.approx(3660.0021)


def test_a_histograms_buckets_are_preallocated() -> None:
    """One for each bound and one above."""
    histogram = Histogram(REQUEST_BUCKETS)
    assert len(histogram.counts) == len(histogram.bounds) + 1


def test_a_stores_failure_is_news_once_a_minute_by_identity_operation_and_words() -> None:
    time = [1000.0]
    store = StoreMetrics(lambda: time[0])
    assert store.last_error is None
    store.count_error("load")
    assert store.last_error == 1000.0
    assert [store.is_news("load", name, "down") for name in ("a", "a", "b")] == [True, False, True]
    assert store.last_words == "down"
    assert store.is_news("save", "a", "down")
    assert store.is_news("load", "a", "key")
    time[0] += 59
    assert not store.is_news("load", "a", "down")
    time[0] += 1
    assert [store.is_news("load", "a", "down") for _ in range(2)] == [True, False]
    time[0] -= 3600
    assert store.is_news("load", "a", "down")  # a clock that was set back silences nothing


def test_plain_numbers_arrive_under_their_names() -> None:
    """Whoever sets an attribute finds it at the scrape."""
    metrics = gateway()
    route, identity = metrics.route("/"), metrics.identity("opentv")
    route.request_bytes, route.response_bytes, route.idle, route.active = 1, 2, 3, 4
    route.upstream_errors["tls"] += 5
    route.rejections["passed_on"] += 6
    identity.count_refresh("login", "startup", "success")
    identity.waiters, identity.consecutive_failures, identity.login_suspended = 7, 8, True
    identity.access_expiry, identity.clock_skew = 1_795_257_000.5, -43.0
    metrics.store("memory").count_error("lock")
    metrics.requests_in_flight = 9
    metrics.client_denied["credential"] += 10
    metrics.config_reload_ok, metrics.config_reload_at = False, 11.0
    assert value(metrics, "request_body_bytes_total", route="/") == 1
    assert value(metrics, "response_body_bytes_total", route="/") == 2
    assert value(metrics, "upstream_connections", route="/", state="idle") == 3
    assert value(metrics, "upstream_connections", route="/", state="active") == 4
    assert value(metrics, "upstream_errors_total", route="/", reason="tls") == 5
    assert value(metrics, "rejections_total", route="/", outcome="passed_on") == 6
    labels = {"grant": "login", "trigger": "startup", "result": "success"}
    assert value(metrics, "token_refreshes_total", identity="opentv", **labels) == 1
    assert value(metrics, "token_waiters", identity="opentv") == 7
    assert value(metrics, "token_refresh_consecutive_failures", identity="opentv") == 8
    assert value(metrics, "token_login_suspended", identity="opentv") == 1
    assert value(metrics, "access_token_expiry_timestamp_seconds", identity="opentv") == 1_795_257_000.5
    assert value(metrics, "idp_clock_skew_seconds", identity="opentv") == -43
    assert value(metrics, "store_errors_total", store="memory", operation="lock") == 1
    assert value(metrics, "requests_in_flight") == 9
    assert value(metrics, "client_denied_total", reason="credential") == 10
    assert value(metrics, "config_last_reload_successful") == 0
    assert value(metrics, "config_last_reload_timestamp_seconds") == 11


def test_usable_is_asked_at_the_scrape() -> None:
    """A token dies without any event."""
    metrics, alive = gateway(), [True]
    metrics.identity("opentv").usable_probe = lambda: alive[0]
    assert value(metrics, "token_usable", identity="opentv") == 1
    alive[0] = False
    assert value(metrics, "token_usable", identity="opentv") == 0


def test_the_same_name_is_the_same_numbers() -> None:
    """Two parts of the gateway may ask for one route."""
    metrics = gateway()
    assert metrics.route("/") is metrics.route("/")
    assert metrics.identity("opentv") is metrics.identity("opentv")
    assert metrics.store("memory") is metrics.store("memory")


def test_a_reload_takes_gauges_away_and_never_a_counter() -> None:
    """A counter must not go backwards when its route comes back; ``token_usable 0`` of nobody must not alarm."""
    metrics = gateway()
    metrics.route("/").count("GET", 200)
    metrics.route(NO_ROUTE).count("GET", 404)
    metrics.retain(routes=[], identities=[])
    assert value(metrics, "requests_total", route="/", method="GET", code="200") == 1
    assert value(metrics, "upstream_connections", route="/", state="idle") is None
    assert value(metrics, "token_usable", identity="opentv") is None
    assert value(metrics, "token_wait_seconds_count", identity="opentv") == 0
    assert value(metrics, "requests_total", route=NO_ROUTE, method="GET", code="404") == 1
    metrics.route("/").count("GET", 200)
    metrics.identity("opentv")
    assert value(metrics, "requests_total", route="/", method="GET", code="200") == 2
    assert value(metrics, "upstream_connections", route="/", state="idle") == 0
    assert value(metrics, "token_usable", identity="opentv") == 0


@pytest.mark.parametrize(
    ("accept", "openmetrics"),
    [
        ("", False),
        ("*/*", False),
        ("text/plain", False),
        ("application/openmetrics-text", True),
        ("application/openmetrics-text; version=1.0.0; charset=utf-8", True),
        (OPENMETRICS, True),
        ("Application/OpenMetrics-Text;Version=1.0.0", True),
        ("application/openmetrics-text;version=0.0.1,text/plain;version=0.0.4;q=0.5", False),
        ("text/plain, application/openmetrics-text;q=0", False),
        ("application/openmetrics-text;version=x.y;escaping=values", True),
        ("text/plain;version=x", False),
        (";;;,,,=", False),
    ],
)
def test_the_format_is_the_one_the_scraper_asks_for(accept: str, openmetrics: bool) -> None:
    """Whatever stands in ``Accept``, one of the two comes out and parses; nothing of the header is echoed."""
    body, content_type = busy().render(accept)
    assert content_type.startswith(
        "application/openmetrics-text; version=1.0.0" if openmetrics else "text/plain; version=0.0.4"
    )
    assert body.endswith(b"# EOF\n") == openmetrics
    parse = parse_openmetrics if openmetrics else parse_text
    assert list(parse(body.decode()))


@pytest.mark.parametrize("accept", ["", OPENMETRICS])
def test_a_family_in_several_pieces_is_one_family(accept: str) -> None:
    """Its HELP and TYPE come once, its series all, no piece is large."""
    metrics = Metrics(version="1.2.3")
    for name in "abcdefghij":
        metrics.identity(name)
    pieces = list(metrics.slices(accept)[0])
    assert b"".join(pieces).count(b"# TYPE opentv_proxy_token_refreshes") == 1
    assert len(scraped(metrics, accept)["token_refreshes"].samples) == 1260
    assert max(piece.count(b"\n") for piece in pieces) < 300


@pytest.mark.parametrize("accept", ["", OPENMETRICS])
def test_a_route_with_quotes_and_backslashes_stays_one_label(accept: str) -> None:
    """Paths are configured by people."""
    metrics = Metrics(version="1.2.3")
    odd = '/a"b\\c'
    metrics.route(odd)
    assert {sample.labels["route"] for sample in scraped(metrics, accept)["request_body_bytes"].samples} == {odd}
