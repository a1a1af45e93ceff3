"""``/metrics`` of a gateway at work: what was done to it is what it tells, and nothing that a client chose becomes a
label."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Iterable
from pathlib import Path
from typing import Any

import aiohttp
from prometheus_client import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_openmetrics
from prometheus_client.parser import text_string_to_metric_families as read_text

from proxy.sandbox import Fault, Sandbox, SandboxSettings
from tests.support.gateway import Gateway, running_gateway, until
from tests.support.rawclient import ask, client
from tests.support.rawserver import OK, RawServer, Wire, answering, raw_server

ROUTE, IDENTITY = {"route"}, {"identity"}

# The contract with dashboards and alerts: name → type, labels.
SERIES: dict[str, tuple[str, set[str]]] = {
    "build_info": ("info", {"version", "python_version"}),
    "requests_total": ("counter", {"route", "method", "code"}),
    "request_duration_seconds": ("histogram", ROUTE),
    "requests_in_flight": ("gauge", set()),
    "request_body_bytes_total": ("counter", ROUTE),
    "response_body_bytes_total": ("counter", ROUTE),
    "upstream_response_seconds": ("histogram", ROUTE),
    "upstream_errors_total": ("counter", {"route", "reason"}),
    "upstream_connections": ("gauge", {"route", "state"}),
    "rejections_total": ("counter", {"route", "outcome"}),
    "client_denied_total": ("counter", {"reason"}),
    "token_refreshes_total": ("counter", {"identity", "grant", "trigger", "result"}),
    "token_refresh_duration_seconds": ("histogram", IDENTITY),
    "token_wait_seconds": ("histogram", IDENTITY),
    "token_waiters": ("gauge", IDENTITY),
    "token_usable": ("gauge", IDENTITY),
    "token_login_suspended": ("gauge", IDENTITY),
    "token_refresh_consecutive_failures": ("gauge", IDENTITY),
    "access_token_expiry_timestamp_seconds": ("gauge", IDENTITY),
    "access_token_issued_timestamp_seconds": ("gauge", IDENTITY),
    "refresh_token_expiry_timestamp_seconds": ("gauge", IDENTITY),
    "token_last_success_timestamp_seconds": ("gauge", IDENTITY),
    "token_next_refresh_timestamp_seconds": ("gauge", IDENTITY),
    "idp_clock_skew_seconds": ("gauge", IDENTITY),
    "store_errors_total": ("counter", {"store", "operation"}),
    "config_last_reload_successful": ("gauge", set()),
    "config_last_reload_timestamp_seconds": ("gauge", set()),
    "event_loop_lag_seconds": ("histogram", set()),
}
VALUES = {
    "state": {"idle", "active"},
    "outcome": {"replayed", "passed_on", "not_replayable"},
    "grant": {"login", "refresh"},
    "trigger": {"startup", "ahead", "expired", "rejected", "manual", "session_end", "credentials_changed"},
    "result": {
        "success",
        "invalid_grant",
        "invalid_credentials",
        "operator",
        "http_error",
        "rate_limited",
        "timeout",
        "network",
        "malformed",
    },
    "operation": {"load", "save", "lock", "delete"},
}
OPENMETRICS = "application/openmetrics-text; version=1.0.0,text/plain;version=0.0.4;q=0.5"


NO_SUCH_TIME = {"session_end_timestamp_seconds"}  # of a session whose end is not in sight


class Page:
    """One scrape. families: of the gateway's own, by name without prefix."""

    def __init__(self, text: str, *, openmetrics: bool) -> None:
        self.text = text
        read: Callable[[str], Iterable[Metric]] = read_openmetrics if openmetrics else read_text
        families = list(read(text))
        self.names = {family.name for family in families}
        own = [family for family in families if family.name.startswith("opentv_proxy_")]
        self.types = {family.name.removeprefix("opentv_proxy_"): family.type for family in own}
        self.samples: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {
            (sample.name.removeprefix("opentv_proxy_"), tuple(sorted(sample.labels.items()))): sample.value
            for family in own
            for sample in family.samples
        }

    def __call__(self, name: str, **labels: str) -> float:
        """One sample, 0 where it does not exist."""
        return self.samples.get((name, tuple(sorted(labels.items()))), 0.0)

    def sum(self, name: str) -> float:
        return sum(value for (found, _), value in self.samples.items() if found == name)

    def labels(self) -> dict[str, set[str]]:
        """Every value of every label, but for a histogram's buckets."""
        found: dict[str, set[str]] = {}
        for _, labels in self.samples:
            for label, value in labels:
                if label != "le":
                    found.setdefault(label, set()).add(value)
        return found


