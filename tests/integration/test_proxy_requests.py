"""What reaches the upstream of a request: its bytes, its fields, and exactly one credential (A5 to A11, A20)."""

import asyncio
import re
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from tests.support.gateway import until
from tests.support.proxied import Scene, is_problem, scene
from tests.support.rawclient import client
from tests.support.rawserver import OK, Message, Wire, answering

pytestmark = pytest.mark.asyncio(loop_scope="module")

BEARER = re.compile(rb"Bearer eyJ[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")


def routes(upstream: str) -> list[dict[str, Any]]:
    def route(path: str, identity: str | None, **more: Any) -> dict[str, Any]:
        return {"path": path, "upstream": upstream, "identity": identity, **more}

    return [
        route("/", "opentv"),
        route("/plain", None),
        route("/nv", "nv"),
        route("/set", "opentv", headers={"set": {"nv-tenant-id": "nagra"}, "remove": ["X-Internal"]}),
        route("/fwd", None, forwarded=True, host="preserve"),
        route("/small", None, max_body="1KiB"),
    ]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Scene]:
    async with scene(routes, tmp_path_factory.mktemp("requests")) as one:
        yield one


@pytest.fixture
def proxy(shared: Scene) -> Scene:
    shared.upstream.begin()
    return shared


def get(path: str, *lines: bytes, method: bytes = b"GET") -> bytes:
    head = [method + b" " + path.encode() + b" HTTP/1.1", b"Host: gw.example", *lines]
    return b"\r\n".join(head) + b"\r\n\r\n"


def post(path: str, *lines: bytes, body: bytes = b"hello") -> bytes:
    return get(path, b"Content-Length: %d" % len(body), *lines, method=b"POST") + body


def signed_once(request: Message) -> None:
    (credential,) = request.values(b"authorization")
    assert BEARER.fullmatch(credential)
    assert sum(b"eyJ" in line for line in request.lines) == 1


# -- what passes ------------------------------------------------------------------------------------------------


async def test_a_request_passes_with_a_credential_a_host_and_an_id_and_nothing_else_changed(proxy: Scene) -> None:
    lines = [
        b"Accept: a",
        b"accept:  b ",
        b"X-Empty:",
        b"Cookie: a=1",
        b"Cookie: b=2",
        b"X-Raw: \xe9\xff",
        b"x-lower: 1",
    ]
    got = await proxy.passed(get("/a?b=c", *lines))
    assert got.start == b"GET /a?b=c HTTP/1.1"
    assert got.lines[0] == b"Host: " + proxy.upstream.url.removeprefix("http://").encode()
    assert [line for line in got.lines[1:] if not line.startswith((b"x-correlation-id", b"Authorization"))] == lines
    signed_once(got)


async def test_nothing_is_invented(proxy: Scene) -> None:
    got = await proxy.passed(get("/plain"))
    assert [line.partition(b":")[0].lower() for line in got.lines] == [b"host", b"x-correlation-id"]


