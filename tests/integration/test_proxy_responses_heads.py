"""What of an answer reaches the client: fields, status, interim answers, redirects, ids (A18, A19, A20, A23)."""

import asyncio
import gzip
import re
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from tests.support.rawclient import ask, client
from tests.support.rawserver import OK, Wire, answering
from tests.support.relay import GET, Relay, problem, relay

pytestmark = pytest.mark.asyncio(loop_scope="module")

HEAD = b"HEAD / HTTP/1.1\r\nHost: gw\r\n\r\n"
GET_1_0 = b"GET / HTTP/1.0\r\nHost: gw\r\n\r\n"
ID = re.compile(rb"x-correlation-id: [0-9a-f]{32}\r\n")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def here(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Relay]:
    routes: list[dict[str, Any]] = [
        {"path": "/below", "upstream": "/base"},
        {"path": "/crm", "upstream": "/base", "strip_prefix": True},
        {"path": "/pres", "upstream": "/base", "host": "preserve"},
    ]
    async with relay(tmp_path_factory.mktemp("gateway"), routes) as running:
        yield running


def bare(raw: bytes) -> bytes:
    """An answer without the gateway's correlation id."""
    return ID.sub(b"", raw, count=1)


ODD = (
    b"HTTP/1.1 299 Quite  Fine (\xe9)\r\n"
    b"set-cookie: b=2; Path=/\r\n"
    b"X-Odd:   spaced \t\r\n"
    b"Set-Cookie: a=1\r\n"
    b"x-odd: again\r\n"
    b"Date: Thu, 01 Jan 1970 00:00:00 GMT\r\n"
    b"X-Empty:\r\n"
    b"SET-COOKIE: b=2; Path=/\r\n"
    b'ETag: W/"x"\r\n'
    b"Vary: a, b\r\n"
    b"X-Obs: \xe4\xff\r\n"
    b"WWW-Authenticate: Basic realm=x\r\n"
    b"Via: 1.1 other\r\n"
    b"Content-Length: 2\r\n"
    b"\r\n"
    b"ok"
)


@pytest.mark.parametrize("answer", [ODD, OK, b"HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n"])
async def test_an_answer_passes_byte_for_byte(here: Relay, answer: bytes) -> None:
    found = await here.answer(answer)
    assert bare(found.raw).replace(b"200 \r\n", b"200\r\n") == answer


async def test_hop_by_hop_fields_end_at_the_gateway(here: Relay) -> None:
    found = await here.answer(
        b"HTTP/1.1 200 OK\r\nConnection: X-One, Set-Cookie\r\nX-One: 1\r\nKeep-Alive: timeout=9\r\nX-Two: 2\r\n"
        b"Proxy-Connection: keep-alive\r\nProxy-Authenticate: Basic\r\nUpgrade: h2c\r\nTE: trailers\r\n"
        b"connection: x-two\r\nX-Three: 3\r\nSet-Cookie: a=1\r\nContent-Length: 2\r\n\r\nok"
    )
    assert bare(found.raw) == b"HTTP/1.1 200 OK\r\nX-Three: 3\r\nContent-Length: 2\r\n\r\nok"


@pytest.mark.parametrize("field", [b"Connection: close\r\n", b"Connection: Close, x\r\n"])
async def test_the_upstreams_close_is_not_the_clients(here: Relay, field: bytes) -> None:
    here.raw.begin(answering(b"HTTP/1.1 200 OK\r\n%bContent-Length: 2\r\n\r\nok" % field))
    async with client(here.gateway.url) as wire:
        for _ in range(2):
            wire.send(GET)
            assert (await wire.response()).values(b"connection") == []
    assert len(here.raw.wires) == 2


async def test_a_compressed_body_and_its_coding_pass_untouched(here: Relay) -> None:
    packed = gzip.compress(b"x" * 1000)
    found = await here.answer(
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n%b" % (len(packed), packed)
    )
    assert (found.body, found.values(b"content-encoding")) == (packed, [b"gzip"])


@pytest.mark.parametrize(
    ("answer", "seen"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n"),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        ),
        (b"HTTP/1.1 404 No\r\n\r\n", b"HTTP/1.1 404 No\r\n\r\n"),
        (b"HTTP/1.1 304 Same\r\nContent-Length: 7\r\n\r\n", b"HTTP/1.1 304 Same\r\nContent-Length: 7\r\n\r\n"),
    ],
)
async def test_head_is_answered_without_a_body_and_the_connection_goes_on(
    here: Relay, answer: bytes, seen: bytes
) -> None:
    here.raw.begin(answering(answer, OK))
    async with client(here.gateway.url) as wire:
        wire.send(HEAD)
        assert bare((await wire.response(b"HEAD")).raw) == seen
        wire.send(GET)
        assert (await wire.response()).body == b"ok"
    assert len(here.raw.wires) == 1


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 204 No Content\r\n\r\n",
        b"HTTP/1.1 304 Not Modified\r\nETag: x\r\n\r\n",
        b"HTTP/1.1 205 Reset Content\r\nContent-Length: 0\r\n\r\n",
    ],
)
async def test_an_answer_without_a_body_ends_with_its_head(here: Relay, answer: bytes) -> None:
    here.raw.begin(answering(answer, OK))
    async with client(here.gateway.url) as wire:
        wire.send(GET + GET)
        assert bare((await wire.response()).raw) == answer
        assert (await wire.response()).body == b"ok"
    assert len(here.raw.wires) == 1


