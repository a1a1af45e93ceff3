"""Requests that could be read in two ways (A1 to A5): none gets through, and nothing of them is ever quoted.

Two independent readers judge: aiohttp's parser (llhttp) reads what the client sent, and is the upstream as well.
"""

import asyncio
import json
import random
import re
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.http_parser import HttpRequestParser, RawRequestMessage
from aiohttp.streams import StreamReader

from tests.support.gateway import until
from tests.support.proxied import Scene, is_problem, scene
from tests.support.rawclient import client
from tests.support.rawserver import Wire, WireEndedError

pytestmark = pytest.mark.asyncio(loop_scope="module")

SECRET = b"hunter2-Zk1xQ"
MUTANTS = 2000


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Scene]:
    def routes(upstream: str) -> list[dict[str, Any]]:
        return [{"path": "/", "upstream": upstream, "identity": "opentv"}]

    async with scene(routes, tmp_path_factory.mktemp("framing")) as one:
        yield one


@pytest.fixture
def proxy(shared: Scene) -> Scene:
    shared.upstream.begin()
    return shared


def post(*lines: bytes, body: bytes = b"", version: bytes = b"1.1", host: bytes = b"Host: gw\r\n") -> bytes:
    head = b"POST /a?key=" + SECRET + b" HTTP/" + version + b"\r\n" + host
    return head + b"".join(line + b"\r\n" for line in lines) + b"X-Key: " + SECRET + b"\r\n\r\n" + body


CL, TE, CHUNKS = b"Content-Length: 5", b"Transfer-Encoding: chunked", b"5\r\nhello\r\n0\r\n\r\n"
NEXT = b"GET /smuggled HTTP/1.1\r\nHost: gw\r\n\r\n"

REFUSED = {
    "both framings": post(CL, TE, body=CHUNKS),
    "both framings, the other way round": post(TE, CL, body=CHUNKS),
    "a length of zero and chunks": post(b"Content-Length: 0", TE, body=CHUNKS),
    "an unknown coding": post(b"Transfer-Encoding: x" + SECRET, body=CHUNKS),
    "chunked not last": post(b"Transfer-Encoding: chunked, gzip", body=CHUNKS),
    "chunked twice": post(TE, TE, body=CHUNKS),
    "chunked with a vertical tab": post(b"Transfer-Encoding: \x0bchunked", body=CHUNKS),
    "a folded coding": post(b"Transfer-Encoding:\r\n chunked", body=CHUNKS),
    "a space before the colon": post(b"Transfer-Encoding : chunked", body=CHUNKS),
    "a coding of 1.0": post(TE, body=CHUNKS, version=b"1.0"),
    "a coding of 1.0 without a host": post(TE, body=CHUNKS, version=b"1.0", host=b""),
    "two lengths": post(CL, b"Content-Length: 6", body=b"hello!"),
    "one length twice": post(CL, CL, body=b"hello"),
    "a list of lengths": post(b"Content-Length: 5, 5", body=b"hello"),
    "a signed length": post(b"Content-Length: +5", body=b"hello"),
    "a length in words": post(b"Content-Length: " + SECRET, body=b"hello"),
    "an empty length": post(b"Content-Length:", body=b"hello"),
    "a length of a 1.0 client without a host": post(b"Content-Length: 5x", body=b"hello", version=b"1.0", host=b""),
    "no host": post(host=b""),
    "two hosts": post(host=b"Host: a\r\nHost: a\r\n"),
    "a user in the host": post(host=b"Host: u:" + SECRET + b"@a\r\n"),
    "a path in the host": post(host=b"Host: a/" + SECRET + b"\r\n"),
    "a user in the target": b"GET http://u:" + SECRET + b"@a/ HTTP/1.1\r\nHost: a\r\n\r\n",
    "a fragment": b"GET /a#" + SECRET + b" HTTP/1.1\r\nHost: a\r\n\r\n",
    "no target": b"GET HTTP/1.1\r\nHost: a\r\nX-Key: " + SECRET + b"\r\n\r\n",
    "a credential first": b"Authorization: Bearer " + SECRET + b"\r\n\r\n",
    "a NUL in a name": post(b"A\x00B: 1"),
    "a NUL in a value": post(b"A: 1\x002"),
    "a CR in a value": post(b"A: 1\r2"),
    "a LF in a value": post(b"A: 1\nB: 2"),
    "a DEL in a value": post(b"A: \x7f"),
    "a space in a name": post(b"A B: 1"),
    "no name": post(b": 1"),
    "no colon": post(b"A"),
    "a folded line": post(b"A: 1\r\n 2"),
    "a folded first line": post(host=b" folded\r\nHost: a\r\n"),
    "bare line feeds": post(CL, body=b"hello").replace(b"\r\n", b"\n"),
    "bare carriage returns": post(CL).replace(b"\r\n", b"\r") + b"\r\n\r\n",
}
VERSIONS = [b"HTTP/0.9", b"HTTP/1.2", b"HTTP/2.0", b"HTTP/3.0"]
BROKEN_CHUNKS = {
    "a size that is none": b"x\r\nhello\r\n0\r\n\r\n",
    "a signed size": b"+5\r\nhello\r\n0\r\n\r\n",
    "a size with a prefix": b"0x5\r\nhello\r\n0\r\n\r\n",
    "a size beyond all sizes": b"ffffffffffffffff5\r\nhello\r\n0\r\n\r\n",
    "a space before the size": b" 5\r\nhello\r\n0\r\n\r\n",
    "a space after the size": b"5 \r\nhello\r\n0\r\n\r\n",
    "a bare LF after the size": b"5\nhello\r\n0\r\n\r\n",
    "a bare LF after the data": b"5\r\nhello\n0\r\n\r\n",
    "too much data": b"5\r\nhello!\r\n0\r\n\r\n",
    "too little data": b"5\r\nhell\r\n0\r\n\r\n",
    "a LF in an extension": b"5;a\nb\r\nhello\r\n0\r\n\r\n",
    "an endless extension": b"5;" + b"a" * 9000,
    "many extensions": (b"1;" + b"a" * 4000 + b"\r\nx\r\n") * 6,
    "a broken trailer": b"5\r\nhello\r\n0\r\n" + SECRET + b"\r\n\r\n",
    "a folded trailer": b"5\r\nhello\r\n0\r\nA: b\r\n c\r\n\r\n",
    "endless trailers": b"0\r\n" + b"A: b\r\n" * 4000,
}


