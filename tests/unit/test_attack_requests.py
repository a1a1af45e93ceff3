"""Clients that mean to confuse: whatever they send, in whatever pieces, the upstream reads what they meant, or nothing.

A second, plain reading of the RFC (``tests.support.strict``) says what a client meant. The upstream's side of the real
data path is read by it too. The same seed, so the same examples, at each run; ``SOAK`` multiplies their number.
"""

import asyncio
from collections.abc import Iterator

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.support import strict
from tests.support.inmemory import CREDENTIAL, FakeSource, InMemory, MemoryTransport, settled
from tests.support.mutations import CUTS, bodies, chunked, cut, examples, mutated

pytestmark = pytest.mark.timeout(1200)  # of a long run

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
NEXT = b"GET /smuggled HTTP/1.1\r\nHost: gw\r\n\r\n"


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as runner:
        yield runner


# -- what clients send ----------------------------------------------------------------------------------------------

METHODS = st.sampled_from([b"GET", b"POST", b"PUT", b"DELETE", b"OPTIONS", b"X-Y", b"get"])
TARGETS = st.sampled_from([b"/", b"/a?b=c", b"//x", b"/%2e", b"/a;b", b"/\xc3\xa9", b"/" + b"l" * 300])
NAMES = st.sampled_from([b"X-A", b"x-b", b"Accept", b"Cookie", b"X_C", b"TE", b"Trailer", b"Authorization"])
VALUES = st.sampled_from([b"", b" 1", b"\t2 ", b" \xff", b" a,b", b" chunked", b" 5"])


@st.composite
def good_requests(draw: st.DrawFn) -> bytes:
    """One request that everybody reads alike."""
    lines = [b"Host: gw", *(b"%b:%b" % pair for pair in draw(st.lists(st.tuples(NAMES, VALUES), max_size=3)))]
    framing = draw(st.sampled_from(["none", "length", "chunked"]))
    body = b""
    if framing == "length":
        body = draw(bodies(NEXT))
        lines.append(b"Content-Length: %d" % len(body))
    elif framing == "chunked":
        body = draw(chunked(NEXT))
        lines.append(draw(st.sampled_from([b"Transfer-Encoding: chunked", b"transfer-encoding:\tCHUNKED "])))
    lines = draw(st.permutations(lines))
    start = b"%b %b HTTP/1.1" % (draw(METHODS), draw(TARGETS))
    return b"\r\n".join([start, *lines]) + b"\r\n\r\n" + body


EVIL_LINES = st.sampled_from(
    [
        *(b"Content-Length: 5", b"Content-Length: 0", b"content-length:37", b"Content-Length: 5, 5", b"Content-Length"),
        *(b"Content-Length: +5", b"Content-Length: 0x5", b"Content-Length : 5", b" Content-Length: 5"),
        *(b"Content-Length: 5\x00", b"Content-Length: 5_0", b"Content-Length: \xb2", b"Content-Length: 5 5"),
        *(b"Transfer-Encoding: chunked", b"Transfer-Encoding:chunked", b"transfer-encoding: Chunked"),
        *(b"Transfer-Encoding: xchunked", b"Transfer-Encoding: identity", b"Transfer-Encoding: chunked, identity"),
        *(b"Transfer-Encoding: gzip, chunked", b"Transfer-Encoding: ,chunked", b"Transfer-Encoding: chunked,"),
        *(b"Transfer-Encoding:\x0bchunked", b"Transfer-Encoding: chunked\x0c", b"Transfer-Encoding:\xa0chunked"),
        *(
            b"Transfer-Encoding:",
            b"Transfer-Encoding : chunked",
            b"Transfer-Encoding:\r\n chunked",
            b"Transfer_Encoding: x",
        ),
        *(b"Transfer-Encoding: chunked;q=1", b'Transfer-Encoding: "chunked"', b"X: y\rTransfer-Encoding: chunked"),
        *(b"X: y\nContent-Length: 5", b"X\rContent-Length: 5", b"X: \x00", b"\x00: X", b": X", b"", b"X\x85: 1"),
        *(b"Connection: content-length", b"Connection: transfer-encoding", b"Connection: close", b"Connection: host"),
        *(b"Connection: keep-alive, authorization", b"Connection: x-correlation-id", b"Expect: 100-continue"),
        *(b"Expect: 200-ok", b"Host: evil", b"Host:", b"Upgrade: h2c\r\nConnection: upgrade, http2-settings"),
        *(b"Upgrade: websocket\r\nConnection: upgrade", b"Authorization: Bearer mine", b"authorization_: x"),
    ]
)
EVIL_BYTES = st.sampled_from(
    [
        *(
            b" ",
            b"\t",
            b"\r",
            b"\n",
            b"\r\n",
            b"\r\n\r\n",
            b"\x00",
            b"\x0b",
            b"\x0c",
            b"\x7f",
            b"\x85",
            b"\xa0",
            b"\xff",
        ),
        *(b":", b",", b";", b"0", b"5", b"_", b"\r\r\n", b"0\r\n\r\n", b"HTTP/1.1", b"GET / HTTP/1.1\r\n"),
    ]
)


