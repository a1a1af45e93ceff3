"""A crowd that drips: heads, bodies, and answers that nobody takes. Others must not notice (A22).

A test run has a part of the crowd; ``make soak`` has all of it, and shows the figures.
"""

import asyncio
import contextlib
import os
import statistics
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.fleet import LONG, tell
from tests.support.gateway import ROOT, until
from tests.support.rawclient import ask, client
from tests.support.rawserver import OK, Wire
from tests.support.relay import GET, Relay, relay

HEADS, BODIES, READERS = (2000, 500, 100) if LONG else (200, 300, 20)
SECONDS = 40.0 if LONG else 4.0
MIB = 1 << 20


async def upstream(wire: Wire) -> None:
    head = await wire.head()
    if head.startswith(b"PUT"):
        await wire.rest()
    elif b"/big" in head:
        wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (64 * MIB))
        with contextlib.suppress(ConnectionError):
            for _ in range(64):
                await wire.write(bytes(MIB))
        await wire.rest()
    else:
        wire.send(OK)


@contextlib.asynccontextmanager
async def crowd(url: str) -> AsyncIterator[None]:
    """They are there, all of them."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.support.crowd", url, str(HEADS), str(BODIES), str(READERS)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        cwd=ROOT,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        async with asyncio.timeout(60):
            assert await process.stdout.readline() == b"ready\n"
        yield
    finally:
        process.stdin.close()
        await process.wait()


async def normal(here: Relay, seconds: float) -> list[float]:
    """A client like any other, on a kept connection and on new ones: how long each of its requests took."""
    clock = asyncio.get_running_loop().time
    took, end = [], clock() + seconds
    async with client(here.gateway.url) as wire:
        while clock() < end:
            begun = clock()
            wire.send(GET)
            assert (await wire.response()).status == 200
            took.append(clock() - begun)
            begun = clock()
            assert (await ask(here.gateway.url, GET)).status == 200
            took.append(clock() - begun)
            await asyncio.sleep(0.02)
    return took


def held(here: Relay) -> int:
    return len(os.listdir(f"/proc/{here.gateway.pid}/fd"))  # noqa: PTH208 - names are all that is asked for


@pytest.mark.timeout(200)
async def test_a_crowd_that_drips_is_not_felt_by_others(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """With every limit at its default."""
    async with relay(tmp_path) as here:
        here.raw.begin(upstream)
        before = here.forget_peak()
        async with crowd(here.gateway.url):
            await until(lambda: held(here) > HEADS + BODIES + READERS, 20.0, "the crowd to be taken in")
            await normal(here, 1.0)  # not measured: this process is the upstream, and is busy taking them in
            took = await normal(here, SECONDS)
            assert held(here) > 0.9 * (HEADS + BODIES + READERS)
        p99 = statistics.quantiles(took, n=100)[98]
        grown = here.resident() - before
        milliseconds = {"p50": statistics.median(took), "p99": p99, "worst": max(took)}
        figures = {f"{name}_ms": round(each * 1e3, 1) for name, each in milliseconds.items()}
        crowded = {"heads": HEADS, "bodies": BODIES, "readers": READERS}
        tell(request, **crowded, requests=len(took), **figures, grown_mib=round(grown / MIB))
        assert p99 < 0.5
        assert grown < (READERS + 0.1 * (HEADS + BODIES)) * MIB
        await until(lambda: held(here) < 60, 10.0, "all of it given back")
