"""Limits on what a client may send and how slowly (A14, A22), each with its status, and that others are not slowed."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.support.gateway import until
from tests.support.proxied import Scene, is_problem, scene
from tests.support.rawclient import ask, client, dial
from tests.support.rawserver import Wire

pytestmark = pytest.mark.asyncio(loop_scope="module")

# Seconds. The gateway looks at its deadlines every quarter of a second.
HEAD_TIME, BODY_IDLE, KEEPALIVE, SLACK = 0.6, 0.6, 0.6, 0.9
LIMITS = {
    "connections": 30,
    "head_time": "600ms",
    "body_idle": "600ms",
    "keepalive": "600ms",
    "head_size": "4KiB",
    "target_size": "1KiB",
}
GET = b"GET /a HTTP/1.1\r\nHost: gw\r\n\r\n"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Scene]:
    def routes(upstream: str) -> list[dict[str, Any]]:
        return [{"path": "/", "upstream": upstream, "identity": None}]

    async with scene(routes, tmp_path_factory.mktemp("limits"), {"limits": LIMITS}) as one:
        yield one


@pytest.fixture
def proxy(shared: Scene) -> Scene:
    shared.upstream.begin()
    return shared


class Stopwatch:
    def __init__(self) -> None:
        self._begun = time.monotonic()

    def about(self, seconds: float) -> None:
        """So long it took, and not less."""
        took = time.monotonic() - self._begun
        assert seconds - 0.05 < took < seconds + SLACK, took


def with_target(size: int) -> bytes:
    return b"GET /" + b"a" * (size - 1) + b" HTTP/1.1\r\nHost: gw\r\n\r\n"


def with_head(size: int) -> bytes:
    """A head of so many bytes, its empty line not counted."""
    start, end = b"GET / HTTP/1.1\r\nHost: gw\r\nX-Fill: ", b"\r\n\r\n"
    return start + b"a" * (size - len(start)) + end


# -- sizes (A14) ------------------------------------------------------------------------------------------------


async def test_sizes_up_to_the_limit_pass(proxy: Scene) -> None:
    assert len((await proxy.passed(with_target(1024))).target) == 1024
    await proxy.passed(with_head(4096))


@pytest.mark.parametrize("size", [1025, 5000, 70_000])
async def test_a_longer_target_is_414(proxy: Scene, size: int) -> None:
    answer = await proxy.refused(with_target(size), 414, "limit")
    assert answer.values(b"connection") == [b"close"]


@pytest.mark.parametrize("size", [4097, 20_000, 400_000])
async def test_a_larger_head_is_431(proxy: Scene, size: int) -> None:
    await proxy.refused(with_head(size), 431, "limit")


async def test_too_many_lines_are_431(proxy: Scene) -> None:
    await proxy.refused(b"GET / HTTP/1.1\r\nHost: gw\r\n" + b"A:\r\n" * 600 + b"\r\n", 431, "limit")


@pytest.mark.parametrize(
    ("start", "status"),
    [
        (b"GET /", 414),
        (b"G", 414),
        (b"GET / HTTP/1.1\r\nHost: gw\r\nX: ", 431),
        (b"GET / HTTP/1.1\r\nHost: gw\r\n", 431),
    ],
)
async def test_what_never_ends_is_refused_at_the_limit(proxy: Scene, start: bytes, status: int) -> None:
    async with client(proxy.gateway.url) as wire:
        wire.send(start)
        while not wire.unread and not wire.ended.is_set():
            wire.send(b"a" * 500)
            await asyncio.sleep(0.005)
        is_problem(answer := await wire.response(), "limit")
        assert answer.status == status
    assert proxy.upstream.received == b""


async def test_empty_lines_before_a_request_are_no_request_and_cost_little(proxy: Scene) -> None:
    async with client(proxy.gateway.url) as wire:
        begun = time.monotonic()
        wire.send(b"\r\n" * 400_000 + GET)
        assert (await wire.response()).status == 200
        assert time.monotonic() - begun < 1.0
    async with client(proxy.gateway.url) as wire:
        for piece in (b"\r", b"\n", b"\r\n\r", b"\n" + GET[:4], GET[4:]):
            wire.send(piece)
            await asyncio.sleep(0.01)
        assert (await wire.response()).status == 200


# -- time (A22) -------------------------------------------------------------------------------------------------


async def test_a_head_that_drips_is_408_however_it_drips(proxy: Scene) -> None:
    async def drip(start: bytes) -> None:
        async with client(proxy.gateway.url) as wire:
            watch = Stopwatch()
            wire.send(start)
            while not wire.ended.is_set():
                wire.send(b"X")
                await asyncio.sleep(0.05)
            watch.about(HEAD_TIME)
            is_problem(answer := await wire.response(), "timeout")
            assert answer.status == 408
            assert answer.values(b"connection") == [b"close"]

    await asyncio.gather(*(drip(start) for start in (b"G", GET[:-2], b"GET / HTTP/1.1\r\n")))


async def test_a_connection_that_never_asks_is_closed_without_a_word(proxy: Scene) -> None:
    async def idle(dripped: bytes) -> None:
        async with client(proxy.gateway.url) as wire:
            watch = Stopwatch()
            while not wire.ended.is_set():
                wire.send(dripped)
                await asyncio.sleep(0.05)
            watch.about(HEAD_TIME)
            assert wire.received == b""

    await asyncio.gather(idle(b""), idle(b"\r\n"))


async def test_an_idle_connection_is_closed_without_a_word(proxy: Scene) -> None:
    async with client(proxy.gateway.url) as wire:
        wire.send(GET)
        await wire.response()
        watch = Stopwatch()
        assert await wire.rest() == b""
        watch.about(KEEPALIVE)


async def test_a_body_that_stops_is_408_and_leaves_the_upstream(proxy: Scene) -> None:
    async def stop(framing: bytes, part: bytes) -> None:
        async with client(proxy.gateway.url) as wire:
            wire.send(b"POST /a HTTP/1.1\r\nHost: gw\r\n" + framing + b"\r\n\r\n" + part)
            watch = Stopwatch()
            is_problem(answer := await wire.response(), "timeout")
            watch.about(BODY_IDLE)
            assert (answer.status, await wire.rest()) == (408, b"")

    sized, chunked = b"Content-Length: 10", b"Transfer-Encoding: chunked"
    await asyncio.gather(stop(sized, b""), stop(sized, b"12345"), stop(chunked, b"5\r\n123"))
    ends = [wire.ended.is_set for wire in proxy.upstream.wires]
    await until(lambda: all(end() for end in ends), 2.0, "the upstream connections' end")
    assert len(ends) == 3
    assert not proxy.upstream.requests


async def test_a_body_that_comes_slowly_but_comes_is_not_cut(proxy: Scene) -> None:
    async with client(proxy.gateway.url) as wire:
        wire.send(b"POST /a HTTP/1.1\r\nHost: gw\r\nContent-Length: 8\r\n\r\n")
        for _ in range(8):
            await asyncio.sleep(0.2)
            wire.send(b"x")
        assert (await wire.response()).status == 200


async def test_others_are_not_slowed_by_slow_clients(proxy: Scene) -> None:
    slow = [await dial(proxy.gateway.url) for _ in range(15)]
    for number, wire in enumerate(slow):
        wire.send(GET[:-2] if number % 2 else b"POST /slow HTTP/1.1\r\nHost: gw\r\nContent-Length: 10\r\n\r\n12345")
    for _ in range(10):
        begun = time.monotonic()
        assert (await proxy.ask(GET)).status == 200
        assert time.monotonic() - begun < 0.6
    for wire in slow:
        wire.close()


async def test_a_client_that_does_not_read_is_left_and_is_no_error_of_the_upstream(proxy: Scene) -> None:
    async def endless(wire: Wire) -> None:
        await wire.request()
        wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
        while True:
            await wire.write(b"x" * 65536)

    proxy.upstream.begin(endless)
    async with client(proxy.gateway.url) as wire:
        wire.stop_reading()
        wire.send(b"GET /endless HTTP/1.1\r\nHost: gw\r\n\r\n")
        assert (await proxy.logged(path="/endless"))["status"] == 499
        await until(proxy.upstream.wires[0].lost.is_set, 2.0, "the upstream connection's end")
        wire.read_on()
        await wire.rest()
        assert wire.lost.is_set() or wire.broken is None
    assert await proxy.metric("upstream_errors_total", route="/", reason="timeout") == 0


async def test_an_answer_that_nobody_fetches_does_not_hold_its_connection_for_ever(proxy: Scene) -> None:
    """All of it has left the upstream; what the client does not take lies in the gateway's buffer."""

    async def behave(wire: Wire) -> None:
        await wire.request()
        wire.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while not wire.stalled:
            wire.send(b"10000\r\n" + b"x" * 65536 + b"\r\n")
            await asyncio.sleep(0.002)
        wire.send(b"0\r\n\r\n")

    proxy.upstream.begin(behave)
    wire = await dial(proxy.gateway.url, receive_buffer=4096)
    wire.send(b"GET /unfetched HTTP/1.1\r\nHost: gw\r\n\r\n")
    await read_until_logged(proxy, wire, "/unfetched")
    await until(lambda: connections_of(proxy) == 0, 6.0, "no connection at the gateway")
    wire.close()