STREAMS = st.tuples(st.lists(good_requests(), min_size=1, max_size=2).map(b"".join), st.sampled_from([b"", NEXT])).map(
    b"".join
)


# -- what comes of it -----------------------------------------------------------------------------------------------


class Conversation:
    """One client's bytes through the gateway to an upstream that answers each whole request. passed: what it read."""

    def __init__(self) -> None:
        self.passed: list[strict.Read] = []
        self.left: list[tuple[MemoryTransport, str]] = []  # upstream connections, and what is on them beyond that
        self.answers = b""
        self.closed = False

    async def run(self, pieces: list[bytes]) -> None:
        with InMemory(FakeSource()) as there:
            client = there.dial()
            for piece in pieces:
                client.receive(piece)
                await self._serve(there)
            await self._serve(there)
            self.answers = bytes(client.written)
            self.closed = client.ended != ""
            self.left = [(each, strict.requests(bytes(each.written))[1]) for each in there.upstreams]

    async def _serve(self, there: InMemory) -> None:
        """Until nothing more comes: each new whole request is answered."""
        quiet = 0
        while quiet < 3:
            await settled(1)
            quiet += 1
            for upstream in there.upstreams:
                read, rest, _ = strict.requests(bytes(upstream.written))
                assert rest != "broken", bytes(upstream.written)
                for request in read[upstream.answered :]:
                    upstream.answered += 1
                    self.passed.append(request)
                    upstream.receive(OK if request.start[0] != b"HEAD" else OK[:-2])
                    quiet = 0


def meaning(read: strict.Read) -> tuple[bytes, bytes, bytes]:
    return read.start[0], read.start[1], read.body


def tunnels(read: strict.Read) -> bool:
    """Whether it asks for a WebSocket, which alone may change what a connection is for."""
    return read.options == {b"upgrade"} and read.all(b"upgrade") == [b"websocket"] and read.start[0] == b"GET"


def is_last(read: strict.Read) -> bool:
    """Whether nothing that follows it on the connection is a request any more (RFC 9112 9.3)."""
    return read.start[2] == b"HTTP/1.0" or b"close" in read.options


def answers(data: bytes) -> list[strict.Read]:
    """All final answers that the client has got; each is whole, and nothing else is between or behind them."""
    found = []
    while data:
        read, data = strict.response(data, b"GET", ended=False)
        found.append(read[-1])
    return found


def judge(data: bytes, pieces: list[bytes], loop: asyncio.Runner) -> Conversation:
    meant, then, _ = strict.requests(data)
    talk = Conversation()
    loop.run(talk.run(pieces))
    last = next((number for number, each in enumerate(meant, 1) if is_last(each)), len(meant))
    ours, allowed = [meaning(each) for each in talk.passed], [meaning(each) for each in meant[:last]]
    assert ours == allowed[: len(ours)], (ours, allowed)
    for read in talk.passed:
        assert read.all(b"authorization") == [b"Bearer ours"], read.fields
        assert len(read.all(b"host")) == len(read.all(b"x-correlation-id")) == 1
        hop_by_hop = {b"connection", b"upgrade", b"te"} & {name for name, _ in read.fields}
        assert not hop_by_hop or tunnels(read)
    assert [state for _, state in talk.left].count("more") <= 1
    got = answers(talk.answers)
    assert [each.start[1] for each in got[: len(ours)]] == [b"200"] * len(ours)
    refusals = got[len(ours) :]
    assert len(refusals) <= 1
    for refusal in refusals:
        assert refusal.start[1] in (b"400", b"413", b"414", b"417", b"431", b"505"), refusal
        assert refusal.all(b"proxy-status")
    # What is whole is answered; what nobody can read is refused, as soon as it can be known to be such.
    assert refusals or len(ours) == len(allowed), (ours, allowed, then)
    assert CREDENTIAL.line.strip() not in talk.answers
    return talk


@examples(1500)
@given(data=mutated(STREAMS, EVIL_LINES, EVIL_BYTES), cuts=CUTS)
@example(data=b"POST / HTTP/1.1\r\nHost: gw\r\nContent-Length: 5\r\n\r\nhello" + NEXT, cuts=[])
def test_what_a_client_meant_is_what_the_upstream_reads(loop: asyncio.Runner, data: bytes, cuts: list[int]) -> None:
    judge(data, cut(data, cuts), loop)


@examples(300)
@given(parts=st.lists(good_requests(), min_size=1, max_size=3), cuts=CUTS)
def test_what_everybody_reads_alike_passes_whole(loop: asyncio.Runner, parts: list[bytes], cuts: list[int]) -> None:
    data = b"".join(parts)
    talk = judge(data, cut(data, cuts), loop)
    assert len(talk.passed) == len(parts)
    assert talk.answers.count(b"HTTP/1.1 200 OK") == len(parts)
    assert not talk.closed
