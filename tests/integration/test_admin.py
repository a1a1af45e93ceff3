"""The admin port from outside, over real sockets."""

import asyncio
import base64
import hashlib
import io
import json
import logging
import re
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import aiohttp
import pytest
import structlog
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from proxy import logs
from proxy.admin import AdminServer, Check
from proxy.errors import TokenError, TokenUnavailableError
from proxy.metrics import Metrics
from tests.support.gateway import until

PERSON = {"Accept": "text/html,application/xhtml+xml;q=0.9,*/*;q=0.8"}


@dataclass
class Plant:
    """What the admin port shows, as a test sets it."""

    conditions: list[Check] = field(default_factory=lambda: [Check("identity opentv", ok=True)])
    shown: dict[str, object] = field(default_factory=lambda: {"version": "1.2.3", "identities": {"opentv": {}}})
    outcome: Mapping[str, object] | Exception = field(default_factory=lambda: {"result": "success", "detail": ""})
    refreshed: list[str] = field(default_factory=list)
    metrics: Metrics = field(default_factory=lambda: Metrics(version="1.2.3"))

    def checks(self) -> Sequence[Check]:
        return self.conditions

    def status(self) -> Mapping[str, object]:
        return self.shown

    def identities(self) -> list[str]:
        return ["opentv", "a b"]

    async def refresh(self, name: str) -> Mapping[str, object]:
        self.refreshed.append(name)
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome


class Reply:
    """status, headers (first of each name, any case), body of one response."""

    def __init__(self, status: int, headers: Mapping[str, str], body: str) -> None:
        self.status, self.headers, self.body = status, headers, body

    @property
    def problem(self) -> dict[str, object]:
        assert self.headers["Content-Type"] == "application/problem+json"
        content = json.loads(self.body)
        assert isinstance(content, dict)
        assert content["status"] == self.status
        return content


class Port:
    """A started AdminServer, and the means to ask it."""

    def __init__(self, server: AdminServer, client: aiohttp.ClientSession) -> None:
        self.address = server.address
        self._client = client

    @property
    def host(self) -> str:
        return f"{self.address[0]}:{self.address[1]}"

    async def ask(self, method: str, path: str, headers: Mapping[str, str] | None = None) -> Reply:
        async with self._client.request(method, f"http://{self.host}{path}", headers=headers) as response:
            return Reply(response.status, response.headers, await response.text())

    async def raw(self, data: bytes) -> bytes:
        """Everything that comes back for these bytes until the connection closes."""
        reader, writer = await asyncio.open_connection(*self.address)
        writer.write(data)
        try:
            async with asyncio.timeout(10):
                return await reader.read()
        finally:
            writer.close()


@asynccontextmanager
async def running(plant: Plant) -> AsyncIterator[Port]:
    server = AdminServer("127.0.0.1", 0, readiness=plant, status=plant, metrics=plant.metrics, refresher=plant)
    await server.start()
    async with aiohttp.ClientSession() as client:
        yield Port(server, client)
    await server.close()


@pytest.fixture
def plant() -> Plant:
    return Plant()


@pytest.fixture
async def port(plant: Plant) -> AsyncIterator[Port]:
    async with running(plant) as port:
        yield port


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """Everything that is logged, as a process would write it."""
    root = logging.getLogger()
    handlers, level, config = root.handlers, root.level, structlog.get_config()
    stream = io.StringIO()
    logs.setup("info", "json", "all", stream)
    yield stream
    root.handlers = handlers
    root.setLevel(level)
    structlog.configure(**config)


async def test_livez_answers_while_nothing_is_ready(plant: Plant, port: Port) -> None:
    """A missing token is no reason to restart the process."""
    plant.conditions = [Check("identity opentv", ok=False, words="no token yet")]
    reply = await port.ask("GET", "/livez")
    assert (reply.status, reply.body) == (200, "ok\n")


