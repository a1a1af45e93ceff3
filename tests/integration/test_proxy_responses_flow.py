"""Answers in motion: streaming without delay, big bodies in little memory, back-pressure, time-outs (A21, A24)."""

import asyncio
import functools
import hashlib
import socket
import zlib
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.support.fleet import LONG, tell
from tests.support.gateway import until
from tests.support.rawclient import client, dial
from tests.support.rawserver import OK, Behaviour, Wire, answering
from tests.support.relay import GET, Relay, problem, relay

pytestmark = pytest.mark.asyncio(loop_scope="module")

MIB = 1 << 20
BIG = (1024 if LONG else 100) * MIB
LITTLE = 16 * MIB  # what a gateway that streams may need on top, whatever passes through it
BLOCK = bytes(range(256)) * 4096
STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
QUICK = b"GET /quick HTTP/1.1\r\nHost: gw\r\n\r\n"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def here(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Relay]:
    quick = {"path": "/quick", "timeouts": {"connect": "1s", "response": "500ms", "idle": "500ms"}}
    limits = {"body_idle": "1s"}
    async with relay(tmp_path_factory.mktemp("gateway"), [quick], {"limits": limits}) as running:
        yield running


class Downloading(asyncio.Protocol):
    """A client that counts and hashes what follows the head, and can stop reading."""

    def __init__(self) -> None:
        self.head = b""
        self.size = 0
        self.digest = hashlib.sha256()
        self.over = asyncio.Event()
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        sock = transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)  # the kernel would take megabytes for it

    def data_received(self, data: bytes) -> None:
        if b"\r\n\r\n" not in self.head:
            self.head, _, data = (self.head + data).partition(b"\r\n\r\n")
            self.head += b"\r\n\r\n"
        self.size += len(data)
        self.digest.update(data)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - a test sees what is missing
        self.over.set()


async def download(url: str, request: bytes) -> Downloading:
    host, port = url.removeprefix("http://").split(":")
    _, client = await asyncio.get_running_loop().create_connection(Downloading, host, int(port))
    client.transport.write(request)
    return client