async def said_of(proxy: Scene, request: bytes, status: int) -> None:
    """The request is refused and the connection ends, with nothing behind it answered."""
    async with client(proxy.gateway.url) as wire:
        wire.send(request + NEXT)
        answer = await wire.response()
        assert (answer.status, await wire.rest()) == (status, b"")
        is_problem(answer, "request")
        assert answer.values(b"connection") == [b"close"]
        assert SECRET not in answer.raw


@pytest.mark.parametrize("name", REFUSED)
async def test_a_request_that_can_be_read_in_two_ways_is_400_and_goes_nowhere(proxy: Scene, name: str) -> None:
    await said_of(proxy, REFUSED[name], 400)
    assert proxy.upstream.received == b""


@pytest.mark.parametrize("version", VERSIONS)
async def test_other_versions_are_not_spoken(proxy: Scene, version: bytes) -> None:
    await said_of(proxy, post().replace(b"HTTP/1.1", version), 505)
    assert proxy.upstream.received == b""


@pytest.mark.parametrize("name", BROKEN_CHUNKS)
async def test_a_broken_body_is_400_and_never_becomes_a_whole_request(proxy: Scene, name: str) -> None:
    await said_of(proxy, post(TE, body=BROKEN_CHUNKS[name]), 400)
    assert proxy.upstream.requests == []
    assert b"smuggled" not in proxy.upstream.received
    # Later, in a read of its own: by then half of the request is at the upstream, and stays half.
    async with client(proxy.gateway.url) as wire:
        wire.send(post(TE, body=b"2\r\nab\r\n"))
        await until(lambda: b"2\r\nab\r\n" in proxy.upstream.received, 5.0, "the first half")
        wire.send(BROKEN_CHUNKS[name] + NEXT)
        is_problem(answer := await wire.response(), "request")
        assert (answer.status, await wire.rest()) == (400, b"")
    await until(lambda: all(each.ended.is_set() for each in proxy.upstream.wires), 2.0, "the upstream connections' end")
    assert proxy.upstream.requests == []
    assert b"smuggled" not in proxy.upstream.received