async def test_readyz_is_ok_while_every_check_holds(port: Port) -> None:
    """And brief about it."""
    reply = await port.ask("GET", "/readyz")
    assert (reply.status, reply.body) == (200, "ok\n")


async def test_readyz_verbose_lists_the_checks(plant: Plant, port: Port) -> None:
    """One a line, as Kubernetes' own components do."""
    plant.conditions.append(Check("store", ok=True))
    reply = await port.ask("GET", "/readyz?verbose")
    assert (reply.status, reply.body) == (200, "[+]identity opentv ok\n[+]store ok\nreadyz check passed\n")


async def test_readyz_is_503_and_says_why_when_a_check_fails(plant: Plant, port: Port) -> None:
    """Also without ``verbose``: whoever looks wants to know."""
    plant.conditions.append(Check("identity ags", ok=False, words="login suspended\nuntil 10:31"))
    reply = await port.ask("GET", "/readyz")
    assert reply.status == 503
    assert reply.body == (
        "[+]identity opentv ok\n[-]identity ags failed: login suspended until 10:31\nreadyz check failed\n"
    )


@pytest.mark.parametrize("path", ["/", "/livez", "/readyz", "/metrics", "/status"])
async def test_head_answers_as_get_without_a_body(port: Port, path: str) -> None:
    """Probes use it."""
    got, head = await port.ask("GET", path), await port.ask("HEAD", path)
    assert (head.status, head.headers["Content-Type"], head.body) == (200, got.headers["Content-Type"], "")
    raw = await port.raw(f"HEAD {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    assert raw.endswith(b"\r\n\r\n")


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [("", "text/plain; version=0.0.4"), ("application/openmetrics-text;version=1.0.0", "application/openmetrics-text")],
)
async def test_metrics_come_in_the_scrapers_format(plant: Plant, port: Port, accept: str, content_type: str) -> None:
    """Whole, and parseable by the client library's own parsers."""
    plant.metrics.route("/").count("GET", 200)
    plant.metrics.identity("opentv")
    reply = await port.ask("GET", "/metrics", {"Accept": accept})
    assert reply.headers["Content-Type"].startswith(content_type)
    openmetrics = "openmetrics" in content_type
    parse = parse_openmetrics if openmetrics else parse_text
    values = {sample.name: sample.value for family in parse(reply.body) for sample in family.samples}
    assert values["opentv_proxy_requests_total"] == 1
    assert values["opentv_proxy_token_usable"] == 0


async def test_status_is_the_json_of_its_source(plant: Plant, port: Port) -> None:
    """Never kept by a cache."""
    plant.shown = {"identities": {"opentv": {"state": "fresh", "fingerprint": "0a1b2c3d", "refresh_expires_at": None}}}
    reply = await port.ask("GET", "/status")
    assert (reply.status, reply.headers["Content-Type"]) == (200, "application/json")
    assert json.loads(reply.body) == plant.shown


async def test_no_page_shows_what_looks_like_a_token(plant: Plant, port: Port) -> None:
    """A provider's words may quote one; the status passes them on."""
    jwt = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJjcm0ifQ.c2lnbmF0dXJl"
    plant.shown = {"identities": {"opentv": {"history": [{"detail": f"said: token {jwt} is dead"}]}}}
    plant.outcome = TokenError("malformed", f"the answer was {jwt}")
    pages = [await port.ask("GET", "/status"), await port.ask("POST", "/identities/opentv/refresh")]
    assert all("eyJ" not in page.body and "[redacted]" in page.body for page in pages)


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        ("*/*", "text/plain; charset=utf-8"),
        ("", "text/plain; charset=utf-8"),
        ("text/*", "text/plain; charset=utf-8"),
        ("text/html;q=0, */*", "text/plain; charset=utf-8"),
        ("text/html;q=0.000", "text/plain; charset=utf-8"),
        ("application/xhtml+xml,TEXT/HTML;q=0.9,*/*;q=0.8", "text/html; charset=utf-8"),
    ],
)
async def test_a_browser_gets_the_page_and_a_terminal_gets_text(port: Port, accept: str, content_type: str) -> None:
    reply = await port.ask("GET", "/", {"Accept": accept})
    assert (reply.status, reply.headers["Content-Type"]) == (200, content_type)
    assert reply.body.startswith("<!doctype html>") == ("html" in content_type)


