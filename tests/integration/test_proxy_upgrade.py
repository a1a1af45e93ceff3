"""WebSocket through the gateway: a tunnel both ways, closed cleanly; nothing else becomes one (A15)."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from tests.support.gateway import until
from tests.support.rawclient import client, dial
from tests.support.rawserver import OK, Behaviour, Message, Wire, answering
from tests.support.relay import GET, problem
from tests.support.signed import REFUSED, Signed, signed

pytestmark = pytest.mark.asyncio(loop_scope="module")

MIB = 1 << 20
FIELDS = b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: abc\r\nSec-WebSocket-Version: 13\r\n"
ASK = b"GET /ws HTTP/1.1\r\nHost: gw\r\n" + FIELDS + b"\r\n"
SWITCH = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: xyz\r\nX-Hop: 1\r\nConnection: X-Hop\r\n\r\n"
)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def here(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Signed]:
    routes: list[dict[str, Any]] = [
        {"path": "/ws", "timeouts": {"response": "600ms", "idle": "600ms"}},
        {"path": "/box", "upstream": "sandbox", "strip_prefix": True},
    ]
    async with signed(tmp_path_factory.mktemp("gateway"), routes) as running:
        yield running


def tunnel(then: Behaviour, early: bytes = b"") -> Behaviour:
    """An upstream that switches, sends ``early`` right behind it, and goes on as ``then``."""

    async def behave(wire: Wire) -> None:
        wire.messages.append(Message(await wire.head(), b"", b"", b""))
        wire.send(SWITCH + early)
        await then(wire)

    return behave


async def echo(wire: Wire) -> None:
    while True:
        wire.send(await wire.read(1) + wire.take(len(wire.unread)))


async def opened(here: Signed, wire: Wire, behaviour: Behaviour, early: bytes = b"") -> Message:
    here.raw.begin(behaviour)
    wire.send(ASK + early)
    found = await wire.response()
    assert found.status == 101
    return found


async def test_the_handshake_passes_with_its_own_fields_and_the_token(here: Signed) -> None:
    async with client(here.url) as wire:
        found = await opened(here, wire, tunnel(echo))
        assert found.values(b"sec-websocket-accept") == [b"xyz"]
        assert (found.values(b"upgrade"), found.values(b"connection")) == ([b"websocket"], [b"Upgrade"])
        assert found.values(b"x-hop") == []
        (sent,) = here.raw.wires[0].messages
        assert (sent.values(b"upgrade"), sent.values(b"connection")) == ([b"websocket"], [b"Upgrade"])
        assert sent.values(b"sec-websocket-key") == [b"abc"]
        assert sent.values(b"authorization")[0].startswith(b"Bearer ")


async def test_bytes_pass_both_ways_whatever_they_are(here: Signed) -> None:
    data = bytes(range(256)) * 2048 + b"HTTP/1.1 200 OK\r\n\r\nGET / HTTP/1.1\r\n\r\n"
    async with client(here.url) as wire:
        await opened(here, wire, tunnel(echo))
        for _ in range(3):
            wire.send(data)
            assert await wire.read(len(data)) == data


async def test_bytes_that_come_with_the_handshake_pass_in_order(here: Signed) -> None:
    async with client(here.url) as wire:
        await opened(here, wire, tunnel(echo, early=b"welcome "), early=b"impatient ")
        wire.send(b"later")
        assert await wire.read(23) == b"welcome impatient later"
    assert len(here.raw.wires) == 1  # what came early was never read as a request


async def test_a_silent_tunnel_stays_open(here: Signed) -> None:
    async with client(here.url) as wire:
        await opened(here, wire, tunnel(echo))
        await asyncio.sleep(1.2)
        wire.send(b"still here")
        assert await wire.read(10) == b"still here"


async def test_what_the_upstream_sent_before_it_left_arrives(here: Signed) -> None:
    async def farewell(wire: Wire) -> None:
        wire.send(b"bye" * 100_000)
        wire.close()

    async with client(here.url) as wire:
        await opened(here, wire, tunnel(farewell))
        assert await wire.rest() == b"bye" * 100_000
    await here.relay.counted(0, "requests_in_flight")


async def test_what_the_client_sent_before_it_left_arrives(here: Signed) -> None:
    async def slowly(wire: Wire) -> None:
        wire.stop_reading()
        await asyncio.sleep(0.2)
        wire.read_on()
        await wire.rest()

    wire = await dial(here.url)
    await opened(here, wire, tunnel(slowly))
    there = here.raw.wires[0]
    wire.send(b"x" * (4 * MIB))
    wire.close()
    async with asyncio.timeout(5):
        await there.ended.wait()
    assert len(there.received) - there.received.index(b"\r\n\r\n") - 4 == 4 * MIB
    await here.relay.counted(0, "requests_in_flight")


@pytest.mark.parametrize("side", ["client", "upstream"])
async def test_a_side_that_breaks_off_ends_the_other(here: Signed, side: str) -> None:
    async with client(here.url) as wire:
        await opened(here, wire, tunnel(echo))
        one, other = (wire, here.raw.wires[0]) if side == "client" else (here.raw.wires[0], wire)
        one.reset()
        await until(other.ended.is_set, 2.0, "the other side's end")
    await here.relay.counted(0, "requests_in_flight")
    await here.relay.counted(0, "upstream_connections", route="/ws", state="active")


async def test_a_tunnel_is_counted_once_as_101(here: Signed) -> None:
    before = await here.relay.metric("requests_total", route="/ws", code="101")
    async with client(here.url) as wire:
        await opened(here, wire, tunnel(echo))
        await here.relay.counted(1, "requests_in_flight")
    await here.relay.counted(before + 1, "requests_total", route="/ws", code="101")


@pytest.mark.parametrize("slow", ["client", "upstream"])
async def test_a_side_that_does_not_read_stops_the_other(here: Signed, slow: str) -> None:
    async def stalled(wire: Wire) -> None:
        if slow == "upstream":
            wire.stop_reading()
        else:
            wire.send(b"x" * (48 * MIB))
        await wire.lost.wait()

    async with client(here.url) as wire:
        await opened(here, wire, tunnel(stalled))
        before = here.relay.forget_peak()
        there = here.raw.wires[0]
        sender = there if slow == "client" else wire
        if slow == "client":
            wire.stop_reading()
        else:
            wire.send(b"x" * (48 * MIB))
        await asyncio.sleep(0.4)
        assert here.relay.resident() - before < 16 * MIB
        assert sender.transport is not None
        assert sender.transport.get_write_buffer_size() > 24 * MIB
        wire.reset()
        there.reset()


async def test_a_refused_upgrade_stays_http(here: Signed) -> None:
    here.raw.begin(answering(b"HTTP/1.1 426 No\r\nUpgrade: h2c\r\nContent-Length: 2\r\n\r\nno", OK))
    async with client(here.url) as wire:
        wire.send(ASK + GET)
        found = await wire.response()
        assert (found.status, found.body, found.values(b"upgrade")) == (426, b"no", [])
        assert (await wire.response()).body == b"ok"


async def test_a_rejected_token_is_replaced_and_the_upgrade_asked_for_again(here: Signed) -> None:
    async def switch(wire: Wire) -> None:
        wire.send(SWITCH)
        await echo(wire)

    for _ in range(2):  # the second time too: the first cure ended the spacing of refreshes
        await here.begin(REFUSED, switch)
        async with here.costing(refreshes=1, replayed=1), client(here.url) as wire:
            wire.send(ASK)
            assert (await wire.response()).status == 101
            wire.send(b"hello")
            assert await wire.read(5) == b"hello"
        here.dead.add(here.raw.requests[-1].values(b"authorization")[0])
        async with here.costing(refreshes=1, replayed=1), client(here.url) as wire:
            wire.send(ASK)
            assert (await wire.response()).status == 101


ORDINARY = {
    "h2c": b"GET / HTTP/1.1\r\nHost: gw\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
    b"HTTP2-Settings: AA\r\n\r\n",
    "h2c among others": b"GET / HTTP/1.1\r\nHost: gw\r\nConnection: Upgrade\r\nUpgrade: websocket, h2c\r\n\r\n",
    "two fields": b"GET / HTTP/1.1\r\nHost: gw\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nUpgrade: h2c\r\n\r\n",
    "TLS": b"OPTIONS / HTTP/1.1\r\nHost: gw\r\nConnection: Upgrade\r\nUpgrade: TLS/1.0\r\n\r\n",
    "not named by Connection": b"GET / HTTP/1.1\r\nHost: gw\r\nUpgrade: websocket\r\n\r\n",
    "with a body": b"GET / HTTP/1.1\r\nHost: gw\r\n" + FIELDS + b"Content-Length: 2\r\n\r\nxx",
    "by POST": b"POST / HTTP/1.1\r\nHost: gw\r\n" + FIELDS + b"Content-Length: 0\r\n\r\n",
    "from HTTP/1.0": b"GET / HTTP/1.0\r\nHost: gw\r\n" + FIELDS + b"\r\n",
}


@pytest.mark.parametrize("name", ORDINARY)
async def test_anything_else_is_no_upgrade_and_passes_as_an_ordinary_request(here: Signed, name: str) -> None:
    here.raw.begin(answering(OK))
    async with client(here.url) as wire:
        wire.send(ORDINARY[name])
        assert (await wire.response()).body == b"ok"
    (sent,) = here.raw.requests
    assert (sent.values(b"upgrade"), sent.values(b"connection"), sent.values(b"http2-settings")) == ([], [], [])


@pytest.mark.parametrize("name", ORDINARY)
async def test_a_switch_nobody_asked_for_is_502(here: Signed, name: str) -> None:
    before = await here.relay.errors("protocol")
    here.raw.begin(answering(SWITCH + b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison"))
    async with client(here.url) as wire:
        wire.send(ORDINARY[name])
        found = await wire.response()
        assert found.status == 502
        problem(found)
    assert await here.relay.errors("protocol") == before + 1
    await until(here.raw.wires[0].ended.is_set, 2.0, "the connection to be dropped")


@pytest.mark.parametrize("field", [b"Upgrade: h2c\r\n", b"", b"Upgrade: websocket, h2c\r\n"])
async def test_a_switch_to_another_protocol_is_502(here: Signed, field: bytes) -> None:
    here.raw.begin(answering(SWITCH.replace(b"Upgrade: websocket\r\n", field)))
    async with client(here.url) as wire:
        wire.send(ASK)
        found = await wire.response()
        assert found.status == 502
        problem(found)


async def test_a_real_websocket_works_end_to_end(here: Signed) -> None:
    url = here.url.replace("http:", "ws:")
    async with aiohttp.ClientSession() as http, http.ws_connect(f"{url}/box/ws", max_msg_size=0) as socket:
        for message in ("hello", "ü" * 10_000):
            await socket.send_str(message)
            assert (await socket.receive(5)).data == message
        await socket.send_bytes(b"\x00" * MIB)
        assert (await socket.receive(5)).data == b"\x00" * MIB
        await socket.send_str("last")
        assert (await socket.receive(5)).data == "last"
        assert await socket.close()
        assert socket.close_code == 1000