async def test_a_1_0_request_keeps_its_body_without_a_host(proxy: Scene) -> None:
    got = await proxy.passed(b"POST /a HTTP/1.0\r\nContent-Length: 5\r\n\r\nhello")
    assert (got.body, got.values(b"content-length")) == (b"hello", [b"5"])


# -- thousands of mutants ---------------------------------------------------------------------------------------


class Reader:
    """aiohttp's parser over one stream. read: path and body of each request that is whole."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._parser = HttpRequestParser(BaseProtocol(loop), loop, 2**16, max_line_size=2**14, max_field_size=2**14)
        self._open: list[tuple[RawRequestMessage, StreamReader]] = []
        self.read: list[tuple[str, bytes]] = []
        self.broken = False

    def feed(self, data: bytes) -> None:
        if self.broken:
            return
        try:
            messages, _, _ = self._parser.feed_data(data)
        except HttpProcessingError:
            self.broken = True
            return
        self._open += messages
        while self._open and self._open[0][1].is_eof():
            message, payload = self._open.pop(0)
            if payload.exception() is not None:
                self.broken = True
                return
            self.read.append((message.path, payload.read_nowait()))

    @property
    def in_the_middle(self) -> bool:
        return bool(self._open)


BASES = [
    b"POST /a HTTP/1.1\r\nHost: gw\r\nContent-Length: 37\r\nX-A: 1\r\n\r\n" + NEXT,
    b"POST /a HTTP/1.1\r\nHost: gw\r\nTransfer-Encoding: chunked\r\nX-A: 1\r\n\r\n25\r\n" + NEXT + b"\r\n0\r\n\r\n",
    b"POST /a HTTP/1.1\r\nX-A: 1\r\nTransfer-Encoding: chunked\r\nHost: gw\r\n\r\n5;x=y\r\nhello\r\n0\r\nX-T: 1\r\n\r\n"
    + NEXT,
    b"GET /a HTTP/1.1\r\nHost: gw\r\nX-A: 1\r\n\r\n" + NEXT,
    b"POST /a HTTP/1.0\r\nContent-Length: 5\r\n\r\nhello" + NEXT,
]
LINES = [
    b"Content-Length: 5",
    b"Content-Length: 0",
    b"content-length: 37",
    b"Content-Length: 5, 5",
    b"Content-Length: +5",
    b"Content-Length: 0x25",
    b"Content-Length : 5",
    b"Content-Length",
    b"Content_Length: 5",
    b" Content-Length: 5",
    b"Transfer-Encoding: chunked",
    b"transfer-encoding: CHUNKED",
    b"Transfer-Encoding: chunked ",
    b"Transfer-Encoding: xchunked",
    b"Transfer-Encoding: identity",
    b"Transfer-Encoding: chunked, identity",
    b"Transfer-Encoding: gzip, chunked",
    b"Transfer-Encoding:\tchunked",
    b"Transfer-Encoding:\x0bchunked",
    b"Transfer-Encoding:",
    b"Transfer-Encoding : chunked",
    b"Transfer-Encoding: chunked\r\n x",
    b"Transfer_Encoding: chunked",
    b'Transfer-Encoding: "chunked"',
    b"X: \x00",
    b"Connection: content-length",
    b"Connection: transfer-encoding",
    b"Connection: close",
    b"Connection: keep-alive",
    b"Expect: 100-continue",
    b"Host: gw",
    b"Upgrade: websocket\r\nConnection: upgrade",
    b"X: y\rTransfer-Encoding: chunked",
    b"X: y\nContent-Length: 5",
    b"TE: chunked",
    b"Trailer: Content-Length",
]
BYTES = [
    b" ",
    b"\t",
    b"\r",
    b"\n",
    b"\r\n",
    b"\x00",
    b"\x0b",
    b"\x0c",
    b"\x85",
    b"\xa0",
    b":",
    b",",
    b";",
    b"0",
    b"5",
    b"_",
    b"\x7f",
]


# Request lines that llhttp does not take although they are plain: bytes of UTF-8, methods that it does not know.
STRANGE = re.compile(rb"[\x80-\xff][^\n]* HTTP/|(?m:^)(?!GET |POST )[^\n ]+ [^\n]* HTTP/")


def mutant(pick: random.Random) -> bytes:
    data = pick.choice(BASES)
    for _ in range(pick.randint(1, 3)):
        kind = pick.random()
        head, _, rest = data.partition(b"\r\n\r\n")
        lines = head.split(b"\r\n")
        at = pick.randrange(1, len(lines) + 1)
        if kind < 0.4:
            lines.insert(at, pick.choice(LINES))
        elif kind < 0.5 and at < len(lines):
            lines.append(lines[at])
        elif kind < 0.6 and at < len(lines):
            del lines[at]
        else:
            where = pick.randrange(len(data))
            cut = where if kind < 0.85 else where + 1
            data = data[:where] + pick.choice(BYTES) + data[cut:]
            continue
        data = b"\r\n".join(lines) + b"\r\n\r\n" + rest
    return data


async def test_what_gets_through_is_read_alike_by_everyone(proxy: Scene) -> None:
    loop = asyncio.get_running_loop()
    upstream_readers: dict[Wire, Reader] = {}

    async def behave(wire: Wire) -> None:
        reader = upstream_readers.setdefault(wire, Reader(loop))
        before = len(reader.read)
        reader.feed(wire.take(len(wire.unread)))
        for _ in range(len(reader.read) - before):
            wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    proxy.upstream.begin(behave)
    pick, through = random.Random(20261121), 0  # noqa: S311 - reproducible, not secret
    for number in range(MUTANTS):
        data = mutant(pick)
        if STRANGE.search(data):
            continue
        clients_reader = Reader(loop)
        for at in range(len(data)):  # byte by byte: in one piece it forgets what it read before an error
            clients_reader.feed(data[at : at + 1])
        seen = {wire: len(reader.read) for wire, reader in upstream_readers.items()}
        statuses = await answers(proxy, data)
        arrived = [each for wire, reader in upstream_readers.items() for each in reader.read[seen.get(wire, 0) :]]
        assert statuses.count(200) == len(arrived), (number, data, statuses, arrived)
        both = min(len(arrived), len(clients_reader.read))
        assert arrived[:both] == clients_reader.read[:both], (number, data, arrived, clients_reader.read)
        assert len(arrived) == both or clients_reader.broken, (number, data, arrived)  # it is stricter here and there
        through += len(arrived)
        for wire, reader in list(upstream_readers.items()):
            assert not reader.broken, (number, data, bytes(wire.received)[-600:])
            if reader.in_the_middle:  # half a request is never completed by another one's bytes
                await until(wire.ended.is_set, 2.0, "the end of a connection with half a request")
            if wire.ended.is_set():
                del upstream_readers[wire]
    assert through > MUTANTS // 6


async def answers(proxy: Scene, data: bytes) -> list[int]:
    """The statuses of all final answers to what is sent, once no further one can come."""
    found = []
    async with client(proxy.gateway.url) as wire:
        wire.send(data)
        wire.end()
        try:
            while True:
                answer = await wire.response()
                if answer.status >= 200:
                    found.append(answer.status)
        except WireEndedError:
            return found


async def test_nothing_of_a_malformed_request_is_ever_quoted(proxy: Scene) -> None:
    """The last test of this file: it looks through all that the gateway has said by now."""
    answer = await proxy.refused(REFUSED["no host"], 400, "request")
    line = await proxy.logged(correlation_id=answer.values(b"x-correlation-id")[0].decode())
    assert (line["status"], line["path"]) == (400, "/a")
    assert len(proxy.gateway.log) > MUTANTS // 2
    everything = "\n".join([*proxy.gateway.log, *proxy.gateway.out])
    assert SECRET.decode() not in everything
    assert not [line for line in proxy.gateway.log if json.loads(line)["level"] in ("error", "critical")]
    assert "hunter2" not in str(await proxy.metrics())