async def test_the_text_lists_the_endpoints(port: Port) -> None:
    """For whoever opens the port to see what it is."""
    reply = await port.ask("GET", "/")
    for path in ("/livez", "/readyz", "/metrics", "/status", "/identities/NAME/refresh"):
        assert path in reply.body


async def test_a_browser_obeys_the_pages_own_style_and_script_and_no_other(port: Port) -> None:
    """By their hashes: there is no word in the policy by which anything injected could run, load, post or frame."""
    reply = await port.ask("GET", "/", PERSON)
    policy = dict(rule.split(" ", 1) for rule in reply.headers["Content-Security-Policy"].split("; "))
    for element in ("style", "script"):
        (content,) = re.findall(f"<{element}>(.*?)</{element}>", reply.body, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert policy.pop(f"{element}-src") == f"'sha256-{digest}'"
    assert policy == {
        "default-src": "'none'",
        "connect-src": "'self'",
        "img-src": "data:",
        "form-action": "'self'",
        "base-uri": "'none'",
        "frame-ancestors": "'none'",
    }


HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)> &lt; \x1b[31mred \u202edesrever"
TOKEN = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJjcm0ifQ.c2lnbmF0dXJl"


async def test_what_others_say_stays_text_on_the_page_and_moves_nothing_in_a_terminal(plant: Plant, port: Port) -> None:
    """A provider's words, and everything else that is not the gateway's own, wherever it stands."""

    def hostile(value: object) -> object:
        if isinstance(value, dict):
            return {key: hostile(item) for key, item in value.items()}
        if isinstance(value, list):
            return [hostile(item) for item in value]
        return f"{value}{HOSTILE} {TOKEN}" if isinstance(value, str) and not value.startswith("2026-") else value

    broken: dict[str, object] = {
        "state": "expired",
        "fingerprint": "0a1b2c3d",
        "issued_at": "2026-11-21T10:25:00Z",
        "expires_at": "2026-11-21T10:30:00Z",
        "consecutive_failures": 1,
        "system": "keycloak",
        "endpoint": "https://idp.example.com",
        "history": [
            {"at": "2026-11-21T10:30:00Z", "result": "network", "grant": "login", "trigger": "x", "detail": "no"}
        ],
    }
    lately = {"requests": 2, "server_errors": 1, "seconds": 60, "upstream_errors": {"reset": 1}}
    route = {"path": "/", "upstream": "https://up.example.com", "identity": "x", "requests": 5, "last_minute": lately}
    faults = [{"path": "listen", "words": "expected a port"}]
    content = {"version": "1.2.3", "at": "2026-11-21T10:31:00Z", "routes": [route], "store": {"kind": "redis"}}
    content |= {"identities": {"opentv": broken}, "warnings": ["verify is false"]}
    content |= {"config": {"reload_ok": False, "faults": faults}}
    plant.shown = {key: hostile(value) for key, value in content.items()}
    plant.outcome = TokenError("operator", f"said{HOSTILE} {TOKEN}")
    pages = [await port.ask("GET", "/", PERSON), await port.ask("POST", "/identities/opentv/refresh", PERSON)]
    pages.append(await port.ask("GET", "/"))
    for page in pages[:2]:
        text = re.sub("<(style|script)>.*?</\\1>", "", page.body, flags=re.DOTALL)
        assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
        assert "<script" not in text
        assert "<img" not in text
        assert "alert(2)> " not in text
        assert "&amp;lt;" in text
    for page in pages:
        assert "\x1b" not in page.body
        assert "\u202e" not in page.body
        assert "eyJ" not in page.body
    assert pages[0].body.count("&lt;script&gt;") >= 12


async def test_a_form_on_the_page_refreshes_and_says_in_words_what_became_of_it(plant: Plant, port: Port) -> None:
    """What a browser without script sees; the status is the same as for curl."""
    origin = {**PERSON, "Origin": f"http://{port.host}", "Sec-Fetch-Site": "same-origin"}
    outcomes: list[tuple[Mapping[str, object] | Exception, int, str]] = [
        ({"result": "success"}, 200, "opentv has a new token."),
        ({"result": "operator", "detail": "Direct Access Grants is off"}, 502, "Direct Access Grants is off"),
        (TokenError("network", "the provider hung up"), 502, "the provider hung up"),
        (TokenUnavailableError("a pause was asked for", retry_after=7), 503, "a pause was asked for"),
    ]
    for outcome, status, words in outcomes:
        plant.outcome = outcome
        reply = await port.ask("POST", "/identities/opentv/refresh", origin)
        assert (reply.status, reply.headers["Content-Type"]) == (status, "text/html; charset=utf-8")
        assert f'<p id="result">{words}</p>' in reply.body
        assert '<a href="/">' in reply.body
    assert reply.headers["Retry-After"] == "7"


@pytest.mark.parametrize(
    ("method", "path", "headers", "status", "words"),
    [
        ("GET", "/nowhere", {}, 404, "There is nothing here"),
        ("GET", "/identities/opentv/refresh", {}, 405, "Here one may POST."),
        ("POST", "/identities/nobody/refresh", {}, 404, "There is no identity of this name"),
        ("POST", "/identities/opentv/refresh", {"Origin": "null"}, 403, "from a page of another origin"),
        ("GET", "/", {"Host": "evil.example", "Accept-Language": "en"}, 403, "by its IP address"),
    ],
)
async def test_a_person_is_refused_in_words(
    plant: Plant, port: Port, method: str, path: str, headers: Mapping[str, str], status: int, words: str
) -> None:
    reply = await port.ask(method, path, {**PERSON, **headers})
    assert (reply.status, reply.headers["Content-Type"]) == (status, "text/html; charset=utf-8")
    assert words in reply.body
    assert "'none'" in reply.headers["Content-Security-Policy"]
    assert plant.refreshed == []


async def test_its_own_form_may_say_where_it_comes_from(port: Port) -> None:
    """With "no-referrer" a browser would make the Origin of every form "null", as that of a foreign page is."""
    assert (await port.ask("GET", "/", PERSON)).headers["Referrer-Policy"] == "same-origin"


@pytest.mark.parametrize("path", ["/", "/livez", "/nowhere", "/identities/opentv/refresh"])
async def test_every_answer_carries_the_security_headers(port: Port, path: str) -> None:
    """Errors too; and nobody learns the versions of what serves it."""
    reply = await port.ask("GET", path)
    assert reply.headers["X-Content-Type-Options"] == "nosniff"
    assert reply.headers["Content-Security-Policy"].startswith("default-src 'none'")
    assert reply.headers["Cache-Control"] == "no-store"
    assert reply.headers["Server"] == "opentv-proxy"


async def test_a_refresh_by_hand_answers_with_its_outcome(plant: Plant, port: Port) -> None:
    """200 only when there is a new token."""
    plant.outcome = {"at": "2026-11-21T10:30:00Z", "trigger": "manual", "result": "success", "duration_s": 0.1}
    reply = await port.ask("POST", "/identities/opentv/refresh")
    assert reply.status == 200
    assert json.loads(reply.body) == {"identity": "opentv", **plant.outcome}
    assert plant.refreshed == ["opentv"]


async def test_a_refresh_that_failed_says_why(plant: Plant, port: Port) -> None:
    """502 with the provider's side of it in words."""
    plant.outcome = {"result": "invalid_credentials", "detail": "Keycloak refused the password", "duration_s": 0.1}
    reply = await port.ask("POST", "/identities/opentv/refresh")
    assert reply.status == 502
    assert reply.problem["detail"] == "Keycloak refused the password"
    assert (reply.problem["result"], reply.problem["identity"]) == ("invalid_credentials", "opentv")
    assert reply.problem["type"] == "urn:opentv-proxy:problem:token"


async def test_a_refresh_that_cannot_be_made_says_when(plant: Plant, port: Port) -> None:
    """503 with whole seconds to wait, never 0."""
    plant.outcome = TokenUnavailableError("the provider asked for a pause", retry_after=0.2)
    reply = await port.ask("POST", "/identities/opentv/refresh")
    assert (reply.status, reply.headers["Retry-After"]) == (503, "1")
    assert reply.problem["detail"] == "the provider asked for a pause"


async def test_names_are_decoded_and_unknown_ones_are_404(plant: Plant, port: Port) -> None:
    """As a problem document; nothing is refreshed."""
    assert (await port.ask("POST", "/identities/a%20b/refresh")).status == 200
    assert (await port.ask("POST", "/identities/nobody/refresh")).problem["status"] == 404
    assert (await port.ask("POST", "/identities/opentv/other")).problem["status"] == 404
    assert plant.refreshed == ["a b"]


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("POST", "/livez", "GET, HEAD"),
        ("DELETE", "/status", "GET, HEAD"),
        ("GET", "/identities/opentv/refresh", "POST"),
        ("OPTIONS", "/identities/opentv/refresh", "POST"),
        ("PUT", "/identities/nobody/refresh", "POST"),
    ],
)
async def test_other_methods_are_405_with_allow(plant: Plant, port: Port, method: str, path: str, allow: str) -> None:
    """A link or an image can never cause a refresh."""
    reply = await port.ask(method, path)
    assert (reply.problem["status"], reply.headers["Allow"]) == (405, allow)
    assert plant.refreshed == []


