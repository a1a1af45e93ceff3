"""The demo under its own traffic, scraped by a real Prometheus that has our rules: where a fault can be put in and its
way be followed, from the alert to the panel, to the words of the admin port and of the log.

``python -m tests.support.watched`` walks that way with the rules as they are, and writes down when what was seen: some
five minutes, for a person to read.
"""

import asyncio
import contextlib
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any, Final

import aiohttp

from tests.support.dashboard import Dashboard, everything, substituted
from tests.support.gateway import ROOT, until
from tests.support.process import Process, running
from tests.support.prometheus import Prometheus, running_prometheus

JOB: Final = "opentv-auth-proxy"
RULES: Final = sorted((ROOT / "config/prometheus/rules").glob("*.yaml"))
SCRAPE: Final = 1.0  # seconds, as running_prometheus has it


class Watched:
    """process: the demo. proxy, admin, box: URLs of its three ports, no trailing slash."""

    def __init__(
        self, process: Process, prometheus: Prometheus, http: aiohttp.ClientSession, urls: tuple[str, str, str]
    ) -> None:
        self.process, self.prometheus = process, prometheus
        self.proxy, self.admin, self.box = urls
        self._http = http
        self._dashboard = Dashboard()

    async def ask(self, method: str, url: str, body: object = None) -> tuple[int, str]:
        async with self._http.request(method, url, json=body) as answer:
            return answer.status, await answer.text()

    async def tell_sandbox(self, method: str, path: str, body: object = None) -> None:
        """One call of its control API; path: below ``/_sandbox``."""
        status, words = await self.ask(method, f"{self.box}/_sandbox{path}", body)
        assert status in (200, 201, 204), words

    async def refresh(self) -> int:
        """By hand, on the admin port; the answer's status."""
        return (await self.ask("POST", f"{self.admin}/identities/opentv/refresh"))[0]

    async def status(self) -> dict[str, Any]:
        async with self._http.get(f"{self.admin}/status") as answer:
            found: dict[str, Any] = await answer.json()
            return found

    async def panel(self, title: str) -> list[float]:
        """The newest value of each series that the panel's queries yield, every variable at All."""
        values: list[float] = []
        for query in self._dashboard.queries():
            if query.title == title:
                expr = substituted(query.expr, everything(self._dashboard, JOB), max(SCRAPE, query.min_step), SCRAPE)
                values += [sample.value for sample in await self.prometheus.query(expr)]
        return values

    async def rings(self, name: str, seconds: float) -> dict[str, Any]:
        """Wait until the alert fires; what it says."""
        found: list[dict[str, Any]] = []

        async def fires() -> bool:
            found[:] = [one for one in await self.prometheus.alerts(name) if one["state"] == "firing"]
            return bool(found)

        await until(fires, seconds, f"{name} fires")
        return found[0]

    async def is_over(self, *names: str, seconds: float) -> None:
        """Wait until none of these alerts is pending or firing."""

        async def quiet() -> bool:
            return not [one for name in names for one in await self.prometheus.alerts(name)]

        await until(quiet, seconds, f"{', '.join(names)} over")


@contextlib.asynccontextmanager
async def watched(folder: Path, rules: Iterable[Path] = RULES) -> AsyncIterator[Watched]:
    """Until the target is up. folder: for Prometheus."""
    options = ("--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--traffic")
    async with (
        running("demo", *options) as process,
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=20)) as http,
    ):
        proxy, admin = [await process.says(rf"{port} listening on (http\S+)") for port in ("proxy", "admin")]
        box = await process.says(r"sandbox platform on (http\S+)")
        async with running_prometheus(folder, {JOB: [admin]}, rules) as prometheus:
            await prometheus.targets_up(1)
            yield Watched(process, prometheus, http, (proxy, admin, box))


async def _walk() -> None:
    """The provider refuses everything, the token runs out; then it is mended."""
    begun = time.monotonic()

    def seen(words: str) -> None:
        sys.stdout.write(f"{time.monotonic() - begun:6.1f} s  {words}\n")
        sys.stdout.flush()

    with tempfile.TemporaryDirectory() as folder:
        async with watched(Path(folder) / "prometheus") as here:
            await here.is_over("OpentvProxyAbsent", seconds=10)
            seen(f"the demo runs; panel Tokens shows {await here.panel('Tokens')}")
            await here.tell_sandbox("POST", "/faults/token", {"kind": "reject", "times": None})
            seen("the sandbox is told to refuse every refresh and every login")
            said = len(here.process.err)
            await until(lambda: any("token exchange failed" in line for line in here.process.err), 60, "a failure")
            for line in here.process.err[said:]:
                if "token exchange failed" in line:
                    seen(f"log: {line}")
            await until(lambda: any(" 503 " in line for line in here.process.err), 60, "a request is refused")
            seen(f"log: {next(line for line in here.process.err if ' 503 ' in line)}")
            seen(f"a request: {await here.ask('GET', f'{here.proxy}/adm/v1/accounts/4711')}")
            for name in ("OpentvProxyTokenUnusable", "OpentvProxyErrorBudgetBurnFast", "OpentvProxyLoginSuspended"):
                alert = await here.rings(name, 420)
                seen(f"{name} fires, active since {alert['activeAt']}, labels {alert['labels']}")
                for what, words in alert["annotations"].items():
                    seen(f"    {what}: {words}")
                for title in ("Tokens", "Failures in a row", "Login suspended", "Error ratio"):
                    seen(f"    panel {title}: {await here.panel(title)}")
                last = (await here.status())["identities"]["opentv"]
                seen(f"    /status: { ({key: last[key] for key in ('state', 'suspended_until', 'last_refresh')}) }")
            seen(f"curl {here.admin}/\n{(await here.ask('GET', here.admin + '/'))[1].partition('GET  /')[0]}")
            await here.tell_sandbox("DELETE", "/faults")
            seen(f"the sandbox is mended; refresh by hand: {await here.refresh()}")
            for name in ("OpentvProxyTokenUnusable", "OpentvProxyLoginSuspended"):
                await here.is_over(name, seconds=180)
                seen(f"{name} is over; panel Tokens: {await here.panel('Tokens')}")


if __name__ == "__main__":
    asyncio.run(_walk())
