"""What the pictures show: the demo, scraped every second, and what is done to its platform meanwhile."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import aiohttp

from tests.support.process import Process, running
from tests.support.prometheus import Prometheus, Series, running_prometheus

LIFE = "opentv_proxy_access_token_expiry_timestamp_seconds - time()"
SUCCESS = "opentv_proxy_token_last_success_timestamp_seconds"
FAILURES = 'sum(opentv_proxy_token_refreshes_total{result!="success"})'
EXCHANGE = "opentv_proxy_token_refresh_duration_seconds_sum"
ANSWERS = 'sum(rate(opentv_proxy_requests_total{{code=~"{}"}}[3s])) or vector(0)'
LATENCY = "histogram_quantile({}, sum by (le) (rate(opentv_proxy_request_duration_seconds_bucket[2s])))"


@dataclass
class Run:
    """start, end: Unix seconds. lines: name → (seconds since start, value). bands: name → begin and end, seconds since
    start. requests: how many were answered, and how many of them with 5xx."""

    start: float
    end: float = 0.0
    lines: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    bands: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    requests: tuple[int, int] = (0, 0)


class Demo:
    """``opentv-proxy demo`` and a Prometheus that scrapes it."""

    def __init__(self, url: str, sandbox: str, prometheus: Prometheus, http: aiohttp.ClientSession) -> None:
        self.url = url
        self.prometheus = prometheus
        self._sandbox = sandbox
        self._http = http

    async def tell(self, method: str, path: str, json: Any = None) -> None:
        """The sandbox's control API."""
        async with self._http.request(method, f"{self._sandbox}/_sandbox/{path}", json=json) as answer:
            assert answer.status < 300, await answer.text()

    async def refreshed(self) -> None:
        """Until the next token is there."""
        before = await self.prometheus.value(SUCCESS)
        for _ in range(600):
            await asyncio.sleep(0.1)
            if await self.prometheus.value(SUCCESS) != before:
                return
        raise TimeoutError("no refresh within a minute")

    async def request(self) -> None:
        async with self._http.get(f"{self.url}/adm/v1/accounts/4711") as answer:
            await answer.read()

    async def collect(self, run: Run, expressions: dict[str, str]) -> Run:
        """Everything since the run's start, a point a second."""
        run.end = time.time()
        for name, expression in expressions.items():
            found: list[Series] = await self.prometheus.query_range(expression, run.start, run.end)
            run.lines[name] = [(at - run.start, value) for series in found for at, value in series.points]
        seconds = f"[{run.end - run.start:.0f}s]"
        counts = [f'sum(increase(opentv_proxy_requests_total{{code=~"{code}"}}{seconds}))' for code in ("...", "5..")]
        answered, failed = [await self.prometheus.value(count) or 0.0 for count in counts]
        run.requests = round(answered), round(failed)
        return run


@contextlib.asynccontextmanager
async def demo(folder: Path, *options: str) -> AsyncIterator[Demo]:
    async with running("demo", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", *options) as process:
        admin = await process.says(r"admin listening on (http\S+)")
        async with (
            running_prometheus(folder, {"gateway": [admin]}) as prometheus,
            aiohttp.ClientSession() as http,
        ):
            await prometheus.targets_up(1)
            yield Demo(*await _addresses(process), prometheus, http)


async def _addresses(process: Process) -> tuple[str, str]:
    proxy = await process.says(r"proxy listening on (http\S+)")
    return proxy, await process.says(r"sandbox platform on (http\S+)")


async def token_life(folder: Path) -> Run:
    """Four tokens; the provider answers 503 while the second one should be refreshed."""
    async with demo(folder, "--traffic") as here:
        await here.refreshed()
        run = Run(time.time() - 3)
        await here.refreshed()
        await asyncio.sleep(16)
        await here.tell("POST", "faults/token", {"kind": "reply", "status": 503, "times": None})
        down = time.time() - run.start
        await asyncio.sleep(9)
        await here.tell("DELETE", "faults/token")
        run.bands["down"] = [(down, time.time() - run.start)]
        for _ in range(3):
            await here.refreshed()
        await asyncio.sleep(3)
        lines = {"life": LIFE, "failures": FAILURES, "good": ANSWERS.format("2.."), "bad": ANSWERS.format("5..")}
        return await here.collect(run, lines)


async def latency(folder: Path) -> Run:
    """50 requests a second while each refresh takes 2 s; two of them ahead of the token's end, then one because the
    platform refuses the token."""
    async with demo(folder) as here:
        await here.tell("POST", "faults/token", {"kind": "delay", "delay_ms": 2000, "times": None})
        sending = asyncio.create_task(_send(here, 0.02))
        await here.refreshed()
        await asyncio.sleep(8)
        run = Run(time.time())
        await here.refreshed()
        await here.refreshed()
        await asyncio.sleep(10)
        run.bands["refused"] = [(time.time() - run.start, time.time() - run.start)]
        await here.tell("POST", "revoke-access-tokens")
        await asyncio.sleep(12)
        lines = {"p50": LATENCY.format(0.5), "p95": LATENCY.format(0.95), "success": SUCCESS, "exchange": EXCHANGE}
        await here.collect(run, lines)
        sending.cancel()
    run.bands["refresh"] = _exchanges(run)
    return run


async def _send(here: Demo, pace: float) -> None:
    """A request every ``pace`` seconds, whether or not the one before has its answer."""
    async with asyncio.TaskGroup() as tasks:
        due = time.monotonic()
        while True:
            tasks.create_task(here.request())
            due += pace
            await asyncio.sleep(due - time.monotonic())


def _exchanges(run: Run) -> list[tuple[float, float]]:
    """From when to when a token was asked for: it came at its ``last_success``, after as long as the histogram grew."""
    found = []
    took = dict(run.lines["exchange"])
    for (before, last), (after, newer) in pairwise(run.lines["success"]):
        if newer > last:
            found.append((newer - run.start - (took[after] - took[before]), newer - run.start))
    return found