async def test_a_page_of_another_site_cannot_cause_a_refresh(plant: Plant, port: Port) -> None:
    """Neither by a form, nor by script, nor by a name that was made to point here (DNS rebinding)."""
    for headers in (
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": f"http://{port.address[0]}:1"},
        {"Origin": f"http://{port.host}.evil.example"},
        {"Origin": "http://evil.example:9090", "Host": "evil.example:9090"},
        {"Sec-Fetch-Site": "same-origin", "Origin": "http://evil.example", "Host": "evil.example"},
        {"Origin": ""},
    ):
        reply = await port.ask("POST", "/identities/opentv/refresh", headers)
        assert reply.problem["status"] == 403, headers
    assert plant.refreshed == []


async def test_its_own_page_and_plain_tools_may_refresh(plant: Plant, port: Port) -> None:
    """By address or as localhost in a browser; by any name with curl."""
    _, number = port.address
    for headers in (
        {},
        {"Host": "gateway.internal:9090"},
        {"Origin": f"http://{port.host}", "Sec-Fetch-Site": "same-origin"},
        {"Origin": f"http://LOCALHOST:{number}", "Host": f"localhost:{number}"},
        {"Origin": "http://[::1]:9090", "Host": "[::1]:9090"},
    ):
        assert (await port.ask("POST", "/identities/opentv/refresh", headers)).status == 200, headers
    assert len(plant.refreshed) == 5


