"""Broken answers of an upstream: 502 and a dropped connection, or a break that the client can see (A16, A17)."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.support.gateway import until
from tests.support.rawclient import ask, client
from tests.support.rawserver import OK, Behaviour, Wire, WireEndedError, answering
from tests.support.relay import GET, Relay, problem, relay

pytestmark = pytest.mark.asyncio(loop_scope="module")

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
GET_1_0 = b"GET / HTTP/1.0\r\nHost: gw\r\n\r\n"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def here(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Relay]:
    async with relay(tmp_path_factory.mktemp("gateway"), [{"path": "/one", "max_connections": 1}]) as running:
        yield running


MALFORMED = {
    "no HTTP at all": b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
    "another protocol": b"RTSP/1.0 200 OK\r\n\r\n",
    "HTTP/2 as text": b"HTTP/2.0 200 OK\r\n\r\n",
    "HTTP/0.9": b"HTTP/0.9 200 OK\r\n\r\n",
    "an unknown minor version": b"HTTP/1.2 200 OK\r\nContent-Length: 0\r\n\r\n",
    "a two-digit status": b"HTTP/1.1 20 OK\r\nContent-Length: 0\r\n\r\n",
    "a four-digit status": b"HTTP/1.1 2000 OK\r\nContent-Length: 0\r\n\r\n",
    "a status of zero": b"HTTP/1.1 000 OK\r\nContent-Length: 0\r\n\r\n",
    "a status below 100": b"HTTP/1.1 099 OK\r\nContent-Length: 0\r\n\r\n",
    "a signed status": b"HTTP/1.1 +20 OK\r\nContent-Length: 0\r\n\r\n",
    "two spaces before the status": b"HTTP/1.1  200 OK\r\nContent-Length: 0\r\n\r\n",
    "a space before the version": b" HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    "an empty line first": b"\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    "a NUL in the reason": b"HTTP/1.1 200 O\x00K\r\nContent-Length: 0\r\n\r\n",
    "a CR in the reason": b"HTTP/1.1 200 O\rK\r\nContent-Length: 0\r\n\r\n",
    "both framings": b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "both framings, the other way round": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n",
    "an unknown coding": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
    "codings on top of each other": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "chunked not last": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "chunked twice": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunked twice in one field": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
    "chunked with a parameter": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked;q=1\r\n\r\n0\r\n\r\n",
    "identity": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\nConnection: close\r\n\r\n",
    "an empty coding": b"HTTP/1.1 200 OK\r\nTransfer-Encoding:\r\n\r\n",
    "chunked from 1.0": b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nokk",
    "one length twice": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok",
    "a list of lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\nok",
    "a signed length": b"HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nok",
    "a negative length": b"HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\nok",
    "a hexadecimal length": b"HTTP/1.1 200 OK\r\nContent-Length: 0x2\r\n\r\nok",
    "an empty length": b"HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\n",
    "a length beyond all measure": b"HTTP/1.1 200 OK\r\nContent-Length: %b\r\n\r\nok" % (b"9" * 40),
    "a length in other digits": "HTTP/1.1 200 OK\r\nContent-Length: ٢\r\n\r\nok".encode(),
    "a folded line": b"HTTP/1.1 200 OK\r\nX-A: a\r\n b\r\nContent-Length: 0\r\n\r\n",
    "a folded first line": b"HTTP/1.1 200 OK\r\n X-A: a\r\nContent-Length: 0\r\n\r\n",
    "a space before the colon": b"HTTP/1.1 200 OK\r\nContent-Length : 0\r\n\r\n",
    "a space in a name": b"HTTP/1.1 200 OK\r\nX A: a\r\nContent-Length: 0\r\n\r\n",
    "no name": b"HTTP/1.1 200 OK\r\n: a\r\nContent-Length: 0\r\n\r\n",
    "no colon": b"HTTP/1.1 200 OK\r\nnonsense\r\nContent-Length: 0\r\n\r\n",
    "a bare LF after a field": b"HTTP/1.1 200 OK\r\nX-A: a\nContent-Length: 0\r\n\r\n",
    "bare LFs only": b"HTTP/1.1 200 OK\nContent-Length: 0\n\n",
    "a bare CR in a value": b"HTTP/1.1 200 OK\r\nX-A: a\rb\r\nContent-Length: 0\r\n\r\n",
    "a NUL in a value": b"HTTP/1.1 200 OK\r\nX-A: a\x00b\r\nContent-Length: 0\r\n\r\n",
    "a NUL in a name": b"HTTP/1.1 200 OK\r\nX\x00A: a\r\nContent-Length: 0\r\n\r\n",
    "a head without end": b"HTTP/1.1 200 OK\r\n" + b"X-A: a\r\n" * 20_000,
    "one huge field": b"HTTP/1.1 200 OK\r\nX-A: %b\r\nContent-Length: 0\r\n\r\n" % (b"a" * 70_000),
    "interim answers without end": b"HTTP/1.1 102 Processing\r\n\r\n" * 100 + OK,
    "a protocol nobody asked for": b"HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
    "a chunk size of words": CHUNKED + b"nonsense\r\n",
    "an empty chunk size": CHUNKED + b"\r\nab\r\n0\r\n\r\n",
    "a signed chunk size": CHUNKED + b"+2\r\nab\r\n0\r\n\r\n",
    "a prefixed chunk size": CHUNKED + b"0x2\r\nab\r\n0\r\n\r\n",
    "a chunk size that overflows": CHUNKED + b"10000000000000002\r\nab\r\n0\r\n\r\n",
    "a space before a chunk size": CHUNKED + b" 2\r\nab\r\n0\r\n\r\n",
    "a bare LF after a chunk size": CHUNKED + b"2\nab\r\n0\r\n\r\n",
    "a bare LF after a chunk": CHUNKED + b"2\r\nab\n0\r\n\r\n",
    "a chunk longer than it says": CHUNKED + b"2\r\nabc\r\n0\r\n\r\n",
    "a chunk extension of 1 MiB": CHUNKED + b"2;x=%b\r\nab\r\n0\r\n\r\n" % (b"e" * (1 << 20)),
    "a control byte in an extension": CHUNKED + b"2;x=\x00\r\nab\r\n0\r\n\r\n",
    "small extensions without end": CHUNKED + b"1;eeeeeeeeeeeeeeee\r\na\r\n" * 4000,
    "trailers without end": CHUNKED + b"0\r\n" + b"X-T: t\r\n" * 20_000,
    "a folded trailer": CHUNKED + b"0\r\nX-T: t\r\n u\r\n\r\n",
    "a trailer that is none": CHUNKED + b"0\r\nGET / HTTP/1.1\r\n\r\n",
}


@pytest.mark.parametrize("name", MALFORMED)
async def test_a_malformed_answer_is_502_and_its_connection_is_dropped(here: Relay, name: str) -> None:
    before = await here.errors("protocol")
    with contextlib.suppress(WireEndedError):  # a long one may have begun: then it is broken off
        found = await here.answer(MALFORMED[name])
        assert found.status == 502
        assert problem(found)["type"] == "urn:opentv-proxy:problem:upstream"
        assert found.values(b"proxy-status") == [b"opentv-proxy; error=http_protocol_error"]
    (wire,) = here.raw.wires
    async with asyncio.timeout(2):
        await wire.ended.wait()
    assert await here.errors("protocol") == before + 1


async def test_words_about_a_broken_answer_hold_none_of_its_bytes(here: Relay) -> None:
    found = await here.answer(b"HTTP/1.1 200 OK\r\nSecret hunter2: x\r\n\r\n")
    assert found.status == 502
    assert b"hunter2" not in found.raw
    assert "hunter2" not in here.gateway.words()


async def test_the_client_keeps_its_connection_after_a_502(here: Relay) -> None:
    here.raw.begin(answering(b"junk\r\n\r\n", OK))
    async with client(here.gateway.url) as wire:
        for expected in (502, 200):
            wire.send(GET)
            assert (await wire.response()).status == expected
    assert len(here.raw.wires) == 2


def beginning(first: bytes, then: bytes = b"", *, reset: bool = False) -> Behaviour:
    """An upstream that sends ``first``, after a moment ``then``, and leaves."""

    async def behave(wire: Wire) -> None:
        await wire.request()
        wire.send(first)
        await asyncio.sleep(0.05)
        wire.send(then)
        wire.reset() if reset else wire.close()

    return behave


BEGUN = {
    "a length not reached": b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\npart",
    "chunks without the last": CHUNKED + b"4\r\npart\r\n",
    "a chunk not ended": CHUNKED + b"a\r\npart",
    "chunks without the empty line": CHUNKED + b"4\r\npart\r\n0\r\n",
    "trailers not ended": CHUNKED + b"4\r\npart\r\n0\r\nX-T: t\r\n",
}


@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize("name", BEGUN)
async def test_a_truncated_answer_looks_truncated(here: Relay, name: str, reset: bool) -> None:
    before = await here.errors("reset")
    here.raw.begin(beginning(BEGUN[name], reset=reset))
    async with client(here.gateway.url) as wire:
        wire.send(GET)
        head = await wire.head()
        assert head.startswith(b"HTTP/1.1 200 OK\r\n")
        assert b"proxy-status" not in head.lower()
        rest = await wire.rest()
    if b"content-length: 10" in head.lower():
        assert rest in (b"part", b"")
    else:
        assert rest in (b"4\r\npart\r\n", b"")
    assert await here.errors("reset") == before + 1
    await here.counted(0, "requests_in_flight")


async def test_a_truncated_answer_is_told_in_the_log_and_on_the_status_page(here: Relay) -> None:
    here.raw.begin(beginning(b"HTTP/1.1 200 OK\r\nx-correlation-id: cut-1\r\nContent-Length: 100\r\n\r\nfive!"))
    with contextlib.suppress(WireEndedError):
        await ask(here.gateway.url, b"GET /cut HTTP/1.1\r\nHost: gw\r\n\r\n")

    def line() -> list[dict[str, object]]:
        return [record for record in here.gateway.records if record.get("path") == "/cut"]

    await until(lambda: bool(line()), 3.0, "the request's line")
    (told,) = line()
    assert (told["status"], told["broken_off"], told["error"]) == (200, True, "http_response_incomplete")
    assert told["detail"] == "the upstream closed the connection before its answer was complete"
    page = (await ask(here.gateway.admin_url, b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")).body
    assert b"WARNING  route /: answers were broken off in the middle" in page


@pytest.mark.parametrize(
    "first", [CHUNKED + b"4\r\npart\r\n", b"HTTP/1.1 200 OK\r\n\r\npart"], ids=["chunks", "until the end"]
)
async def test_a_1_0_client_sees_a_truncated_answer_by_a_reset(here: Relay, first: bytes) -> None:
    here.raw.begin(beginning(first, reset=True))
    async with client(here.gateway.url) as wire:
        wire.send(GET_1_0)
        async with asyncio.timeout(3):
            await wire.lost.wait()
        assert isinstance(wire.broken, ConnectionResetError)


@pytest.mark.parametrize("bad", [b"zz\r\n", b"2\r\nabc", b"1;%b\r\n" % (b"e" * 5000)])
async def test_a_protocol_error_in_the_middle_of_a_body_breaks_the_answer_off(here: Relay, bad: bytes) -> None:
    before = await here.errors("protocol")
    here.raw.begin(beginning(CHUNKED + b"4\r\npart\r\n", bad))
    async with client(here.gateway.url) as wire:
        wire.send(GET)
        await wire.head()
        assert await wire.rest() in (b"4\r\npart\r\n", b"4\r\npart\r\n2\r\nab\r\n")
    assert await here.errors("protocol") == before + 1


@pytest.mark.parametrize("partial", [b"", b"HTTP/1.1 200 OK\r\nContent-Le", b"HTTP/1.1 100 Continue\r\n\r\n"])
async def test_an_upstream_that_leaves_before_its_head_is_whole_is_502(here: Relay, partial: bytes) -> None:
    before = await here.errors("reset")
    found = await here.answer(answering(partial, close=True))
    assert found.status == 502
    problem(found)
    assert await here.errors("reset") == before + 1
    assert len(here.raw.wires) == 1


async def test_an_answer_that_ends_with_the_connection_is_whole(here: Relay) -> None:
    found = await here.answer(answering(b"HTTP/1.1 200 OK\r\nX: 1\r\n\r\nall of it", close=True))
    assert (found.status, found.body) == (200, b"all of it")
    assert found.values(b"transfer-encoding") == [b"chunked"]


async def test_an_answer_of_http_1_0_is_understood(here: Relay) -> None:
    found = await here.answer(answering(b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", close=True))
    assert (found.start, found.body) == (b"HTTP/1.1 200 OK", b"ok")


@pytest.mark.parametrize("pause", [0.0, 0.05])
@pytest.mark.parametrize("end", [OK, CHUNKED + b"2\r\nok\r\n0\r\n\r\n"])
async def test_bytes_after_an_answer_never_become_another_one(here: Relay, end: bytes, pause: float) -> None:
    poison = b"HTTP/1.1 200 OK\r\nX-Poison: 1\r\nContent-Length: 6\r\n\r\npoison"

    async def behave(wire: Wire) -> None:
        number = len(here.raw.requests) + 1
        await wire.request()
        if number > 1:
            wire.send(OK)
            return
        wire.send(end if pause else end + poison)
        if pause:
            await asyncio.sleep(pause)
            wire.send(poison)

    here.raw.begin(behave)
    async with client(here.gateway.url) as wire:
        wire.send(GET)
        assert (await wire.response()).body == b"ok"
        await until(here.raw.wires[0].ended.is_set, 2.0, "the poisoned connection to be dropped")
        for _ in range(3):
            wire.send(GET)
            found = await wire.response()
            assert (found.body, found.values(b"x-poison")) == (b"ok", [])


@pytest.mark.parametrize(
    ("request_line", "answer"),
    [
        (b"HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nHTTP"),
        (b"GET", b"HTTP/1.1 204 No Content\r\n\r\nHTTP"),
        (b"GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 4\r\n\r\nHTTP"),
    ],
)
async def test_a_body_where_none_may_be_is_dropped_with_its_connection(
    here: Relay, request_line: bytes, answer: bytes
) -> None:
    here.raw.begin(answering(answer, OK))
    async with client(here.gateway.url) as wire:
        wire.send(request_line + b" / HTTP/1.1\r\nHost: gw\r\n\r\n" + GET)
        assert (await wire.response(request_line)).body == b""
        assert (await wire.response()).body == b"ok"
    assert len(here.raw.wires) == 2


async def test_a_broken_connection_gives_its_place_back(here: Relay) -> None:
    for answer in (b"junk\r\n\r\n", CHUNKED + b"zz", b"HTTP/1.1 200 OK\r\n\r\n"):
        here.raw.begin(answering(answer, close=True))
        with contextlib.suppress(WireEndedError):
            await ask(here.gateway.url, GET.replace(b"/ ", b"/one "))
    assert (await here.answer(OK, GET.replace(b"/ ", b"/one "))).status == 200
    await here.counted(0, "upstream_connections", route="/one", state="active")
