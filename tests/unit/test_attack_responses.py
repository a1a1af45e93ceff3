"""Upstreams that mean harm, or are broken: a client reads what they meant, or sees that something is wrong.

As test_attack_requests.py, from the other side. A second request on the same connection shows whether anything of the
first answer could be taken for the answer to the second.
"""

import asyncio
from collections.abc import Iterator

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.support import strict
from tests.support.inmemory import FakeSource, InMemory, MemoryTransport, settled
from tests.support.mutations import CUTS, bodies, chunked, cut, examples, mutated

pytestmark = pytest.mark.timeout(1200)  # of a long run

SECOND = b"HTTP/1.1 299 Second\r\nContent-Length: 6\r\n\r\nsecond"
EVIL = b"HTTP/1.1 200 OK\r\nSet-Cookie: evil\r\nContent-Length: 4\r\n\r\nevil"
METHODS = [b"GET", b"HEAD", b"POST"]


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as runner:
        yield runner


# -- what upstreams send --------------------------------------------------------------------------------------------

STATUSES = st.sampled_from(
    [b"200 OK", b"200", b"200 ", b"204 No Content", b"304 Not Modified", b"404 No", b"500 \xff", b"999 x"]
)
INTERIM = st.sampled_from(
    [
        b"",
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 103 Early\r\nLink: x\r\nContent-Length: 4\r\n\r\n",
        b"HTTP/1.1 102 P\r\n\r\n" * 3,
    ]
)
LINES = st.sampled_from(
    [b"Content-Type: application/json", b"X-A:", b"Set-Cookie: a=b", b"Server: \xff", b"Connection: close", b"x: y"]
)


@st.composite
def good_responses(draw: st.DrawFn) -> bytes:
    lines = draw(st.lists(LINES, max_size=3))
    framing = draw(st.sampled_from(["length", "chunked", "end"]))
    body = draw(bodies(EVIL))
    if framing == "length":
        lines.append(b"Content-Length: %d" % len(body))
    elif framing == "chunked":
        body = draw(chunked(EVIL))
        lines.append(b"Transfer-Encoding: chunked")
    head = b"HTTP/1.1 " + draw(STATUSES) + b"\r\n" + b"".join(line + b"\r\n" for line in draw(st.permutations(lines)))
    return draw(INTERIM) + head + b"\r\n" + body


EVIL_LINES = st.sampled_from(
    [
        *(b"Content-Length: 4", b"Content-Length: 0", b"content-length:37", b"Content-Length: 4, 4", b"Content-Length"),
        *(b"Content-Length: +4", b"Content-Length: 0x4", b"Content-Length : 4", b" Content-Length: 4"),
        *(b"Content-Length:", b"Transfer-Encoding: chunked", b"Transfer-Encoding: gzip, chunked"),
        *(b"Transfer-Encoding: identity", b"Transfer-Encoding: chunked, chunked", b"Transfer-Encoding:\x0bchunked"),
        *(b"Transfer-Encoding:\r\n chunked", b"Connection: content-length", b"Connection: transfer-encoding"),
        *(b"Connection: close", b"Connection: set-cookie", b"X: y\nContent-Length: 4", b"X\rY: 1", b"X: \x00", b": X"),
        *(b"", b"X Y: 1", b"HTTP/1.1 200 OK", b"\tX: 1", b"Upgrade: h2c", b"Trailer: Content-Length"),
        *(b"Upgrade: websocket\r\nConnection: upgrade", b"X" * 70_000 + b": 1"),
    ]
)
EVIL_BYTES = st.sampled_from(
    [
        *(b" ", b"\t", b"\r", b"\n", b"\r\n", b"\r\n\r\n", b"\x00", b"\x0b", b"\x7f", b"\xff", b":", b",", b";"),
        *(b"0", b"4", b"0\r\n\r\n", b"HTTP/1.1 100 C\r\n\r\n", EVIL, b"HTTP/1.1 102 P\r\n\r\n" * 20, b"0" * 5000),
        *(b"HTTP/1.1 101 S\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n", b"A: b\r\n" * 3000),
        b"1;" + b"x" * 5000 + b"\r\n",
    ]
)
STREAMS = st.tuples(good_responses(), st.sampled_from([b"", b"", EVIL])).map(b"".join)