@pytest.mark.parametrize("name", ["Origin", "Referer", "Accept-Language", "Sec-Fetch-Site"])
async def test_a_name_made_to_point_here_shows_a_browser_no_status(port: Port, name: str) -> None:
    """DNS rebinding: to the browser evil.example is the page's own origin, so that the page sees the answers."""
    browser = {name: "same-origin"}
    for path in ("/", "/status"):
        for host in ("evil.example:9090", "127.0.0.1.evil.example", "localhost.evil.example", "[::1", ""):
            reply = await port.ask("GET", path, {"Host": host, **browser})
            assert "IP address" in str(reply.problem["detail"]), host
            assert reply.status == 403
        for host in (port.host, "LOCALHOST:9090", "[::1]:9090"):
            assert (await port.ask("GET", path, {"Host": host, **browser})).status == 200, host


@pytest.mark.parametrize("path", ["/", "/status", "/livez", "/readyz", "/metrics"])
async def test_tools_probes_and_scrapers_may_use_any_name(port: Port, path: str) -> None:
    for agent in ("curl/8.5.0", "kube-probe/1.31", "Prometheus/3.0.0"):
        headers = {"Host": "gateway.internal:9090", "User-Agent": agent, "Accept": "text/html,*/*;q=0.1"}
        assert (await port.ask("GET", path, headers)).status == 200


