"""The end of a gateway that a load balancer watches: it says that it goes, then serves on for a while, then finishes
what it has begun (B13)."""

import asyncio
import contextlib
import os
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp

from proxy.sandbox import Fault, Sandbox
from tests.support.gateway import Gateway, running_gateway, until
from tests.support.rawserver import OK, Wire, raw_server
from tests.support.stores import key_file

DRAIN = 5.0
NOTICE = DRAIN / 5
CROWD = 50


def configured(sandbox: Sandbox, upstream: str, folder: Path) -> dict[str, Any]:
    opentv = {
        "system": "keycloak",
        "token_url": sandbox.token_url,
        "client_id": sandbox.client_id,
        "username": sandbox.username,
        "password": sandbox.password,
    }
    return {
        "identities": {"opentv": opentv},
        "routes": [{"path": "/", "upstream": upstream, "identity": "opentv"}],
        "store": {"file": {"path": str(folder / "tokens"), "key_file": str(key_file(folder))}},
        "shutdown": {"drain": DRAIN},
    }


async def status_of(http: aiohttp.ClientSession, url: str) -> int:
    """0 when nobody listens."""
    try:
        async with http.get(url) as answer:
            await answer.read()
            return answer.status
    except aiohttp.ClientConnectorError:
        return 0


def slow(go_on: asyncio.Event) -> Any:
    async def behave(wire: Wire) -> None:
        message = await wire.request()
        if message.target == b"/slow":
            await go_on.wait()
        wire.send(OK)

    return behave


def terminate(gateway: Gateway) -> float:
    os.kill(gateway.pid, signal.SIGTERM)
    return time.monotonic()


async def test_fifty_requests_and_a_refresh_in_flight_are_finished_and_the_balancer_is_told_in_time(
    tmp_path: Path,
) -> None:
    go_on = asyncio.Event()
    async with (
        Sandbox() as sandbox,
        raw_server(slow(go_on)) as raw,
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0, force_close=True)) as http,
    ):
        config = configured(sandbox, raw.url, tmp_path)
        async with running_gateway(config, tmp_path) as gateway:
            ready, url = f"{gateway.admin_url}/readyz", gateway.url
            assert await status_of(http, url) == 200
            assert await status_of(http, ready) == 200
            crowd = [asyncio.create_task(status_of(http, f"{url}/slow")) for _ in range(CROWD)]
            await until(lambda: raw.received.count(b"GET /slow") == CROWD, 5.0, "all of them upstream")
            sandbox.state.add_fault("token", Fault("late", delay_ms=2000))
            refresh = asyncio.create_task(http.post(f"{gateway.admin_url}/identities/opentv/refresh"))
            await until(lambda: sandbox.state.counters["refreshes"] == 1, 3.0, "the refresh, rotated and not answered")

            told = terminate(gateway)
            seen = Counter[tuple[int, int]]()
            while (found := (await status_of(http, ready), await status_of(http, url))) != (503, 0):
                seen[found] += 1
                assert time.monotonic() - told < 2 * NOTICE, seen
                await asyncio.sleep(0.01)
            closed = time.monotonic() - told
            assert seen[503, 200] > 5
            assert set(seen) <= {(200, 200), (503, 200)}  # the very first look may still be the one before
            assert NOTICE <= closed < NOTICE + 0.8
            go_on.set()
            assert Counter(await asyncio.gather(*crowd)) == {200: CROWD}
            assert await gateway.stop() == 0
            await asyncio.wait((refresh,))
        async with running_gateway(config, tmp_path) as successor:
            assert await status_of(http, successor.url) == 200
        counted = sandbox.state.counters
        assert (counted["logins"], counted["reused_refresh_tokens"], counted["logouts"]) == (1, 0, 0)


@contextlib.asynccontextmanager
async def watched(folder: Path) -> AsyncIterator[tuple[Gateway, aiohttp.ClientSession]]:
    async with (
        Sandbox() as sandbox,
        aiohttp.ClientSession() as http,
        running_gateway(configured(sandbox, sandbox.url, folder), folder) as gateway,
    ):
        yield gateway, http


async def test_where_nobody_asks_for_readiness_the_port_closes_at_once(tmp_path: Path) -> None:
    async with watched(tmp_path) as (gateway, http):
        assert await status_of(http, f"{gateway.url}/adm/v1/x") == 200
        begun = terminate(gateway)
        assert await gateway.stop() == 0
        assert time.monotonic() - begun < NOTICE


async def test_a_person_who_presses_ctrl_c_waits_for_no_balancer(tmp_path: Path) -> None:
    async with watched(tmp_path) as (gateway, http):
        await until(lambda: _ready(http, gateway), 5.0, "readiness")
        os.kill(gateway.pid, signal.SIGINT)
        begun = time.monotonic()
        await until(lambda: gateway.exit_code is not None, NOTICE, "the end")
        assert time.monotonic() - begun < NOTICE


async def _ready(http: aiohttp.ClientSession, gateway: Gateway) -> bool:
    return await status_of(http, f"{gateway.admin_url}/readyz") == 200


async def test_answers_given_during_the_notice_end_their_connection(tmp_path: Path) -> None:
    async with watched(tmp_path) as (gateway, http):
        await until(lambda: _ready(http, gateway), 5.0, "readiness")
        terminate(gateway)
        await until(lambda: "shutting down" in gateway.words(), 2.0, "the end's beginning")
        async with http.get(f"{gateway.url}/adm/v1/x") as answer:
            assert (answer.status, answer.headers["Connection"]) == (200, "close")
