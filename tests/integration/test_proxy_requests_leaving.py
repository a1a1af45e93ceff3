"""Clients that leave, or stop taking what they asked for: the upstream's work ends within 2 s, and it is no error
(A21, A25)."""

import asyncio
import fcntl
import socket
import struct
import termios
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import pytest_asyncio

from tests.support.gateway import until
from tests.support.proxied import Scene, scene
from tests.support.rawclient import client, dial
from tests.support.rawserver import OK, Wire
from tests.support.relay import memory

pytestmark = pytest.mark.asyncio(loop_scope="module")

LEFT = 2.0  # seconds within which the upstream's work has to end
MIB = 1024 * 1024


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Scene]:
    def routes(upstream: str) -> list[dict[str, Any]]:
        return [{"path": "/", "upstream": upstream, "identity": "opentv"}]

    async with scene(routes, tmp_path_factory.mktemp("leaving")) as one:
        yield one


@pytest.fixture
def proxy(shared: Scene) -> Scene:
    shared.upstream.begin()
    return shared


def get(path: str) -> bytes:
    return b"GET " + path.encode() + b" HTTP/1.1\r\nHost: gw\r\n\r\n"


async def silent(wire: Wire) -> None:
    """Reads the request and thinks about it for ever."""
    await wire.request()
    await wire.ended.wait()


async def endless(wire: Wire) -> None:
    """Answers with more than anybody reads, as fast as it is taken."""
    await wire.request()
    wire.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while True:
        await wire.write(b"10000\r\n" + b"x" * 65536 + b"\r\n")


async def deaf(wire: Wire) -> None:
    """Reads the head and nothing of the body."""
    await wire.head()
    wire.stop_reading()
    await wire.ended.wait()


async def counted_as_left(proxy: Scene, path: str, before: float, errors: dict[Any, float]) -> None:
    line = await proxy.logged(path=path)
    assert (line["status"], line["level"]) == (499, "info")
    method = line["method"]
    assert await proxy.metric("requests_total", route="/", method=method, code="499") == before + 1
    assert await upstream_errors(proxy) == errors
    complaints = [record for record in proxy.gateway.records if record["level"] in ("warning", "error", "critical")]
    assert [record for record in complaints if record["event"] != "configuration"] == []
    assert await proxy.metric("requests_in_flight") == 0


async def upstream_errors(proxy: Scene) -> dict[Any, float]:
    return {
        key: value for key, value in (await proxy.metrics()).items() if key[0] == "opentv_proxy_upstream_errors_total"
    }


@pytest.mark.parametrize("leave", [Wire.close, Wire.reset])
@pytest.mark.parametrize("behaviour", [silent, endless])
async def test_a_client_that_leaves_ends_the_upstreams_work(
    proxy: Scene, behaviour: Callable[[Wire], Any], leave: Callable[[Wire], None]
) -> None:
    proxy.upstream.begin(behaviour)
    path = f"/{behaviour.__name__}/{leave.__name__}"
    before = await proxy.metric("requests_total", route="/", method="GET", code="499")
    errors = await upstream_errors(proxy)
    async with client(proxy.gateway.url) as wire:
        wire.send(get(path))
        await proxy.upstream.request()
        await asyncio.sleep(0.05)
        leave(wire)
        await until(proxy.upstream.wires[0].ended.is_set, LEFT, "the upstream connection's end")
    await counted_as_left(proxy, path, before, errors)


@pytest.mark.parametrize("leave", [Wire.close, Wire.reset])
async def test_a_client_that_leaves_with_its_answer_unread_ends_the_upstreams_work(
    proxy: Scene, leave: Callable[[Wire], None]
) -> None:
    proxy.upstream.begin(endless)
    path = f"/unread/{leave.__name__}"
    before = await proxy.metric("requests_total", route="/", method="GET", code="499")
    errors = await upstream_errors(proxy)
    async with client(proxy.gateway.url, receive_buffer=4096) as wire:
        wire.stop_reading()
        wire.send(get(path))
        await proxy.upstream.request()
        await until(lambda: proxy.upstream.wires[0].stalled, 5.0, "back-pressure")
        leave(wire)
        await until(proxy.upstream.wires[0].ended.is_set, LEFT, "the upstream connection's end")
    await counted_as_left(proxy, path, before, errors)