async def test_a_fault_in_a_source_is_a_500_and_a_log_line(plant: Plant, port: Port, log: io.StringIO) -> None:
    """The next request is served as if nothing had been."""
    plant.shown = {"at": object()}
    reply = await port.ask("GET", "/status")
    assert reply.problem["status"] == 500
    (record,) = [json.loads(line) for line in log.getvalue().splitlines()]
    assert (record["level"], record["path"]) == ("error", "/status")
    assert "TypeError" in record["exception"]
    assert (await port.ask("GET", "/livez")).status == 200


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"GET / HTTP/1.1\r\nAuthorization: Bearer zanzi\x00bar\r\n\r\n",
        b"GET / HTTP/1.1\r\nCookie zanzibar\r\n\r\n",
        b"zanzibar\r\n\r\n",
        b"GET /zanzibar HTTP/1.1\r\nHost: x\r\nContent-Length: zanzibar\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"zanzibar" * 2000 + b"\r\n\r\n",
        b"GET /" + b"zanzibar" * 2000 + b" HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"".join(b"X-%d: zanzibar\r\n" % n for n in range(1000)) + b"\r\n",
    ],
)
async def test_malformed_requests_are_refused_without_quoting_them(
    port: Port, log: io.StringIO, request_bytes: bytes
) -> None:
    """aiohttp's own answer and log line show the offending bytes, a credential among them."""
    reply = await port.raw(request_bytes)
    assert reply.startswith((b"HTTP/1.1 400 ", b"HTTP/1.0 400 "))
    assert b"application/problem+json" in reply
    assert b"zanzi" not in reply
    assert log.getvalue() == ""


async def test_connections_are_bounded(port: Port) -> None:
    """Idle ones take no memory without end; the next one is closed at once."""
    held = [await asyncio.open_connection(*port.address) for _ in range(100)]
    assert await port.raw(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n") == b""
    for _, writer in held:
        writer.close()
        await writer.wait_closed()

    async def served() -> bool:
        return b"200 OK" in await port.raw(b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")

    await until(served, 10, "served again once the others left")


async def test_others_are_served_while_a_refresh_takes_its_time() -> None:
    """A probe does not wait for an identity provider."""
    begun, may_end = asyncio.Event(), asyncio.Event()

    class Slow(Plant):
        async def refresh(self, _name: str) -> Mapping[str, object]:
            begun.set()
            await may_end.wait()
            return {"result": "success"}

    async with running(Slow()) as port:
        refresh = asyncio.create_task(port.ask("POST", "/identities/opentv/refresh"))
        await begun.wait()
        assert (await port.ask("GET", "/livez")).status == 200
        may_end.set()
        assert (await refresh).status == 200


async def test_an_address_in_use_is_an_oserror_and_nothing_is_left(plant: Plant, port: Port) -> None:
    """The caller finds the words."""
    second = AdminServer(*port.address, readiness=plant, status=plant, metrics=plant.metrics, refresher=plant)
    with pytest.raises(OSError, match="address already in use"):
        await second.start()
    await second.close()


async def test_after_close_nothing_listens(plant: Plant) -> None:
    """Twice is as good as once."""
    server = AdminServer("127.0.0.1", 0, readiness=plant, status=plant, metrics=plant.metrics, refresher=plant)
    await server.start()
    address = server.address
    await server.close()
    await server.close()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection(*address)
