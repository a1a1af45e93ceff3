"""What an attacker tried and must not get: sockets, memory or time that no limit bounds."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.support.gateway import until
from tests.support.proxied import Scene, scene
from tests.support.rawserver import Message, Wire

pytestmark = pytest.mark.asyncio(loop_scope="module")

GET = b"GET /a HTTP/1.1\r\nHost: gw\r\n\r\n"
UPGRADE = b"GET /a HTTP/1.1\r\nHost: gw\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
LIMITS = {"connections": 20, "head_time": "1s", "keepalive": "1s"}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def proxy(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Scene]:
    def routes(upstream: str) -> list[dict[str, Any]]:
        return [{"path": "/", "upstream": upstream, "identity": None}]

    async with scene(routes, tmp_path_factory.mktemp("attacks"), {"limits": LIMITS}) as one:
        yield one


def descriptors(proxy: Scene) -> int:
    return len(list(Path(f"/proc/{proxy.gateway.pid}/fd").iterdir()))


async def test_a_tunnel_full_both_ways_leaves_nothing_behind_when_its_client_goes(proxy: Scene) -> None:
    async def echo(wire: Wire) -> None:
        wire.messages.append(Message(await wire.head(), b"", b"", b""))
        wire.send(SWITCH)
        while True:
            wire.send(await wire.read(1) + wire.take(len(wire.unread)))

    proxy.upstream.begin(echo)
    before = descriptors(proxy)
    for _ in range(5):
        wire = await proxy.dial()
        wire.send(UPGRADE)
        assert (await wire.response()).status == 101
        wire.send(b"x" * 4_000_000)
        await asyncio.sleep(0.05)
        wire.reset()
    await until(lambda: descriptors(proxy) <= before + 1, 15.0, "the tunnels' sockets are closed")
    assert await proxy.metric("upstream_connections", route="/", state="active") == 0
    proxy.upstream.begin()


async def test_requests_sent_ahead_of_their_answers_are_not_taken_in_without_end(proxy: Scene) -> None:
    proxy.upstream.begin()
    wire = await proxy.dial()
    sent = 0
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(1.5):
            while sent < 40_000_000:
                await wire.write(GET * 2000)
                sent += len(GET) * 2000
    # What the gateway holds and what fits into the kernel's buffers on the way; without the bound, all of it.
    assert sent < 15_000_000
    wire.reset()
    await wire.lost.wait()
    proxy.upstream.begin()


async def test_empty_lines_one_byte_at_a_time_do_not_keep_a_connection(proxy: Scene) -> None:
    wire = await proxy.dial()
    async with asyncio.timeout(6):
        for byte in b"\r\n" * 20:
            wire.send(bytes([byte]))
            await asyncio.sleep(0.25)
            if wire.ended.is_set():
                break
    assert wire.ended.is_set()
    wire.reset()


async def test_one_connection_too_many_is_told_and_closed_whatever_it_goes_on_sending(proxy: Scene) -> None:
    held = [await proxy.dial() for _ in range(20)]
    await asyncio.sleep(0.1)
    wire = await proxy.dial()
    assert (await wire.response()).status == 503
    await until(wire.ended.is_set, 2.0, "the connection is closed")
    for each in [wire, *held]:
        each.reset()
        await each.lost.wait()