def pouring(size: int, *, length: bool = True) -> tuple[Behaviour, str]:
    """An upstream that sends ``size`` bytes as fast as they are taken, and their digest."""
    digest = hashlib.sha256()
    for _ in range(size // MIB):
        digest.update(BLOCK)
    head = b"HTTP/1.1 200 OK\r\n" + (b"Content-Length: %d\r\n\r\n" % size if length else b"\r\n")

    async def behave(wire: Wire) -> None:
        await wire.request()
        wire.send(head)
        for _ in range(size // MIB):
            await wire.write(BLOCK)
        if not length:
            wire.close()

    return behave, digest.hexdigest()


# -- A24: at once ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("content_type", [b"text/event-stream", b"application/json", b"application/octet-stream"])
async def test_each_piece_leaves_as_it_comes(here: Relay, content_type: bytes) -> None:
    step = asyncio.Semaphore(0)

    async def behave(wire: Wire) -> None:
        await wire.request()
        wire.send(STREAM.replace(b"text/event-stream", content_type))
        for number in range(3):
            await step.acquire()
            wire.send(b"6\r\n{tick%d\r\n" % number)
        await step.acquire()
        wire.send(b"0\r\n\r\n")

    here.raw.begin(behave)
    async with client(here.gateway.url) as wire:
        wire.send(GET)
        assert b"200 OK" in await wire.head()
        for number in range(3):
            step.release()
            assert await wire.read(11) == b"6\r\n{tick%d\r\n" % number
        step.release()
        assert await wire.read(5) == b"0\r\n\r\n"


async def test_one_piece_may_come_in_many_reads_and_many_in_one(here: Relay) -> None:
    answer = STREAM + b"".join(b"1\r\n%c\r\n" % byte for byte in b"abcdefgh") + b"0\r\nX-T: 1\r\n\r\n"

    async def behave(wire: Wire) -> None:
        await wire.request()
        for index in range(len(answer)):
            wire.send(answer[index : index + 1])
            await asyncio.sleep(0)

    here.raw.begin(behave)
    async with client(here.gateway.url) as wire:
        wire.send(GET)
        dripped = await wire.response()
    assert (dripped.body, dripped.trailers) == (b"abcdefgh", b"X-T: 1\r\n")
    assert (await here.answer(answer)).body == b"abcdefgh"


async def test_requests_and_answers_can_stream_at_the_same_time(here: Relay) -> None:
    async def echo(wire: Wire) -> None:
        await wire.head()
        wire.send(STREAM)
        for _ in range(3):
            wire.send(await wire.read(6))
        wire.send(await wire.read(5))

    here.raw.begin(echo)
    async with client(here.gateway.url) as wire:
        wire.send(b"POST / HTTP/1.1\r\nHost: gw\r\nTransfer-Encoding: chunked\r\n\r\n")
        await wire.head()
        for byte in b"abc":
            wire.send(b"1\r\n%c\r\n" % byte)
            assert await wire.read(6) == b"1\r\n%c\r\n" % byte
        wire.send(b"0\r\n\r\n")
        assert await wire.read(5) == b"0\r\n\r\n"


# -- A21: memory ----------------------------------------------------------------------------------------------------


def little(here: Relay, before: int, request: pytest.FixtureRequest) -> None:
    """What it took on top, at its peak."""
    grown = here.resident() - before
    tell(request, grown_mib=round(grown / MIB, 1), of_mib=BIG // MIB)
    assert grown < LITTLE


@pytest.mark.parametrize("length", [True, False], ids=["known length", "until the end"])
async def test_a_big_answer_passes_whole_in_little_memory(
    here: Relay, length: bool, request: pytest.FixtureRequest
) -> None:
    behave, digest = pouring(BIG, length=length)
    here.raw.begin(behave)
    before = here.forget_peak()
    reader = await download(here.gateway.url, b"GET / HTTP/1.0\r\nHost: gw\r\n\r\n")
    async with asyncio.timeout(90):
        await reader.over.wait()
    assert (reader.size, reader.digest.hexdigest()) == (BIG, digest)
    little(here, before, request)


async def test_a_big_request_passes_whole_in_little_memory(here: Relay, request: pytest.FixtureRequest) -> None:
    digest, size = hashlib.sha256(), 0

    async def swallow(wire: Wire) -> None:
        nonlocal size
        await wire.head()
        while size < BIG:
            digest.update(await wire.read(MIB))
            size += MIB
            wire.forget()
        wire.send(OK)

    here.raw.begin(swallow)
    before = here.forget_peak()
    expected = hashlib.sha256()
    async with client(here.gateway.url) as wire:
        wire.send(b"PUT / HTTP/1.1\r\nHost: gw\r\nContent-Length: %d\r\n\r\n" % BIG)
        for _ in range(BIG // MIB):
            await wire.write(BLOCK)
            expected.update(BLOCK)
        assert (await wire.response()).body == b"ok"
    little(here, before, request)
    assert (size, digest.hexdigest()) == (BIG, expected.hexdigest())


@functools.cache
def bomb() -> bytes:
    """Little gzip that stands for a thousand times as much."""
    packer = zlib.compressobj(9, wbits=31)
    block = bytes(MIB)
    return b"".join(packer.compress(block) for _ in range(BIG // MIB * 4)) + packer.flush()


@pytest.mark.parametrize("kind", [b"application/octet-stream", b"application/json"])
async def test_a_compressed_bomb_passes_as_it_is_both_ways(
    here: Relay, kind: bytes, request: pytest.FixtureRequest
) -> None:
    packed = bomb()
    lines = b"Content-Type: %b\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n" % (kind, len(packed))
    here.raw.begin(answering(b"HTTP/1.1 200 OK\r\n%b\r\n%b" % (lines, packed)))
    before = here.forget_peak()
    async with client(here.gateway.url) as wire:
        wire.send(b"POST / HTTP/1.1\r\nHost: gw\r\n%b\r\n%b" % (lines, packed))
        answer = await wire.response()
    assert answer.body == packed
    assert (await here.raw.request()).body == packed
    little(here, before, request)


async def test_a_client_that_does_not_read_stops_the_upstream(here: Relay, request: pytest.FixtureRequest) -> None:
    behave, digest = pouring(BIG)
    here.raw.begin(behave)
    before = here.forget_peak()
    reader = await download(here.gateway.url, GET)
    await until(lambda: reader.size > MIB, 5.0, "the answer to begin")
    reader.transport.pause_reading()
    await asyncio.sleep(0.6)
    assert here.resident() - before < LITTLE
    reader.transport.resume_reading()
    await until(lambda: reader.size == BIG, 90.0, "the rest")
    assert reader.digest.hexdigest() == digest
    little(here, before, request)
    reader.transport.close()


async def test_an_upstream_that_does_not_read_stops_the_client(here: Relay) -> None:
    async def stall(wire: Wire) -> None:
        await wire.head()
        wire.stop_reading()
        await asyncio.sleep(0.5)
        wire.read_on()
        await wire.read(64 * MIB)
        wire.send(OK)

    here.raw.begin(stall)
    before = here.forget_peak()
    async with client(here.gateway.url) as wire:
        wire.send(b"PUT / HTTP/1.1\r\nHost: gw\r\nContent-Length: %d\r\n\r\n" % (64 * MIB))
        wire.send(BLOCK * 64)
        await asyncio.sleep(0.3)
        assert wire.transport is not None
        assert wire.transport.get_write_buffer_size() > 32 * MIB
        assert (await wire.response()).body == b"ok"
    assert here.resident() - before < LITTLE


async def test_a_client_that_only_asks_and_never_reads_gets_no_pile_of_answers(here: Relay) -> None:
    here.raw.begin(answering(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (MIB, BLOCK)))
    before = here.forget_peak()
    reader = await download(here.gateway.url, b"")
    reader.transport.pause_reading()
    for _ in range(200):
        reader.transport.write(GET)
    await asyncio.sleep(0.5)
    assert here.resident() - before < LITTLE
    assert len(here.raw.requests) < 30
    reader.transport.abort()


async def test_refusals_do_not_pile_up_for_a_client_that_never_reads(here: Relay) -> None:
    before = here.forget_peak()
    reader = await download(here.gateway.url, b"")
    reader.transport.pause_reading()
    reader.transport.write(b"TRACE / HTTP/1.1\r\nHost: gw\r\n\r\n" * 500_000)
    await asyncio.sleep(0.8)
    assert here.resident() - before < LITTLE
    assert reader.transport.get_write_buffer_size() > MIB
    reader.transport.abort()


async def test_a_client_that_closed_its_half_gets_an_answer_that_takes_a_while(here: Relay) -> None:
    async def slowly(wire: Wire) -> None:
        await wire.request()
        wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n")
        for byte in b"0123456789":
            await asyncio.sleep(0.15)
            wire.send(b"%c" % byte)

    here.raw.begin(slowly)
    async with client(here.gateway.url) as wire:
        wire.send(GET)
        wire.end()
        assert (await wire.rest()).endswith(b"0123456789")


# -- time-outs ------------------------------------------------------------------------------------------------------


async def silent(wire: Wire) -> None:
    await wire.head()
    await wire.ended.wait()


async def test_an_upstream_that_does_not_answer_is_504_and_is_left(here: Relay) -> None:
    before = await here.errors("timeout", "/quick")
    found = await here.answer(silent, QUICK)
    assert found.status == 504
    assert problem(found)["type"] == "urn:opentv-proxy:problem:timeout"
    assert found.values(b"proxy-status") == [b"opentv-proxy; error=http_response_timeout"]
    assert await here.errors("timeout", "/quick") == before + 1
    await until(here.raw.wires[0].ended.is_set, 2.0, "the connection to the upstream to end")


async def test_a_head_that_drips_does_not_prolong_the_time_for_an_answer(here: Relay) -> None:
    async def drip(wire: Wire) -> None:
        await wire.request()
        for byte in b"HTTP/1.1 200 OK\r\nX-Slow: " + b"x" * 100:
            wire.send(b"%c" % byte)
            await asyncio.sleep(0.05)

    assert (await here.answer(drip, QUICK)).status == 504


async def test_an_upstream_that_is_silent_on_an_expectation_is_the_one_that_is_late(here: Relay) -> None:
    expecting = b"PUT /quick HTTP/1.1\r\nHost: gw\r\nExpect: 100-continue\r\nContent-Length: 9\r\n\r\n"
    assert (await here.answer(silent, expecting)).status == 504


async def test_a_client_that_stops_in_the_middle_of_its_body_is_408(here: Relay) -> None:
    found = await here.answer(silent, b"PUT / HTTP/1.1\r\nHost: gw\r\nContent-Length: 9\r\n\r\nhalf")
    assert found.status == 408
    assert problem(found)["type"] == "urn:opentv-proxy:problem:timeout"


async def test_an_upstream_that_takes_no_body_is_504(here: Relay) -> None:
    async def stall(wire: Wire) -> None:
        await wire.head()
        wire.stop_reading()
        await asyncio.sleep(3)

    here.raw.begin(stall)
    async with client(here.gateway.url) as wire:
        wire.send(b"PUT /quick HTTP/1.1\r\nHost: gw\r\nContent-Length: %d\r\n\r\n" % (32 * MIB))
        wire.send(BLOCK * 32)
        assert b" 504 " in (await wire.head()).split(b"\r\n")[0]


async def test_a_body_that_falls_silent_is_broken_off(here: Relay) -> None:
    async def half(wire: Wire) -> None:
        await wire.request()
        wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
        await wire.ended.wait()

    before = await here.errors("timeout", "/quick")
    here.raw.begin(half)
    async with client(here.gateway.url) as wire:
        wire.send(QUICK)
        await wire.head()
        assert await wire.rest() == b"half"
    assert await here.errors("timeout", "/quick") == before + 1


async def test_an_event_stream_may_be_silent(here: Relay) -> None:
    async def rarely(wire: Wire) -> None:
        await wire.request()
        wire.send(STREAM + b"1\r\na\r\n")
        await asyncio.sleep(1.3)
        wire.send(b"1\r\nb\r\n0\r\n\r\n")

    assert (await here.answer(rarely, QUICK)).body == b"ab"


async def test_a_client_that_takes_nothing_of_its_answer_is_left_with_its_upstream(here: Relay) -> None:
    behave, _ = pouring(BIG)
    here.raw.begin(behave)
    reader = await download(here.gateway.url, GET)
    reader.transport.pause_reading()
    await until(lambda: bool(here.raw.wires) and here.raw.wires[0].lost.is_set(), 5.0, "the upstream to be left")
    await here.counted(0, "requests_in_flight")
    assert await here.metric("requests_total", route="/", code="499") >= 1
    reader.transport.abort()


async def test_a_client_that_leaves_ends_its_upstream_request(here: Relay) -> None:
    before = await here.metric("requests_total", route="/", code="499")
    here.raw.begin(silent)
    wire = await dial(here.gateway.url)
    wire.send(GET)
    await until(lambda: bool(here.raw.wires), 2.0, "the request upstream")
    wire.close()
    await until(here.raw.wires[0].ended.is_set, 2.0, "the upstream request to end")
    await here.counted(before + 1, "requests_total", route="/", code="499")


async def test_a_client_that_leaves_an_event_stream_ends_it(here: Relay) -> None:
    async def ticking(wire: Wire) -> None:
        await wire.request()
        wire.send(STREAM)
        while not wire.lost.is_set():
            wire.send(b"1\r\na\r\n")
            await asyncio.sleep(0.1)

    here.raw.begin(ticking)
    wire = await dial(here.gateway.url)
    wire.send(GET)
    await wire.read_until(b"1\r\na\r\n")
    wire.close()
    await until(here.raw.wires[0].lost.is_set, 2.0, "the upstream's stream to end")


async def test_an_early_refusal_reaches_a_client_that_is_still_sending(here: Relay) -> None:
    async def refuse(wire: Wire) -> None:
        await wire.head()
        wire.send(b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno")
        await asyncio.sleep(1)

    here.raw.begin(refuse)
    async with client(here.gateway.url) as wire:
        wire.send(b"PUT / HTTP/1.1\r\nHost: gw\r\nContent-Length: %d\r\n\r\n" % (32 * MIB))
        for _ in range(32):
            wire.send(BLOCK)
        await until(
            lambda: wire.transport is None or wire.transport.get_write_buffer_size() == 0, 5.0, "the upload's end"
        )
        assert (await wire.response()).status == 413