async def read_until_logged(proxy: Scene, wire: Wire, path: str) -> None:
    """Read no more of an answer than lets the gateway take the rest of it from the upstream."""
    while not any(f'"path":"{path}"' in line for line in proxy.gateway.log):
        wire.stop_reading()
        await asyncio.sleep(0.005)
        wire.read_on()
        await asyncio.sleep(0.001)
    wire.stop_reading()


def connections_of(proxy: Scene) -> int:
    """How many sockets the gateway process holds open to clients."""
    port = int(proxy.gateway.url.rpartition(":")[2])
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    # Local address, remote address, state (1: established; 8: the client has closed its side).
    return sum(1 for row in rows if int(row[1].split(":")[1], 16) == port and row[3] in ("01", "08"))


# -- connections (A22) ------------------------------------------------------------------------------------------


async def test_one_connection_too_many_is_503_and_a_free_place_is_used(proxy: Scene) -> None:
    await until(lambda: connections_of(proxy) == 0, 5.0, "no connection at the gateway")
    wires = [await dial(proxy.gateway.url) for _ in range(30)]
    try:
        async with client(proxy.gateway.url) as extra:
            is_problem(answer := await extra.response(), "limit")
            assert answer.status == 503
            assert answer.values(b"retry-after") == [b"1"]
            assert await extra.rest() == b""
        wires[0].send(GET)
        assert (await wires[0].response()).status == 200
        wires.pop().close()

        async def free() -> bool:
            return (await proxy.ask(GET)).status == 200

        await until(free, 2.0, "the free place")
    finally:
        for wire in wires:
            wire.close()


async def test_every_refusal_was_counted_under_its_code(proxy: Scene) -> None:
    counts = {
        dict(labels)["code"]: value
        for (name, labels), value in (await proxy.metrics()).items()
        if name == "opentv_proxy_requests_total"
    }
    assert {"414", "431", "408", "503", "499", "200"} <= set(counts)
    page = await ask(proxy.gateway.admin_url, b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
    assert b"limits: there are too many connections" in page.body