@pytest.mark.parametrize(
    "method", [b"GET", b"HEAD", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS", b"PROPFIND", b"x-Y!"]
)
async def test_methods_pass_as_they_are(proxy: Scene, method: bytes) -> None:
    assert (await proxy.passed(get("/plain", method=method))).method == method


@pytest.mark.parametrize("body", [b"", b"x", b"\x00\r\n\r\nGET / HTTP/1.1\r\n\r\n" * 9, bytes(range(256)) * 3000])
async def test_a_sized_body_passes_as_it_is(proxy: Scene, body: bytes) -> None:
    got = await proxy.passed(post("/a", b"Content-Encoding: gzip", body=body))
    assert (got.body, got.values(b"content-length")) == (body, [b"%d" % len(body)])
    assert got.values(b"content-encoding") == [b"gzip"]


async def test_a_chunked_body_passes_chunked_without_extensions(proxy: Scene) -> None:
    body = b"5;x=1\r\nhello\r\n1\r\n \r\n5\r\nworld\r\n0\r\n\r\n"
    got = await proxy.passed(get("/a", b"transfer-encoding: Chunked", method=b"POST") + body)
    assert (got.body, got.values(b"transfer-encoding"), got.values(b"content-length")) == (
        b"hello world",
        [b"chunked"],
        [],
    )


async def test_trailers_pass_but_those_that_a_header_may_not_be(proxy: Scene) -> None:
    body = (b"1\r\nx\r\n0\r\nDigest: d\r\nAuthorization: Bearer mine\r\nnv-authorizations: mine\r\nHost: evil\r\n"
            b"NV_Authorizations: mine\r\nContent-Length: 9\r\nX-Secret: s\r\n\r\n")  # fmt: skip
    got = await proxy.passed(
        get("/nv", b"Transfer-Encoding: chunked", b"Trailer: Digest", b"Connection: x-secret", method=b"POST") + body
    )
    assert got.trailers == b"Digest: d\r\n"
    assert len(got.values(b"nv-authorizations")) == 1


async def test_http_1_0_is_served_and_its_connection_ends(proxy: Scene) -> None:
    for request in (
        b"GET /a HTTP/1.0\r\n\r\n",
        b"POST /a HTTP/1.0\r\nContent-Length: 5\r\nConnection: keep-alive\r\n\r\nhello",
    ):
        async with client(proxy.gateway.url) as wire:
            wire.send(request)
            assert (await wire.response()).status == 200
            assert await wire.rest() == b""
    assert [got.start for got in proxy.upstream.requests] == [b"GET /a HTTP/1.1", b"POST /a HTTP/1.1"]
    assert proxy.upstream.requests[1].body == b"hello"
    assert all(len(got.values(b"host")) == 1 for got in proxy.upstream.requests)


async def test_one_connection_serves_many_requests_one_after_the_other_and_at_once(proxy: Scene) -> None:
    async with client(proxy.gateway.url) as wire:
        for number in range(3):
            wire.send(post(f"/a{number}"))
            assert (await wire.response()).body == b"ok"
        wire.send(b"\r\n".join([post("/p0"), get("/p1") + get("/p2"), post("/p3")]))
        for _ in range(4):
            assert (await wire.response()).body == b"ok"
    targets = [got.target for got in proxy.upstream.requests]
    assert targets == [b"/a0", b"/a1", b"/a2", b"/p0", b"/p1", b"/p2", b"/p3"]
    assert len(proxy.upstream.wires) == 1


async def test_pipelined_answers_keep_their_order_and_a_refusal_its_place(proxy: Scene) -> None:
    async def numbered(wire: Wire) -> None:
        body = (await wire.request()).target
        wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))

    proxy.upstream.begin(numbered)
    async with client(proxy.gateway.url) as wire:
        wire.send(get("/1") + get("/t", method=b"TRACE") + get("/2") + get("/3", b"Host: again") + get("/4"))
        assert [(await wire.response()).status for _ in range(4)] == [200, 405, 200, 400]
        assert await wire.rest() == b""
    assert [answer.body for answer in wire.messages[0:3:2]] == [b"/1", b"/2"]
    assert [got.target for got in proxy.upstream.requests] == [b"/1", b"/2"]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64])
async def test_a_request_that_comes_in_little_pieces_is_the_same_request(proxy: Scene, size: int) -> None:
    request = b"\r\n" + get("/a", b"Transfer-Encoding: chunked", method=b"POST") + b"5\r\nhello\r\n0\r\n\r\n"
    async with client(proxy.gateway.url) as wire:
        for at in range(0, len(request), size):
            wire.send(request[at : at + size])
            await asyncio.sleep(0)
        assert (await wire.response()).status == 200
    assert (await proxy.upstream.request()).body == b"hello"


# -- the credential (A8, A9) ------------------------------------------------------------------------------------

CLIENTS_OWN = [
    [b"Authorization: Bearer mine"],
    [b"authorization: Basic bWluZQ==", b"AUTHORIZATION:mine"],
    [b"Connection: authorization"],
    [b"Connection: close, Authorization", b"Authorization: mine"],
    [b"Connection: keep-alive", b"connection: nv-authorizations, authorization,host,content-length"],
    [b"Connection: x-correlation-id, nv-tenant-id, transfer-encoding"],
    [b"nv-authorizations: mine", b"NV_AUTHORIZATIONS: mine"],
    [b"Transfer_Encoding: chunked", b"Content_Length: 3"],
    [b"Proxy-Authorization: mine", b"Keep-Alive: 5", b"TE: trailers", b"Upgrade: x", b"Proxy-Connection: close"],
]


@pytest.mark.parametrize("lines", CLIENTS_OWN)
@pytest.mark.parametrize("make", [get, post])
@pytest.mark.parametrize(("path", "field"), [("/a", b"authorization"), ("/nv/a", b"nv-authorizations")])
async def test_whatever_a_client_sends_there_is_one_credential_and_it_is_the_gateways(
    proxy: Scene, lines: list[bytes], make: Any, path: str, field: bytes
) -> None:
    got = await proxy.passed(make(path, *lines))
    look_alikes = [line for line in got.lines if line.partition(b":")[0].lower().replace(b"_", b"-") == field]
    assert len(look_alikes) == 1
    assert b"eyJ" in look_alikes[0]
    assert len(got.values(b"host")) == len(got.values(b"x-correlation-id")) == 1
    names = {line.partition(b":")[0].lower() for line in got.lines}
    assert not names & {b"connection", b"te", b"upgrade", b"keep-alive", b"proxy-authorization", b"proxy-connection",
                        b"transfer-encoding", b"transfer_encoding", b"content_length"}  # fmt: skip
    assert got.body == (b"hello" if make is post else b"")