@pytest.mark.parametrize("leave", [Wire.close, Wire.reset])
@pytest.mark.parametrize("framing", ["sized", "chunked"])
async def test_a_client_that_leaves_while_its_body_is_held_back_ends_the_upstreams_work(
    proxy: Scene, framing: str, leave: Callable[[Wire], None]
) -> None:
    proxy.upstream.begin(deaf)
    path = f"/upload/{framing}/{leave.__name__}"
    before = await proxy.metric("requests_total", route="/", method="POST", code="499")
    errors = await upstream_errors(proxy)
    line = b"Content-Length: 900000000" if framing == "sized" else b"Transfer-Encoding: chunked"
    async with client(proxy.gateway.url) as wire:
        wire.send(b"POST " + path.encode() + b" HTTP/1.1\r\nHost: gw\r\n" + line + b"\r\n\r\n")
        piece = b"10000\r\n" + b"x" * 65536 + b"\r\n" if framing == "chunked" else b"x" * 65536
        await stall(wire, piece)
        if leave is Wire.close:
            await all_arrived(wire, proxy.upstream.wires[0])
        begun = time.monotonic()
        leave(wire)
        await proxy.logged(path=path)
        assert time.monotonic() - begun < LEFT
        proxy.upstream.wires[0].read_on()
        await until(proxy.upstream.wires[0].ended.is_set, LEFT, "the upstream connection's end")
    await counted_as_left(proxy, path, before, errors)


async def stall(wire: Wire, piece: bytes) -> int:
    """Send until nobody takes any more for a while; how many pieces that were."""
    sent = 0
    while True:
        try:
            async with asyncio.timeout(0.2):
                await wire.write(piece)
                sent += 1
        except TimeoutError:
            return sent


async def all_arrived(wire: Wire, upstream: Wire) -> None:
    """Until nothing of what the client sent is left on its side: else its end would wait behind that."""
    assert wire.transport is not None
    sock = wire.transport.get_extra_info("socket").fileno()
    async with asyncio.timeout(5.0):
        while wire.transport.get_write_buffer_size() or fcntl.ioctl(sock, termios.TIOCOUTQ, b"0000") != bytes(4):
            upstream.read_on()
            await asyncio.sleep(0.002)
            upstream.stop_reading()
            await asyncio.sleep(0.01)


async def test_an_upload_is_taken_no_faster_than_the_upstream_takes_it(proxy: Scene) -> None:
    proxy.upstream.begin(deaf)
    async with client(proxy.gateway.url) as wire:
        wire.send(b"POST /held HTTP/1.1\r\nHost: gw\r\nContent-Length: 900000000\r\n\r\n")
        pieces = await stall(wire, b"x" * 65536)
        assert pieces * 65536 < 24 * MIB  # two pairs of the kernel's socket buffers, and little of the gateway's


