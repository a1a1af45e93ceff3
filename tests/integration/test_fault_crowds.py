"""What happens often, under load: tokens that expire by the thousand, configurations that change by the hundred."""

import asyncio
import contextlib
import time
from collections import Counter, deque
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml

from proxy.sandbox import Sandbox, SandboxSettings
from tests.support.fleet import LONG, tell
from tests.support.gateway import Gateway, running_gateway, until
from tests.support.rawclient import dial
from tests.support.rawserver import Wire

EXPIRIES = 1000 if LONG else 100
IDENTITIES = 40
RELOADS = 100
RATE = 500
CALLERS = 20


def identity(sandbox: Sandbox, **changes: Any) -> dict[str, Any]:
    return {
        "system": "keycloak",
        "token_url": sandbox.token_url,
        "client_id": sandbox.client_id,
        "username": sandbox.username,
        "password": sandbox.password,
        **changes,
    }


async def test_a_thousand_expiries_under_load_fail_no_request_and_present_no_refresh_token_twice(
    request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """Tokens of 2 s. Half of the identities renew ahead; the others only when a request finds the token dead."""
    async with (
        Sandbox(SandboxSettings(access_life=2)) as sandbox,
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http,
    ):
        sandbox.state.token_calls = deque()
        ways = ({"min_interval": "500ms"}, {"min_interval": "1h"})
        names = [f"n{number}" for number in range(IDENTITIES)]
        config = {
            "identities": {name: identity(sandbox, refresh=ways[i % 2]) for i, name in enumerate(names)},
            "routes": [
                {"path": f"/{name}", "strip_prefix": True, "upstream": sandbox.url, "identity": name} for name in names
            ],
            "log": {"access": "off"},
        }
        statuses = Counter[int]()
        counted = sandbox.state.counters
        async with running_gateway(config, tmp_path) as gateway:
            begun = time.monotonic()
            enough = asyncio.Event()

            async def ask_on(name: str) -> None:
                while not enough.is_set():
                    async with http.get(f"{gateway.url}/{name}/adm/v1/x") as answer:
                        await answer.read()
                        statuses[answer.status] += 1
                    await asyncio.sleep(0.2)

            asking = [asyncio.create_task(ask_on(name)) for name in names]
            await until(lambda: counted["refreshes"] >= EXPIRIES, 300.0, f"{EXPIRIES} renewals")
            enough.set()
            await asyncio.gather(*asking)
            took = time.monotonic() - begun
        presented = Counter(
            call.form["refresh_token"] for call in sandbox.state.token_calls if call.grant == "refresh_token"
        )
        assert set(statuses) == {200}, statuses
        assert {name: n for name, n in counted.items() if name.startswith("api_rejections")} == {}
        assert set(presented.values()) == {1}
        assert (counted["logins"], counted["reused_refresh_tokens"]) == (IDENTITIES, 0)
        tell(request, expiries=counted["refreshes"], requests=statuses.total(), seconds=round(took, 1))


class Upstream(asyncio.Protocol):
    """Answers every request at once; notes those without a token."""

    unsigned = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        Upstream.unsigned += b"\r\nAuthorization: Bearer " not in data
        self._transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")


@contextlib.asynccontextmanager
async def upstream() -> AsyncIterator[str]:
    Upstream.unsigned = 0
    server = await asyncio.get_running_loop().create_server(Upstream, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


def changing(sandbox: Sandbox, url: str, key: str, number: int) -> dict[str, Any] | str:
    """The number-th configuration: other routes, another key beside the callers', another identity each time. Every
    fifth is broken."""
    if number % 5 == 4:
        return "routes: ["
    second = f"second{number % 3}"
    return {
        "listen": "127.0.0.1:0",
        "admin": "127.0.0.1:0",
        "clients": {"api_keys": {"keys": [key, f"key-number-{number}-of-many"]}},
        "identities": {
            "opentv": identity(sandbox, timeout=5 + number % 2),
            second: identity(sandbox, client_id="ua-grant"),
        },
        "routes": [
            {"path": "/", "upstream": url, "identity": "opentv", "max_connections": 100 + number % 2},
            {"path": f"/only/{number}", "upstream": url, "identity": second},
        ],
        "log": {"access": "off"},
    }


async def test_a_hundred_reloads_under_load_fail_no_request_and_broken_files_change_nothing(
    request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    key = "the-key-that-callers-have"
    async with Sandbox() as sandbox, upstream() as url, aiohttp.ClientSession(headers={"X-Api-Key": key}) as http:
        sandbox.state.token_calls = deque()
        first = changing(sandbox, url, key, 0)
        assert isinstance(first, dict)
        async with running_gateway(first, tmp_path) as gateway, load(gateway, key) as statuses:
            begun = time.monotonic()
            for number in range(1, RELOADS + 1):
                config = changing(sandbox, url, key, number)
                await reloaded(gateway, config if isinstance(config, str) else yaml.safe_dump(config))
                if isinstance(config, dict):
                    in_force = number
                async with http.get(f"{gateway.url}/only/{in_force}") as answer:
                    assert answer.status == 200
                async with http.get(f"{gateway.admin_url}/status") as answer:
                    status = await answer.json()
                assert status["routes"][1]["path"] == f"/only/{in_force}"
                assert status["config"]["reload_ok"] is isinstance(config, dict)
                assert status["identities"]["opentv"]["state"] == "fresh"
            took = time.monotonic() - begun
        assert set(statuses) == {200}, statuses
        assert Upstream.unsigned == 0
        # A changed time-out is no other session; a renamed identity is one.
        logins = Counter(call.form["client_id"] for call in sandbox.state.token_calls if call.grant == "password")
        assert logins["crm_client"] == 1
        assert logins["ua-grant"] > 1
        tell(request, reloads=RELOADS, requests=statuses.total(), rate=round(statuses.total() / took))


async def reloaded(gateway: Gateway, text: str) -> None:
    begun = len(gateway.log)
    gateway.config_file.write_text(text)
    gateway.hup()

    def said() -> bool:
        return any('"event":"reloaded"' in line or "send SIGHUP" in line for line in gateway.log[begun:])

    await until(said, 20.0, f"the end of a reload, but:\n{gateway.words()}")


@contextlib.asynccontextmanager
async def load(gateway: Gateway, key: str) -> AsyncIterator[Counter[int]]:
    """So many requests a second, on connections that are kept; the statuses."""
    statuses = Counter[int]()
    stop = asyncio.Event()
    words = b"GET /adm/v1/x HTTP/1.1\r\nHost: gw\r\nX-Api-Key: %b\r\n\r\n" % key.encode()

    async def call(number: int) -> None:
        loop = asyncio.get_running_loop()
        wire: Wire = await dial(gateway.url)
        due = loop.time() + number / RATE
        while not stop.is_set():
            await asyncio.sleep(max(due - loop.time(), 0.0))
            due += CALLERS / RATE
            wire.send(words)
            statuses[(await wire.response()).status] += 1
        wire.close()

    async with asyncio.TaskGroup() as group:
        for number in range(CALLERS):
            group.create_task(call(number))
        try:
            yield statuses
        finally:
            stop.set()