async def test_a_clients_own_authorization_passes_where_none_or_another_is_injected(proxy: Scene) -> None:
    for path in ("/plain", "/nv"):
        got = await proxy.passed(get(path, b"Authorization: Bearer mine"))
        assert got.values(b"authorization") == [b"Bearer mine"]


async def test_what_a_route_sets_and_removes_cannot_be_changed(proxy: Scene) -> None:
    lines = [
        b"nv-tenant-id: evil",
        b"NV_TENANT_ID: evil",
        b"Connection: nv-tenant-id",
        b"x-internal: 1",
        b"X_Internal: 1",
    ]
    got = await proxy.passed(get("/set", *lines, b"X-Other: 1"))
    assert got.values(b"nv-tenant-id") == [b"nagra"]
    assert got.values(b"x-other") == [b"1"]
    assert b"internal" not in got.raw.lower()
    assert b"evil" not in got.raw


async def test_nothing_of_one_client_reaches_anothers_request(proxy: Scene) -> None:
    proxy.upstream.begin(answering(OK.replace(b"\r\n\r\n", b"\r\nSet-Cookie: session=first\r\n\r\n")))
    await proxy.passed(get("/a", b"Cookie: me=1", b"Authorization: mine", b"X-Mine: 1", b"Connection: x-y"))
    got = await proxy.passed(get("/a", b"X-Y: 1"))
    assert len(proxy.upstream.wires) == 1
    assert [line.partition(b":")[0] for line in got.lines] == [b"Host", b"X-Y", b"x-correlation-id", b"Authorization"]


# -- the correlation id -----------------------------------------------------------------------------------------


async def test_an_id_is_made_when_absent_passed_on_and_returned(proxy: Scene) -> None:
    for lines in ([], [b"x-correlation-id:"], [b"x-correlation-id: named", b"Connection: x-correlation-id"]):
        answer = await proxy.ask(get("/a", *lines))
        (made,) = answer.values(b"x-correlation-id")
        assert re.fullmatch(rb"[0-9a-f]{32}", made)
        assert proxy.upstream.requests[-1].values(b"x-correlation-id") == [made]


async def test_a_clients_id_is_kept_everywhere(proxy: Scene) -> None:
    answer = await proxy.ask(get("/a", b"X-Correlation-Id: mine-1"))
    assert answer.values(b"x-correlation-id") == [b"mine-1"]
    assert proxy.upstream.requests[0].values(b"x-correlation-id") == [b"mine-1"]
    refusal = await proxy.refused(get("/a", b"X-Correlation-Id: mine-2", method=b"TRACE"), 405, "request")
    assert refusal.values(b"x-correlation-id") == [b"mine-2"]
    assert (await proxy.logged(correlation_id="mine-1"))["path"] == "/a"


# -- who asked --------------------------------------------------------------------------------------------------


async def test_a_forwarding_route_says_who_asked_and_drops_what_the_client_says(proxy: Scene) -> None:
    lies = [b"X-Forwarded-For: 6.6.6.6", b"x_forwarded_for: 6.6.6.6", b"Forwarded: for=6.6.6.6",
            b"X-Forwarded-Host: evil", b"X-Forwarded-Proto: evil", b"Connection: x-forwarded-for"]  # fmt: skip
    got = await proxy.passed(get("/fwd", *lies))
    assert got.values(b"host") == [b"gw.example"]
    assert got.values(b"x-forwarded-for") == [b"127.0.0.1"]
    assert got.values(b"x-forwarded-proto") == [b"http"]
    assert got.values(b"x-forwarded-host") == [b"gw.example"]
    assert b"6.6.6.6" not in got.raw
    assert b"evil" not in got.raw


async def test_other_routes_pass_these_fields_as_they_are(proxy: Scene) -> None:
    got = await proxy.passed(get("/a", b"X-Forwarded-For: 6.6.6.6", b"Forwarded: for=6.6.6.6"))
    assert (got.values(b"x-forwarded-for"), got.values(b"forwarded")) == ([b"6.6.6.6"], [b"for=6.6.6.6"])


