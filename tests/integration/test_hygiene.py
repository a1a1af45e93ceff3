"""What a gateway has taken it gives back: after thousands of connections and faults it holds what it held before."""

import asyncio
import contextlib
import os
import re
from pathlib import Path
from typing import Any

import aiohttp
import yaml

from proxy.sandbox import Fault, Sandbox, SandboxSettings
from tests.support.gateway import Gateway, running_gateway, until
from tests.support.rawclient import dial
from tests.support.rawserver import OK, RawServer, Wire, WireEndedError, raw_server

ROUNDS = 250
REQUESTS = (
    b"GET /raw/fine HTTP/1.1\r\nHost: g\r\n\r\n",
    b"GET /raw/reset HTTP/1.1\r\nHost: g\r\n\r\n",
    b"GET /raw/garbage HTTP/1.1\r\nHost: g\r\n\r\n",
    b"GET /raw/cut HTTP/1.1\r\nHost: g\r\n\r\n",
    b"GET /closed HTTP/1.1\r\nHost: g\r\n\r\n",
    b"POST /raw/fine HTTP/1.1\r\nHost: g\r\nContent-Length: 5\r\n\r\n12",
    b"NO HTTP\r\n\r\n",
    b"",
)


async def misbehave(wire: Wire) -> None:
    with contextlib.suppress(WireEndedError):
        head = await wire.head()
        if b"/reset" in head:
            wire.reset()
        elif b"/garbage" in head:
            wire.send(b"SMTP ready\r\n\r\n")
        elif b"/cut" in head:
            wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n12345")
            wire.close()
        else:
            wire.send(OK)
        return
    wire.take(len(wire.unread))


def descriptors(gateway: Gateway) -> int:
    return len(os.listdir(f"/proc/{gateway.pid}/fd"))  # noqa: PTH208 - names are all that is asked for


def resident(gateway: Gateway) -> int:
    """KiB."""
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{gateway.pid}/status").read_text())
    assert found
    return int(found[1])


async def short(url: str, request: bytes, *, reset: bool) -> None:
    """A connection that ends soon, this way or that."""
    wire = await dial(url)
    wire.send(request)
    if reset or not request:
        wire.reset()
    else:
        with contextlib.suppress(WireEndedError):
            wire.end()
            await wire.rest()
        wire.close()


async def rounds(gateway: Gateway, count: int) -> None:
    for turn in range(count):
        await asyncio.gather(*(short(gateway.url, request, reset=turn % 5 == 0) for request in REQUESTS))


def configured(sandbox: Sandbox, raw: RawServer, turn: int) -> dict[str, Any]:
    opentv = {
        "system": "keycloak",
        "token_url": sandbox.token_url,
        "client_id": sandbox.client_id,
        "username": sandbox.username,
        "password": sandbox.password,
        "timeout": f"{5 + turn}s",
    }
    return {
        "listen": "127.0.0.1:0",
        "admin": "127.0.0.1:0",
        "identities": {"opentv": opentv},
        "routes": [
            {"path": "/raw", "upstream": raw.url, "max_connections": 50 + turn},
            {"path": "/closed", "upstream": "http://127.0.0.1:1"},
            {"path": "/", "upstream": sandbox.url, "identity": "opentv"},
        ],
        "log": {"access": "off"},
    }


async def operator(gateway: Gateway, sandbox: Sandbox, raw: RawServer, turn: int) -> None:
    """A reload that replaces everything, a refresh that fails, a scrape."""
    reloaded = sum("reloaded" in line for line in gateway.log)
    gateway.config_file.write_text(yaml.safe_dump(configured(sandbox, raw, turn)))
    gateway.hup()
    await until(lambda: sum("reloaded" in line for line in gateway.log) > reloaded, 10, "a reload")
    sandbox.state.faults["token"].append(Fault("close"))
    async with aiohttp.ClientSession() as http:
        for method, path in (("POST", "/identities/opentv/refresh"), ("GET", "/metrics"), ("GET", "/status")):
            async with http.request(method, gateway.admin_url + path) as answer:
                await answer.read()


async def settled(gateway: Gateway, raw: RawServer, most: int) -> int:
    """Wait until no more descriptors than these are held; the memory then, KiB."""
    raw.begin(misbehave)  # the gateway's idle connections end with their other side
    await until(lambda: descriptors(gateway) <= most, 8, f"{most} descriptors")
    return resident(gateway)


async def test_two_thousand_connections_and_faults_leave_nothing_behind(tmp_path: Path) -> None:
    async with Sandbox(SandboxSettings(access_life=60)) as sandbox, raw_server(misbehave) as raw:
        async with running_gateway(configured(sandbox, raw, 0), tmp_path) as gateway:
            await operator(gateway, sandbox, raw, 1)
            await rounds(gateway, 25)
            raw.begin(misbehave)
            seen: list[int] = []

            def steady() -> bool:
                seen.append(descriptors(gateway))
                return len(seen) > 5 and len(set(seen[-5:])) == 1

            await until(steady, 8, "a steady number of descriptors")
            await rounds(gateway, ROUNDS // 2)
            middle = await settled(gateway, raw, seen[-1])
            for turn in range(2, 8):
                await operator(gateway, sandbox, raw, turn)
            await rounds(gateway, ROUNDS // 2)
            end = await settled(gateway, raw, seen[-1])
            assert end - middle < 4096, (middle, end)
            assert await gateway.stop() == 0
        assert sandbox.state.sessions == {}
    assert [line for line in gateway.log if '"level":"error"' in line or "exception" in line] == []
