"""Many requests, one token: one refresh for all, none for stale news, one login for a crowd at the door (B3)."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from proxy.sandbox import Sandbox
from proxy.sandbox.faults import Fault
from tests.support.gateway import running_gateway, until
from tests.support.rawclient import ask, client, dial
from tests.support.rawserver import RawServer, Wire, raw_server
from tests.support.relay import GET
from tests.support.signed import REFUSED, Signed, signed

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def here(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Signed]:
    async with signed(tmp_path_factory.mktemp("gateway")) as running:
        yield running


def slow_refresh(here: Signed, milliseconds: int) -> None:
    here.sandbox.state.add_fault("token", Fault("late", delay_ms=milliseconds))


async def test_two_hundred_rejections_at_once_cost_one_refresh_and_nobody_anything(here: Signed) -> None:
    crowd = 200
    everyone = asyncio.Barrier(crowd)

    async def together(wire: Wire) -> None:
        async with asyncio.timeout(10):
            await everyone.wait()
        wire.send(REFUSED)

    await here.begin(together)
    slow_refresh(here, 200)
    async with here.costing(refreshes=1, replayed=crowd):
        found = await asyncio.gather(*(ask(here.url, GET) for _ in range(crowd)))
    assert Counter(each.status for each in found) == {200: crowd}
    assert len(here.raw.requests) == 2 * crowd
    assert len(here.tokens) == 2


async def test_requests_that_come_during_the_refresh_go_through_in_the_end(here: Signed) -> None:
    await here.begin()
    slow_refresh(here, 300)
    async with here.costing(refreshes=1, replayed=6):
        asking = []
        for _ in range(6):
            asking.append(asyncio.create_task(ask(here.url, GET)))
            await asyncio.sleep(0.02)
        assert {each.status for each in await asyncio.gather(*asking)} == {200}


async def test_a_late_rejection_of_an_older_token_costs_no_refresh(here: Signed) -> None:
    released = asyncio.Event()

    async def late(wire: Wire) -> None:
        if wire.messages[-1].target == b"/late":
            await released.wait()
        wire.send(REFUSED)

    await here.begin(late)
    async with here.costing(refreshes=1, replayed=2), client(here.url) as wire:
        wire.send(GET.replace(b"/ ", b"/late "))
        await until(lambda: b"/late" in here.raw.received, 2.0, "the late one upstream")
        assert (await ask(here.url, GET)).status == 200
        released.set()
        assert (await wire.response()).status == 200
    assert len(here.tokens) == 2


async def test_a_client_that_leaves_during_the_refresh_costs_no_second_request_and_ends_no_refresh(
    here: Signed,
) -> None:
    await here.begin()
    slow_refresh(here, 400)
    async with here.costing(refreshes=1, replayed=1):
        before = await here.refreshes()
        leaver = await dial(here.url)
        leaver.send(GET)
        await here.raw.request(1)
        stayer = asyncio.create_task(ask(here.url, GET.replace(b"/ ", b"/stay ")))
        await here.raw.request(2)
        leaver.reset()
        assert (await stayer).status == 200
        await here.refreshed(before + 1)
    assert [each.target for each in here.raw.requests].count(b"/") == 1
    await here.relay.counted(0, "requests_in_flight")


async def test_a_second_rejected_token_is_cured_as_the_first_was(here: Signed) -> None:
    await here.begin()
    for _ in range(3):
        async with here.costing(refreshes=1, replayed=1):
            assert (await ask(here.url, GET)).status == 200
        here.dead.add(here.raw.requests[-1].values(b"authorization")[0])


async def test_pipelined_requests_are_each_replayed_and_answered_in_order(here: Signed) -> None:
    await here.begin()
    async with here.costing(refreshes=1, replayed=1), client(here.url) as wire:
        wire.send(b"".join(b"GET /%d HTTP/1.1\r\nHost: gw\r\n\r\n" % number for number in range(4)))
        for _ in range(4):
            assert (await wire.response()).status == 200
    assert [each.target for each in here.raw.requests] == [b"/0", b"/0", b"/1", b"/2", b"/3"]


async def test_a_missing_role_is_passed_on_and_refreshed_for_once(here: Signed) -> None:
    """Every token is refused, and yet 40 requests cost one refresh (B4)."""
    await here.begin(REFUSED, REFUSED)
    async with here.costing(refreshes=1, replayed=8, passed_on=40):
        first = await asyncio.gather(*(ask(here.url, GET) for _ in range(8)))
        rest = [await ask(here.url, GET) for _ in range(32)]
    assert {each.status for each in (*first, *rest)} == {401}


# -- a crowd at the door --------------------------------------------------------------------------------------------


def site(sandbox: Sandbox, raw: RawServer) -> dict[str, object]:
    opentv = {
        "system": "keycloak",
        "token_url": sandbox.token_url,
        "client_id": sandbox.client_id,
        "username": sandbox.username,
        "password": sandbox.password,
    }
    return {
        "identities": {"opentv": opentv},
        "routes": [{"path": "/", "upstream": raw.url, "identity": "opentv"}],
        "limits": {"connections_per_address": 2000},
    }


async def test_a_cold_start_under_a_thousand_requests_is_one_login(tmp_path: Path) -> None:
    async with Sandbox() as sandbox, raw_server() as raw:
        sandbox.state.add_fault("token", Fault("late", delay_ms=1500))
        async with running_gateway(site(sandbox, raw), tmp_path) as gateway:
            wires = [await dial(gateway.url) for _ in range(1000)]
            for wire in wires:
                wire.send(GET)
            async with asyncio.timeout(20):
                found = [await wire.response() for wire in wires]
            for wire in wires:
                wire.close()
        assert Counter(each.status for each in found) == {200: 1000}
        assert len(raw.requests) == 1000
        assert len(raw.wires) <= 256
        grants = Counter(call.grant for call in sandbox.state.token_calls if call.operation == "token")
        assert grants == {"password": 1}


async def test_without_a_token_and_a_provider_a_request_is_503_at_once(tmp_path: Path) -> None:
    async with Sandbox() as sandbox, raw_server() as raw:
        sandbox.state.add_fault("token", Fault("reply", times=None, status=503, body="down"))
        async with running_gateway(site(sandbox, raw), tmp_path) as gateway:
            await until(lambda: len(sandbox.state.token_calls) > 0, 5.0, "an attempt to log in")
            await asyncio.sleep(0.2)
            begun = asyncio.get_running_loop().time()
            found = await asyncio.gather(*(ask(gateway.url, GET) for _ in range(50)))
            assert asyncio.get_running_loop().time() - begun < 2.0
            assert {each.status for each in found} == {503}
            assert int(found[0].values(b"retry-after")[0]) >= 1
            assert b"urn:opentv-proxy:problem:token" in found[0].body
            assert raw.requests == []
            sandbox.state.clear_faults()

            async def served() -> bool:
                return (await ask(gateway.url, GET)).status == 200

            assert await until(served, 8.0, "the recovery") < 6.0