async def scrape(gateway: Gateway, accept: str = "text/plain") -> Page:
    async with (
        aiohttp.ClientSession() as http,
        http.get(f"{gateway.admin_url}/metrics", headers={"Accept": accept}) as answer,
    ):
        assert answer.status == 200
        text = await answer.text()
    return Page(text, openmetrics=accept == OPENMETRICS)


def identity(sandbox: Sandbox, **changes: Any) -> dict[str, Any]:
    return {
        "system": "keycloak",
        "token_url": sandbox.token_url,
        "client_id": sandbox.client_id,
        "username": sandbox.username,
        "password": sandbox.password,
    } | changes


@contextlib.asynccontextmanager
async def gateway_of(
    sandbox: Sandbox, folder: Path, *routes: dict[str, Any], **sections: Any
) -> AsyncIterator[Gateway]:
    main = {"path": "/", "upstream": sandbox.url, "identity": "opentv"}
    config = {"identities": {"opentv": identity(sandbox)}, "routes": [main, *routes]} | sections
    async with running_gateway(config, folder) as gateway:
        await until(lambda: sandbox.state.counters["token_requests"] > 0, 5, "the first login")
        yield gateway


async def fetch(gateway: Gateway, path: str, method: str = "GET", **how: Any) -> int:
    async with aiohttp.ClientSession() as http, http.request(method, gateway.url + path, **how) as answer:
        await answer.read()
        return answer.status


async def test_every_series_is_there_from_the_start_in_both_formats(tmp_path: Path) -> None:
    async with Sandbox() as sandbox, gateway_of(sandbox, tmp_path) as gateway:

        async def logged_in() -> bool:
            return (await scrape(gateway))("token_usable", identity="opentv") == 1

        await until(logged_in, 5, "a token")
        fresh = await scrape(gateway)
        assert await fetch(gateway, "/adm/x") == 200
        pages = [await scrape(gateway), await scrape(gateway, OPENMETRICS)]
        async with aiohttp.ClientSession() as http, http.get(f"{gateway.admin_url}/status") as answer:
            fingerprint = (await answer.json())["identities"]["opentv"]["fingerprint"]
    for page in pages:
        for name, (kind, labels) in SERIES.items():
            family = name.removesuffix("_total").removesuffix("_info")
            known = page.types.get(family) or page.types.get(name)
            assert known == kind or (kind == "info" and known == "gauge"), (name, known)
            found = [dict(pairs) for sample, pairs in page.samples if sample in (name, f"{name}_count")]
            assert found, name
            assert all(set(pairs) == labels for pairs in found), (name, found)
        own = {name for name, _ in page.samples} - NO_SUCH_TIME
        parts = ("", "_bucket", "_count", "_sum")
        assert own == {
            f"{name}{part}"
            for name, (kind, _) in SERIES.items()
            for part in (parts[1:] if kind == "histogram" else parts[:1])
        }
        assert "_created" not in page.text
        assert fingerprint not in page.text
        assert {name.partition("_")[0] for name in page.names} >= {"process", "python"}
    assert pages[0].samples.keys() == pages[1].samples.keys()
    assert pages[1].text.endswith("# EOF\n")
    assert {name for name, _ in fresh.samples} >= {name for name, _ in pages[0].samples} - {"requests_total"}
    found_values = fresh.labels()
    assert {label: found_values[label] for label in VALUES} == VALUES
    assert fresh.sum("upstream_errors_total") == fresh.sum("client_denied_total") == 0


async def test_the_tokens_times_are_those_of_the_token(tmp_path: Path) -> None:
    settings = SandboxSettings(access_life=40, refresh_life=90, session_max=1000)
    async with Sandbox(settings) as sandbox:
        sandbox.state.clock_shift = 600
        async with gateway_of(sandbox, tmp_path) as gateway:
            assert await fetch(gateway, "/adm/x") == 200
            page, now = await scrape(gateway), time.time()
    one = {"identity": "opentv"}
    assert abs(page("idp_clock_skew_seconds", **one) - 600) < 2
    assert abs(page("access_token_expiry_timestamp_seconds", **one) - now - 40) < 3
    assert abs(page("refresh_token_expiry_timestamp_seconds", **one) - now - 90) < 3
    assert now - 5 < page("token_last_success_timestamp_seconds", **one) <= now
    assert now < page("token_next_refresh_timestamp_seconds", **one) < now + 40
    assert page("token_refreshes_total", grant="login", trigger="startup", result="success", **one) == 1
    assert page("token_refresh_duration_seconds_count", **one) == page.sum("token_refreshes_total") == 1
    assert page("token_waiters", **one) == page("token_refresh_consecutive_failures", **one) == 0