# -- what comes of it -----------------------------------------------------------------------------------------------


class Exchange:
    """One request whose answer is these bytes, then the connection's end; and a second one. first, second: what the
    client has read of each. aborted: its connection was broken off. reused: the second went over the first's way."""

    def __init__(self, method: bytes, version: bytes, *, ends: bool) -> None:
        self._method, self._version, self._ends = method, version, ends
        self.first = self.second = b""
        self.aborted = self.closed = self.reused = False

    async def run(self, pieces: list[bytes]) -> None:
        with InMemory(FakeSource()) as there:
            client = there.dial()
            client.receive(b"%b /first HTTP/1.%b\r\nHost: gw\r\n\r\n" % (self._method, self._version))
            (upstream,) = there.upstreams
            for piece in pieces:
                upstream.receive(piece)
                await settled(4)
            if self._ends:
                upstream.finish()
            await settled(8)
            self.first = bytes(client.written)
            self.aborted = client.ended in ("aborted", "gone") and not client.gently
            self.closed = client.ended != ""
            if not self.closed:
                await self._ask_again(there, client, upstream)

    async def _ask_again(self, there: InMemory, client: MemoryTransport, upstream: MemoryTransport) -> None:
        before = len(client.written)
        client.receive(b"GET /second HTTP/1.1\r\nHost: gw\r\n\r\n")
        await settled(4)
        self.reused = b"/second" in upstream.written
        used = [each for each in there.upstreams if b"/second" in each.written]
        for each in used:
            each.receive(SECOND)
        await settled(4)
        self.second = bytes(client.written[before:])


def judge(data: bytes, pieces: list[bytes], method: bytes, loop: asyncio.Runner, *, old: bool, ends: bool) -> Exchange:
    talk = Exchange(method, b"0" if old else b"1", ends=ends)
    loop.run(talk.run(pieces))
    try:
        meant, rest = strict.response(data, method, ended=ends)
        whole = meant[-1]
    except (strict.BrokenError, strict.MoreError):
        whole, rest = None, b""
    try:
        got, over = strict.response(talk.first, method, ended=talk.closed and not talk.aborted)
        final = got[-1]
    except strict.MoreError:
        # Nothing, or half an answer: then its end must not look like a proper one.
        assert talk.aborted or not ends, (data, talk.first)
        assert talk.second == b""
        return talk
    assert over == b"" or talk.aborted, (data, over)
    ours = final.all(b"proxy-status")
    if ours:
        assert final.start[1] == b"502"
    elif final.ends and talk.aborted:
        assert whole is None or rest is not None
    else:
        assert whole is not None, (data, talk.first)
        assert (final.start[1], final.body) == (whole.start[1], whole.body), (data, talk.first)
    if talk.second:
        read, over = strict.response(talk.second, b"GET", ended=False)
        assert (read[-1].start[1], read[-1].body, over) == (b"299", b"second", b""), (data, talk.second)
        assert not talk.reused or (whole is not None and rest == b"" and not whole.ends)
    return talk


@examples(1500)
@given(
    data=mutated(STREAMS, EVIL_LINES, EVIL_BYTES),
    cuts=CUTS,
    method=st.sampled_from(METHODS),
    old=st.booleans(),
    ends=st.booleans(),
)
@example(data=EVIL + EVIL, cuts=[], method=b"GET", old=False, ends=False)
def test_what_an_upstream_meant_is_what_the_client_reads(
    loop: asyncio.Runner, data: bytes, cuts: list[int], method: bytes, old: bool, ends: bool
) -> None:
    judge(data, cut(data, cuts), method, loop, old=old, ends=ends)


@examples(300)
@given(data=good_responses(), cuts=CUTS, method=st.sampled_from(METHODS))
def test_an_answer_that_everybody_reads_alike_passes_whole(
    loop: asyncio.Runner, data: bytes, cuts: list[int], method: bytes
) -> None:
    whole = strict.response(data, method)[0][-1]
    talk = judge(data, cut(data, cuts), method, loop, old=False, ends=True)
    read = strict.response(talk.first, method, ended=False)[0]
    assert (read[-1].start[1], read[-1].body) == (whole.start[1], whole.body)
    assert not read[-1].all(b"proxy-status")