# -- the target and the host (A10, A11) -------------------------------------------------------------------------


async def test_an_absolute_target_never_picks_the_upstream(proxy: Scene) -> None:
    for target in ("http://evil.example/a", "http://evil.example:81/a", "HTTPS://evil.example/a"):
        got = await proxy.passed(get(target))
        assert (got.target, got.values(b"host")) == (b"/a", [proxy.upstream.url.removeprefix("http://").encode()])
    assert (await proxy.passed(get("http://evil.example?x"))).target == b"/?x"
    assert (await proxy.passed(get("http://evil.example/fwd"))).values(b"host") == [b"evil.example"]


async def test_a_client_without_a_host_leaves_the_upstream_its_own(proxy: Scene) -> None:
    for path in (b"/fwd", b"/plain"):
        got = await proxy.passed(b"GET " + path + b" HTTP/1.0\r\n\r\n")
        assert got.values(b"host") == [proxy.upstream.url.removeprefix("http://").encode()]


async def test_two_slashes_do_not_make_a_host(proxy: Scene) -> None:
    got = await proxy.passed(get("//evil.example/a"))
    assert (got.target, got.values(b"host")) == (
        b"//evil.example/a",
        [proxy.upstream.url.removeprefix("http://").encode()],
    )


async def test_options_of_the_server_as_a_whole_passes(proxy: Scene) -> None:
    assert (await proxy.passed(get("*", method=b"OPTIONS"))).start == b"OPTIONS * HTTP/1.1"


@pytest.mark.parametrize("method", [b"TRACE", b"TRACK", b"trace", b"Track", b"CONNECT", b"connect"])
async def test_methods_that_disclose_or_tunnel_are_refused(proxy: Scene, method: bytes) -> None:
    answer = await proxy.refused(get("/a", method=method), 405, "request")
    assert b"GET" in answer.values(b"allow")[0]
    await proxy.refused(get("/a", b"Content-Length: 3", method=method) + b"abc", 405, "request")


async def test_connect_to_an_authority_is_refused(proxy: Scene) -> None:
    await proxy.refused(b"CONNECT evil.example:443 HTTP/1.1\r\nHost: evil.example:443\r\n\r\n", 405, "request")


# -- 100-continue (A7) ------------------------------------------------------------------------------------------

EXPECTING = get("/a", b"Expect: 100-continue", b"Content-Length: 5", method=b"POST")


async def test_the_client_sends_its_body_when_the_upstream_says_continue(proxy: Scene) -> None:
    async def behave(wire: Wire) -> None:
        head = await wire.head()
        if head.startswith(b"GET"):
            wire.send(OK)
            return
        assert b"expect: 100-continue" in head.lower()
        assert wire.unread == b""
        wire.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        assert await wire.read(5) == b"hello"
        wire.send(OK)

    proxy.upstream.begin(behave)
    async with client(proxy.gateway.url) as wire:
        wire.send(EXPECTING)
        assert (await wire.response()).raw == b"HTTP/1.1 100 Continue\r\n\r\n"
        wire.send(b"hello")
        assert (await wire.response()).status == 200
        wire.send(get("/b"))
        assert (await wire.response()).status == 200
    assert not proxy.upstream.faults


async def test_an_early_final_answer_ends_the_connection_and_says_so(proxy: Scene) -> None:
    async def behave(wire: Wire) -> None:
        await wire.head()
        wire.send(b"HTTP/1.1 417 No\r\nContent-Length: 0\r\n\r\n")

    proxy.upstream.begin(behave)
    async with client(proxy.gateway.url) as wire:
        wire.send(EXPECTING)
        answer = await wire.response()
        assert answer.status == 417
        assert answer.values(b"connection") == [b"close"]
        wire.send(get("/smuggled"))
        assert await wire.rest() == b""
    assert b"smuggled" not in proxy.upstream.received
    await until(proxy.upstream.wires[0].ended.is_set, 5.0, "the upstream connection's end")


async def test_a_body_sent_without_waiting_passes(proxy: Scene) -> None:
    assert (await proxy.passed(EXPECTING + b"hello")).body == b"hello"


async def test_other_expectations_fail(proxy: Scene) -> None:
    await proxy.refused(get("/a", b"Expect: the-best", b"Content-Length: 5", method=b"POST"), 417, "request")


async def test_an_http_1_0_client_is_sent_no_100(proxy: Scene) -> None:
    proxy.upstream.begin(answering(b"HTTP/1.1 100 Continue\r\n\r\n" + OK))
    async with client(proxy.gateway.url) as wire:
        wire.send(b"POST /a HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\nhello")
        assert (await wire.response()).status == 200