async def test_a_suspended_login_shows(tmp_path: Path) -> None:
    async with Sandbox() as sandbox:
        wrong = {"opentv": identity(sandbox, password="wrong")}
        async with gateway_of(sandbox, tmp_path, identities=wrong) as gateway:

            async def suspended() -> bool:
                return (await scrape(gateway))("token_login_suspended", identity="opentv") == 1

            await until(suspended, 5, "the suspension")
            assert await fetch(gateway, "/adm/x") == 503
            page = await scrape(gateway)
    one = {"identity": "opentv"}
    assert (page("token_usable", **one), page("token_refresh_consecutive_failures", **one)) == (0, 1)
    labels = {"grant": "login", "trigger": "startup", "result": "invalid_credentials"}
    assert page("token_refreshes_total", **labels, **one) == 1
    assert ("access_token_expiry_timestamp_seconds", (("identity", "opentv"),)) not in page.samples
    assert page("requests_total", route="/", method="GET", code="503") == 1


def upstreams_for_faults(raw: RawServer) -> list[dict[str, Any]]:
    return [
        {"path": "/closed", "upstream": "http://127.0.0.1:1"},
        {"path": "/tls", "upstream": f"https://127.0.0.1:{raw.port}"},
        {"path": "/raw", "upstream": raw.url, "timeouts": {"response": "300ms"}},
        {"path": "/allowed", "upstream": raw.url, "allow": ["GET /allowed/**"]},
    ]


async def misbehave(wire: Wire) -> None:
    """An upstream that does what the path says."""
    if wire.unread.startswith(b"\x16"):  # a TLS handshake
        wire.take(len(wire.unread))
        wire.reset()
        return
    request = await wire.request()
    if request.target.endswith(b"/reset"):
        wire.reset()
    elif request.target.endswith(b"/garbage"):
        wire.send(b"SMTP ready\r\n\r\n")
    elif not request.target.endswith(b"/silent"):
        wire.send(OK)