async def test_a_client_that_leaves_before_its_body_is_whole_leaves_half_a_request(proxy: Scene) -> None:
    before = await proxy.metric("requests_total", route="/", method="POST", code="499")
    errors = await upstream_errors(proxy)
    async with client(proxy.gateway.url) as wire:
        wire.send(b"POST /half HTTP/1.1\r\nHost: gw\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
        await until(lambda: b"hello" in proxy.upstream.received, 5.0, "the first half")
        wire.end()
        await until(proxy.upstream.wires[0].ended.is_set, LEFT, "the upstream connection's end")
    assert b"0\r\n\r\n" not in proxy.upstream.received
    await counted_as_left(proxy, "/half", before, errors)


async def test_a_client_that_is_gone_before_it_is_looked_at_leaves_no_trace(proxy: Scene) -> None:
    """Its address is not known any more; it must not count as one that is not allowed."""
    address = proxy.gateway.url.removeprefix("http://").split(":")

    def come_and_go() -> None:
        with socket.create_connection((address[0], int(address[1]))) as sock:
            sock.sendall(get("/gone"))
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    for _ in range(100):
        come_and_go()
    assert (await proxy.ask(get("/here"))).status == 200
    assert await proxy.metric("client_denied_total", reason="address") == 0


async def test_a_client_that_only_closed_its_half_gets_an_answer_that_comes_soon(proxy: Scene) -> None:
    async def soon(wire: Wire) -> None:
        await wire.request()
        await asyncio.sleep(0.3)
        wire.send(OK)

    proxy.upstream.begin(soon)
    async with client(proxy.gateway.url) as wire:
        wire.send(get("/soon") + get("/sooner"))
        wire.end()
        assert [(await wire.response()).status for _ in range(2)] == [200, 200]
        assert await wire.rest() == b""


async def test_a_client_that_closed_its_half_is_not_waited_for_any_longer(proxy: Scene) -> None:
    proxy.upstream.begin(silent)
    async with client(proxy.gateway.url) as wire:
        wire.send(get("/half-closed"))
        await proxy.upstream.request()
        wire.end()
        await until(proxy.upstream.wires[0].ended.is_set, LEFT, "the upstream connection's end")
    assert (await proxy.logged(path="/half-closed"))["status"] == 499


async def test_pipelined_answers_that_nobody_reads_do_not_pile_up(proxy: Scene) -> None:
    """A second answer must not begin to gather in the gateway while the first has not been taken."""
    begun: list[bytes] = []

    async def behave(wire: Wire) -> None:
        begun.append((await wire.request()).target)
        wire.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        if len(begun) == 1:
            while not wire.stalled:
                wire.send(b"10000\r\n" + b"x" * 65536 + b"\r\n")
                await asyncio.sleep(0.002)
        else:
            for _ in range(1000):
                await wire.write(b"10000\r\n" + b"y" * 65536 + b"\r\n")
        wire.send(b"0\r\n\r\n")

    proxy.upstream.begin(behave)
    wire = await dial(proxy.gateway.url, receive_buffer=4096)
    try:
        wire.send(get("/first") + get("/second"))
        while not any('"path":"/first"' in line for line in proxy.gateway.log):
            wire.stop_reading()
            await asyncio.sleep(0.005)
            wire.read_on()
            await asyncio.sleep(0.001)
        wire.stop_reading()
        before = memory(proxy.gateway.pid, "VmRSS")
        await asyncio.sleep(1.0)
        # The kernel's socket buffers may take tens of MiB of it, the gateway's own next to nothing.
        assert memory(proxy.gateway.pid, "VmRSS") - before < 8 * MIB
        wire.read_on()
        async with asyncio.timeout(10):
            assert set((await wire.response()).body) == {ord("x")}
            assert len((await wire.response()).body) == 1000 * 65536
    finally:
        wire.close()


async def test_a_slow_reader_gets_the_whole_of_a_last_answer(proxy: Scene) -> None:
    """The gateway is done with it and the connection is to be closed, but the client takes its time."""
    size = 0

    async def behave(wire: Wire) -> None:
        nonlocal size
        await wire.request()
        wire.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while not wire.stalled:
            wire.send(b"10000\r\n" + b"x" * 65536 + b"\r\n")
            size += 65536
            await asyncio.sleep(0.002)
        wire.send(b"0\r\n\r\n")

    proxy.upstream.begin(behave)
    wire = await dial(proxy.gateway.url, receive_buffer=4096)
    try:
        wire.send(b"GET /last HTTP/1.1\r\nHost: gw\r\nConnection: close\r\n\r\n")
        while not any('"path":"/last"' in line for line in proxy.gateway.log):
            wire.stop_reading()
            await asyncio.sleep(0.005)
            wire.read_on()
            await asyncio.sleep(0.001)
        wire.stop_reading()
        await asyncio.sleep(2.8)
        wire.read_on()
        async with asyncio.timeout(10):
            assert len((await wire.response()).body) == size
            assert await wire.rest() == b""
    finally:
        wire.close()