async def test_an_answer_to_a_1_0_client_ends_with_its_connection(here: Relay) -> None:
    here.raw.begin(answering(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX: y\r\n\r\n"))
    async with client(here.gateway.url) as wire:
        wire.send(GET_1_0)
        assert bare(await wire.rest()) == b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nabc"


async def test_trailers_pass_and_never_become_headers(here: Relay) -> None:
    found = await here.answer(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: Digest\r\n\r\n2\r\nok\r\n0\r\n"
        b"Digest: abc\r\nSet-Cookie: a=1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    assert found.trailers == b"Digest: abc\r\n"
    assert found.values(b"digest") == []
    assert found.values(b"set-cookie") == []


async def test_nothing_of_one_clients_exchange_reaches_another(here: Relay) -> None:
    here.raw.begin(answering(b"HTTP/1.1 200 OK\r\nSet-Cookie: session=1; Path=/\r\nContent-Length: 0\r\n\r\n"))
    await ask(here.gateway.url, b"GET / HTTP/1.1\r\nHost: gw\r\nAuthorization: Basic abc\r\nCookie: mine=1\r\n\r\n")
    await ask(here.gateway.url, GET)
    first, second = here.raw.requests
    assert first.values(b"cookie") == [b"mine=1"]
    assert first.values(b"authorization") == [b"Basic abc"]
    assert (second.values(b"cookie"), second.values(b"authorization")) == ([], [])
    assert len(here.raw.wires) == 1


# -- interim answers ------------------------------------------------------------------------------------------------


async def test_interim_answers_pass_as_they_come(here: Relay) -> None:
    hints = b"HTTP/1.1 103 Early Hints\r\nLink: </a>; rel=preload\r\nLink: </b>\r\n\r\n"
    released = asyncio.Event()

    async def behave(wire: Wire) -> None:
        await wire.request()
        wire.send(b"HTTP/1.1 102 Processing\r\nConnection: x-hop\r\nX-Hop: 1\r\n\r\n" + hints)
        await released.wait()
        wire.send(OK)

    here.raw.begin(behave)
    async with client(here.gateway.url) as wire:
        wire.send(GET)
        assert (await wire.response()).raw == b"HTTP/1.1 102 Processing\r\n\r\n"
        assert (await wire.response()).raw == hints
        released.set()
        assert bare((await wire.response()).raw) == OK


async def test_a_1_0_client_gets_no_interim_answer(here: Relay) -> None:
    here.raw.begin(answering(b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n" + OK))
    async with client(here.gateway.url) as wire:
        wire.send(GET_1_0)
        assert (await wire.rest()).startswith(b"HTTP/1.1 200 OK\r\n")


EXPECTING = b"PUT / HTTP/1.1\r\nHost: gw\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n"


async def test_the_go_ahead_comes_from_the_upstream_before_the_body_goes_there(here: Relay) -> None:
    async def behave(wire: Wire) -> None:
        head = await wire.head()
        assert b"Expect: 100-continue\r\n" in head
        assert wire.unread == b""
        wire.send(b"HTTP/1.1 100 Continue\r\nX-Way: free\r\n\r\n")
        assert await wire.read(4) == b"body"
        wire.send(OK)

    here.raw.begin(behave)
    async with client(here.gateway.url) as wire:
        wire.send(EXPECTING)
        assert (await wire.response()).raw == b"HTTP/1.1 100 Continue\r\nX-Way: free\r\n\r\n"
        wire.send(b"body")
        assert (await wire.response()).body == b"ok"
    assert here.raw.faults == []


async def test_a_refusal_instead_of_the_go_ahead_ends_the_exchange_in_step(here: Relay) -> None:
    async def behave(wire: Wire) -> None:
        await wire.head()
        wire.send(b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno")
        await wire.rest()

    here.raw.begin(behave)
    async with client(here.gateway.url) as wire:
        wire.send(EXPECTING)
        assert (await wire.response()).status == 413
        wire.send(b"GET / HTTP/1.1\r\nHost: gw\r\n\r\n")  # a body, if anybody should still read one
        assert await wire.rest() == b""
    assert len(here.raw.wires) == 1


async def test_an_upstream_that_ignores_the_expectation_gets_the_body_of_an_impatient_client(here: Relay) -> None:
    here.raw.begin(answering(OK))
    async with client(here.gateway.url) as wire:
        wire.send(EXPECTING)
        await asyncio.sleep(0.05)
        wire.send(b"body")
        assert (await wire.response()).body == b"ok"
    assert here.raw.requests[0].body == b"body"


# -- redirects ------------------------------------------------------------------------------------------------------


def redirect(location: bytes, status: int = 302) -> bytes:
    return b"HTTP/1.1 %d Moved\r\nLocation: %b\r\nContent-Length: 0\r\n\r\n" % (status, location)


@pytest.mark.parametrize("status", [201, 301, 302, 303, 307, 308])
async def test_a_redirect_to_the_upstream_comes_back_to_the_gateway_and_is_not_followed(
    here: Relay, status: int
) -> None:
    found = await here.answer(redirect(here.raw.url.encode() + b"/x?y=%2F#z", status))
    assert (found.status, found.values(b"location")) == (status, [b"http://gw/x?y=%2F#z"])
    assert len(here.raw.requests) == 1


@pytest.mark.parametrize(
    ("path", "location", "seen"),
    [
        (b"/", b"{up}", b"http://gw"),
        (b"/", b"{up}/", b"http://gw/"),
        (b"/below/x", b"{up}/base/below/y", b"http://gw/below/y"),
        (b"/crm/x", b"{up}/base/y?z", b"http://gw/crm/y?z"),
        (b"/crm/x", b"{up}/base", b"http://gw/crm"),
        (b"/crm/x", b"/base/y", b"/crm/y"),
        (b"/pres/x", b"http://gw/base/pres/y", b"http://gw/pres/y"),
        (b"/pres/x", b"{up}/base/pres/y", b"http://gw/pres/y"),
        (b"/", b"next", b"next"),
        (b"/", b"?page=2", b"?page=2"),
        (b"/", b"//127.0.0.1/x", b"//127.0.0.1/x"),
        (b"/", b"http://127.0.0.1/x", b"http://127.0.0.1/x"),
        (b"/", b"https://login.example.com/x", b"https://login.example.com/x"),
        (b"/", b"mailto:someone@example.com", b"mailto:someone@example.com"),
    ],
)
async def test_only_the_upstreams_own_origin_is_rewritten(
    here: Relay, path: bytes, location: bytes, seen: bytes
) -> None:
    request = b"GET %b HTTP/1.1\r\nHost: gw\r\n\r\n" % path
    found = await here.answer(redirect(location.replace(b"{up}", here.raw.url.encode())), request)
    assert found.values(b"location") == [seen]


async def test_the_gateway_is_named_as_the_client_named_it(here: Relay) -> None:
    up = here.raw.url.encode()
    for host, origin in ((b"crm.example:8080", b"http://crm.example:8080"), (b"[::1]:99", b"http://[::1]:99")):
        found = await here.answer(redirect(up + b"/x"), b"GET / HTTP/1.1\r\nHost: %b\r\n\r\n" % host)
        assert found.values(b"location") == [origin + b"/x"]


async def test_a_client_that_named_no_host_is_sent_to_the_address_it_came_to(here: Relay) -> None:
    found = await here.answer(redirect(here.raw.url.encode() + b"/x"), b"GET / HTTP/1.0\r\n\r\n")
    assert found.values(b"location") == [here.gateway.url.encode() + b"/x"]


# -- correlation ids ------------------------------------------------------------------------------------------------


async def test_an_id_is_made_where_there_is_none_passed_on_and_returned(here: Relay) -> None:
    found = await here.answer(OK)
    (made,) = found.values(b"x-correlation-id")
    assert re.fullmatch(rb"[0-9a-f]{32}", made)
    assert here.raw.requests[0].values(b"x-correlation-id") == [made]
    assert (await here.answer(OK)).values(b"x-correlation-id") != [made]


async def test_a_clients_id_passes_and_comes_back(here: Relay) -> None:
    found = await here.answer(OK, b"GET / HTTP/1.1\r\nHost: gw\r\nX-Correlation-ID: crm-7\r\n\r\n")
    assert found.values(b"x-correlation-id") == [b"crm-7"]
    assert here.raw.requests[0].values(b"x-correlation-id") == [b"crm-7"]


async def test_an_upstreams_own_id_wins(here: Relay) -> None:
    answer = b"HTTP/1.1 200 OK\r\nX-Correlation-Id: theirs\r\nContent-Length: 0\r\n\r\n"
    found = await here.answer(answer, b"GET / HTTP/1.1\r\nHost: gw\r\nX-Correlation-ID: crm-7\r\n\r\n")
    assert found.values(b"x-correlation-id") == [b"theirs"]


async def test_the_gateways_own_answer_names_the_id_in_head_and_body(here: Relay) -> None:
    found = await here.answer(b"junk\r\n\r\n", b"GET / HTTP/1.1\r\nHost: gw\r\nX-Correlation-ID: crm-7\r\n\r\n")
    assert found.values(b"x-correlation-id") == [b"crm-7"]
    assert problem(found)["correlation_id"] == "crm-7"


async def test_an_upstreams_own_error_passes_as_its_own(here: Relay) -> None:
    answer = b"HTTP/1.1 502 Bad Gateway\r\nContent-Type: text/html\r\nContent-Length: 2\r\n\r\nhm"
    found = await here.answer(answer)
    assert bare(found.raw) == answer