async def test_each_fault_is_counted_once_under_its_name(tmp_path: Path) -> None:
    async with Sandbox() as sandbox, raw_server(misbehave) as raw:
        sections = {"clients": {"api_keys": {"keys": ["a-good-key"]}}}
        async with gateway_of(sandbox, tmp_path, *upstreams_for_faults(raw), **sections) as gateway:
            key = {"X-Api-Key": "a-good-key"}
            codes = [
                await fetch(gateway, path, method, headers=key)
                for method, path in (
                    ("GET", "/closed/x"),
                    ("GET", "/tls/x"),
                    ("GET", "/raw/reset"),
                    ("GET", "/raw/garbage"),
                    ("GET", "/raw/silent"),
                    ("GET", "/raw/fine"),
                    ("PUT", "/allowed/x"),
                    ("TRACE", "/raw/x"),
                )
            ]
            assert codes == [502, 502, 502, 502, 504, 200, 403, 405]
            assert await fetch(gateway, "/adm/x") == 401
            await ask(gateway.url, b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n")
            page = await scrape(gateway)
            assert {
                (labels[1][1], labels[0][1]): value
                for (name, labels), value in page.samples.items()
                if name == "upstream_errors_total" and value
            } == {
                ("/closed", "connect"): 1,
                ("/tls", "reset"): 1,
                ("/raw", "reset"): 1,
                ("/raw", "protocol"): 1,
                ("/raw", "timeout"): 1,
            }
            assert page("client_denied_total", reason="credential") == page("client_denied_total", reason="allow") == 1
            assert page("requests_total", route="none", method="GET", code="401") == 1
            assert page("requests_total", route="/allowed", method="PUT", code="403") == 1
            assert page.sum("requests_total") == len(codes) + 2
            assert page.sum("request_duration_seconds_count") == len(codes) + 2


async def test_rejections_and_bodies_are_counted(tmp_path: Path) -> None:
    async with Sandbox() as sandbox:
        tight = {"path": "/rmg", "upstream": sandbox.url, "identity": "second", "replay_limit": 100}
        both = {"opentv": identity(sandbox), "second": identity(sandbox, client_id="ua-grant")}
        async with gateway_of(sandbox, tmp_path, tight, identities=both) as gateway:
            assert await fetch(gateway, "/adm/x", "POST", data=b"x" * 1000) == 201
            assert await fetch(gateway, "/rmg/x", "POST", data=b"x" * 1000) == 201
            sandbox.state.revoke_access_tokens()
            assert await fetch(gateway, "/adm/x", "POST", data=b"x" * 1000) == 201
            assert await fetch(gateway, "/rmg/x", "POST", data=b"x" * 1000) == 403
            sandbox.state.faults["api"].append(Fault("reject", times=2))
            assert await fetch(gateway, "/adm/x") == 403
            page = await scrape(gateway)
    # The last request: its first rejection led to a replay, the second was passed on.
    assert page("rejections_total", route="/", outcome="replayed") == 2
    assert page("rejections_total", route="/rmg", outcome="not_replayable") == 1
    assert page("rejections_total", route="/", outcome="passed_on") == 1
    assert page("request_body_bytes_total", route="/") == 2000
    assert page("request_body_bytes_total", route="/rmg") == 2000
    assert page("response_body_bytes_total", route="/") > 100
    assert page("requests_total", route="/", method="POST", code="201") == 2
    assert page("token_wait_seconds_count", identity="opentv") >= 2


async def test_gauges_follow_what_is_going_on(tmp_path: Path) -> None:
    held = asyncio.Event()

    async def slow(wire: Wire) -> None:
        await wire.request()
        await held.wait()
        wire.send(OK)

    async with Sandbox() as sandbox, raw_server(slow) as raw:
        route = {"path": "/raw", "upstream": raw.url}
        async with gateway_of(sandbox, tmp_path, route) as gateway:

            async def shows(in_flight: int, active: int, idle: int) -> bool:
                page = await scrape(gateway)
                found = [page("upstream_connections", route="/raw", state=each) for each in ("active", "idle")]
                return [page("requests_in_flight"), *found] == [in_flight, active, idle]

            requests = [asyncio.create_task(fetch(gateway, "/raw/x")) for _ in range(3)]
            await until(lambda: shows(3, 3, 0), 5, "three requests under way")
            async with client(gateway.url) as left:  # one that does not wait for its answer
                left.send(b"GET /raw/x HTTP/1.1\r\nHost: g\r\n\r\n")
                await until(lambda: shows(4, 4, 0), 5, "the fourth")
            await until(lambda: shows(3, 3, 0), 5, "the fourth gone with its client")
            held.set()
            assert await asyncio.gather(*requests) == [200, 200, 200]
            await until(lambda: shows(0, 0, 3), 5, "three idle connections")
            assert sum(not wire.ended.is_set() for wire in raw.wires) == 3
            raw.begin()
            await until(lambda: shows(0, 0, 0), 5, "no connection")
            page = await scrape(gateway)
            assert page("requests_total", route="/raw", method="GET", code="499") == 1
            assert page.sum("upstream_errors_total") == 0
            assert page("event_loop_lag_seconds_count") > 0


async def test_nothing_that_a_client_chooses_becomes_a_label(tmp_path: Path) -> None:
    async with Sandbox() as sandbox, raw_server(answering(OK)) as raw:
        route = {"path": "/raw", "upstream": raw.url}
        async with gateway_of(sandbox, tmp_path, route) as gateway:
            await fetch(gateway, "/raw/x")
            await ask(gateway.url, b"BREW /raw HTTP/1.1\r\nHost: g\r\n\r\n")
            await ask(gateway.url, b"NO HTTP\r\n\r\n")
            before = await scrape(gateway)
            for number in range(200):
                mark = f"chosen{number}"
                head = (
                    f"{mark.upper()} /raw/{mark}?{mark}={mark} HTTP/1.1\r\nHost: {mark}\r\nUser-Agent: {mark}\r\n"
                    f"x-correlation-id: {mark}\r\nX-Forwarded-For: 10.0.0.{number}\r\n\r\n"
                )
                await ask(gateway.url, head.encode())
            for junk in (b"get /raw HTTP/1.1\r\nHost: g\r\n\r\n", b"GET /raw HTTP/9.9\r\nHost: g\r\n\r\n"):
                await ask(gateway.url, junk)
            after = await scrape(gateway)
    assert after.labels()["method"] <= {"GET", "other"}
    assert "chosen" not in after.text.lower()
    assert after.labels() | {"code": set()} == before.labels() | {"code": set()}
    assert after.sum("requests_total") == before.sum("requests_total") + 202