# -- what is counted and logged ---------------------------------------------------------------------------------


async def test_a_request_is_logged_and_counted_once(proxy: Scene) -> None:
    before = await proxy.metrics()
    await proxy.passed(post("/plain/x?secret=query", b"x-correlation-id: logged-1"))
    line = await proxy.logged(correlation_id="logged-1")
    assert line["duration_s"] >= line["upstream_s"] > 0
    assert {key: line[key] for key in line if key not in ("duration_s", "upstream_s", "timestamp", "ts", "time")} == {
        "level": "info",
        "event": "request",
        "logger": "access",
        "route": "/plain",
        "method": "POST",
        "path": "/plain/x",
        "status": 200,
        "token_wait_s": 0.0,
        "correlation_id": "logged-1",
        "replayed": False,
        "client": "127.0.0.1",
        "bytes_in": 5,
        "bytes_out": 2,
    }
    after = await proxy.metrics()
    grown = {key: after[key] - before.get(key, 0) for key in after if after[key] != before.get(key, 0)}
    ours = {
        (name.removeprefix("opentv_proxy_"), *(value for key, value in labels if key != "le")): value
        for (name, labels), value in grown.items()
        if ("route", "/plain") in labels and not name.endswith(("_sum", "_bucket"))
    }
    ours.pop(("upstream_connections", "/plain", "idle"), None)
    assert ours == {
        ("requests_total", "200", "POST", "/plain"): 1,
        ("request_duration_seconds_count", "/plain"): 1,
        ("upstream_response_seconds_count", "/plain"): 1,
        ("request_body_bytes_total", "/plain"): 5,
        ("response_body_bytes_total", "/plain"): 2,
    }
    assert after["opentv_proxy_requests_in_flight", ()] == 0


async def test_methods_that_clients_invent_share_one_label(proxy: Scene) -> None:
    for number in range(5):
        await proxy.passed(get("/plain", method=b"INVENTED%d" % number))
    assert await proxy.metric("requests_total", route="/plain", method="other", code="200") >= 5
    assert not [labels for _, labels in await proxy.metrics() if "INVENTED" in str(labels)]


async def test_a_refusal_is_logged_and_counted(proxy: Scene) -> None:
    before = await proxy.metrics()
    answer = await proxy.refused(get("/x", b"Host: again"), 400, "request")
    identifier = answer.values(b"x-correlation-id")[0].decode()
    line = await proxy.logged(correlation_id=identifier)
    assert (line["status"], line["method"], line["path"], line["route"]) == (400, "GET", "/x", None)
    after = await proxy.metrics()
    grown = [
        dict(labels)
        for (name, labels), value in after.items()
        if name == "opentv_proxy_requests_total" and value != before.get((name, labels), 0)
    ]
    assert [(labels["method"], labels["code"]) for labels in grown] == [("GET", "400")]


async def test_a_body_too_large_by_its_own_word_is_refused_unread(proxy: Scene) -> None:
    answer = await proxy.refused(get("/small", b"Content-Length: 1025", method=b"POST"), 413, "limit")
    assert answer.values(b"connection") == [b"close"]
    await proxy.refused(
        get("/small", b"Content-Length: 999999999999", b"Expect: 100-continue", method=b"POST"), 413, "limit"
    )
    assert (await proxy.passed(post("/small", body=b"x" * 1024))).body == b"x" * 1024
    assert await proxy.metric("requests_total", route="/small", method="POST", code="413") == 2


async def test_a_chunked_body_that_grows_too_large_is_cut_off(proxy: Scene) -> None:
    async with client(proxy.gateway.url) as wire:
        wire.send(get("/small", b"Transfer-Encoding: chunked", method=b"POST") + b"400\r\n" + b"x" * 1024 + b"\r\n")
        await until(lambda: b"x" * 1024 in proxy.upstream.received, 5.0, "what is allowed at the upstream")
        wire.send(b"1\r\nx\r\n")
        is_problem(answer := await wire.response(), "limit")
        assert (answer.status, await wire.rest()) == (413, b"")
    await until(proxy.upstream.wires[0].ended.is_set, 2.0, "the upstream connection's end")
    assert not proxy.upstream.requests


async def test_a_client_that_sends_on_still_reads_its_refusal(proxy: Scene) -> None:
    async with client(proxy.gateway.url) as wire:
        size = 8 * 1024 * 1024
        wire.send(get("/small", b"Content-Length: %d" % size, method=b"POST") + b"x" * size)
        assert (await wire.response()).status == 413
