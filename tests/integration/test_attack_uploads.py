"""Requests that drip their bodies cannot have all connections to an upstream."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.support.gateway import until
from tests.support.rawclient import ask, dial
from tests.support.rawserver import OK, Wire, answering
from tests.support.relay import GET, Relay, relay

pytestmark = pytest.mark.asyncio(loop_scope="module")

UPLOAD = b"PUT /four HTTP/1.1\r\nHost: gw\r\nContent-Length: 10\r\n\r\n"
FOUR = GET.replace(b"GET / ", b"GET /four ")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def here(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Relay]:
    four = {"path": "/four", "max_connections": 4, "replay_limit": "1KiB", "timeouts": {"connect": "1500ms"}}
    async with relay(tmp_path_factory.mktemp("gateway"), [four]) as running:
        yield running


@contextlib.asynccontextmanager
async def uploads(here: Relay, count: int) -> AsyncIterator[list[Wire]]:
    """Half-sent uploads, two of which have connections."""
    here.raw.begin(answering(OK))
    wires = [await dial(here.gateway.url) for _ in range(count)]
    for wire in wires:
        wire.send(UPLOAD + b"12345")
    await until(lambda: here.raw.received.count(b"12345") == min(count, 2), 2.0, "the first of them upstream")
    yield wires
    for wire in wires:
        wire.reset()
        await wire.lost.wait()


async def test_dripping_uploads_leave_connections_to_requests_that_have_come_whole(here: Relay) -> None:
    async with uploads(here, 8):
        for request in (FOUR, UPLOAD + b"1234567890"):
            begun = asyncio.get_running_loop().time()
            assert [
                each.status for each in await asyncio.gather(*(ask(here.gateway.url, request) for _ in range(5)))
            ] == [200] * 5
            assert asyncio.get_running_loop().time() - begun < 1.0
        assert here.raw.received.count(b"12345") - here.raw.received.count(b"1234567890") == 2


async def test_an_upload_whose_turn_comes_goes_through(here: Relay) -> None:
    async with uploads(here, 5) as wires:
        for wire in wires[:2]:
            wire.send(b"67890")
            assert (await wire.response()).status == 200
        await until(lambda: here.raw.received.count(b"12345") == 4, 1.0, "the next two")
        for wire in wires[2:4]:
            wire.reset()
        await until(lambda: here.raw.received.count(b"12345") == 5, 1.0, "the last, as the others have left")
        wires[4].send(b"67890")
        assert (await wires[4].response()).status == 200


async def test_an_upload_that_comes_whole_while_it_waits_waits_no_longer(here: Relay) -> None:
    async with uploads(here, 3) as wires:
        for wire in wires:  # which of them waits, nobody knows
            wire.send(b"67890")
            assert (await wire.response()).status == 200


async def test_an_upload_whose_turn_does_not_come_is_504_in_words(here: Relay) -> None:
    async with uploads(here, 3) as wires:
        asking = [asyncio.create_task(wire.response()) for wire in wires]
        done, waiting = await asyncio.wait(asking, timeout=4.0, return_when=asyncio.FIRST_COMPLETED)
        for task in waiting:
            task.cancel()
        answer = done.pop().result()
        assert answer.status == 504
        assert b"the 2 connections to the upstream that requests may have whose bodies are still coming" in answer.body
        assert answer.values(b"proxy-status") == [b"opentv-proxy; error=connection_limit_reached"]
    await here.counted(0, "upstream_connections", route="/four", state="active")


async def test_nothing_of_all_this_is_counted_for_ever(here: Relay) -> None:
    """After a hundred uploads that end in every way, the next two have their places."""
    for turn in range(25):
        async with uploads(here, 4) as wires:
            for number, wire in enumerate(wires):
                if (turn + number) % 3 == 0:
                    wire.send(b"67890")
                elif (turn + number) % 3 == 1:
                    wire.reset()
                else:
                    wire.end()
    async with uploads(here, 2):
        pass
