"""A real Prometheus for tests: Debian's ``prometheus`` on a free port of the loopback address, its data in a folder."""

import asyncio
import contextlib
import os
import re
import shutil
import subprocess
import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import aiohttp
import pytest
import yaml

from tests.support.gateway import until

PROGRAM = "prometheus"
TOOL = "promtool"
# Whatever number is free: it says in its log which one it took, so no other process can come in between.
_LISTENING = re.compile(r'msg="Listening on".* address=(127\.0\.0\.1:\d+)')


class Sample(NamedTuple):
    labels: dict[str, str]
    value: float


class Series(NamedTuple):
    """points: (Unix seconds, value), ascending."""

    labels: dict[str, str]
    points: list[tuple[float, float]]


class Prometheus:
    """A running server. url: where it listens, no trailing slash. A failed query is an AssertionError in its words."""

    def __init__(self, url: str, http: aiohttp.ClientSession) -> None:
        self.url = url
        self._http = http

    async def get(self, path: str, **parameters: str) -> Any:
        """``data`` of one answer of its HTTP API; path: below ``/api/v1/``."""
        async with self._http.get(f"{self.url}/api/v1/{path}", params=parameters) as answer:
            body = await answer.json()
            assert body["status"] == "success", f"{path} {parameters}: {body.get('error')}"
            return body["data"]

    async def query(self, expression: str, at: float | None = None) -> list[Sample]:
        """An instant vector (a scalar is one sample without labels); at: Unix seconds, else now."""
        when = {} if at is None else {"time": f"{at:.3f}"}
        data = await self.get("query", query=expression, **when)
        if data["resultType"] == "scalar":
            return [Sample({}, float(data["result"][1]))]
        return [Sample(one["metric"], float(one["value"][1])) for one in data["result"]]

    async def query_range(self, expression: str, start: float, end: float, step: float = 1.0) -> list[Series]:
        """start, end: Unix seconds, both included; step: seconds."""
        span = {"start": f"{start:.3f}", "end": f"{end:.3f}", "step": f"{step:.3f}"}
        data = await self.get("query_range", query=expression, **span)
        return [Series(one["metric"], [(at, float(value)) for at, value in one["values"]]) for one in data["result"]]

    async def value(self, expression: str) -> float | None:
        """Of the one series that it yields now; None when it yields none."""
        found = await self.query(expression)
        assert len(found) < 2, f"{expression}: {found}"
        return found[0].value if found else None

    async def alerts(self, name: str | None = None) -> list[dict[str, Any]]:
        """The alerts that are pending or firing now: ``labels``, ``annotations``, ``state``, ``activeAt``."""
        every: list[dict[str, Any]] = (await self.get("alerts"))["alerts"]
        return [alert for alert in every if name in (None, alert["labels"]["alertname"])]

    async def rules(self) -> list[dict[str, Any]]:
        """Every rule of every group: ``type``, ``name``, ``query``, ``health``, ``lastError``, ``state`` (alerts)."""
        return [rule for group in (await self.get("rules"))["groups"] for rule in group["rules"]]

    async def targets_up(self, count: int, seconds: float = 15.0) -> None:
        """Wait until so many targets have been scraped with success: some 6 s after its start, as it looks at its list
        of targets every 5 s."""

        async def there() -> bool:
            return len(await self.query("up == 1")) >= count

        await until(there, seconds, f"{count} targets of {self.url} up")


@contextlib.asynccontextmanager
async def running_prometheus(
    folder: Path,
    targets: Mapping[str, Sequence[str]] | None = None,
    rules: Iterable[Path] = (),
    *,
    scrape_configs: Sequence[Mapping[str, Any]] = (),
) -> AsyncIterator[Prometheus]:
    """A server of the test's own, ready; it scrapes and evaluates every second, and ends with the block.

    folder: its configuration, data and log. targets: job → addresses to scrape (``host:port`` or a URL, whose path is
    ignored). rules: rule files. scrape_configs: further ones, as in its configuration.
    """
    need_prometheus()
    folder.mkdir(exist_ok=True)
    jobs = [
        {"job_name": job, "static_configs": [{"targets": [urlsplit(one).netloc or one for one in addresses]}]}
        for job, addresses in (targets or {}).items()
    ]
    config = {
        "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(file.resolve()) for file in rules],
        "scrape_configs": [*jobs, *scrape_configs],
    }
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config, sort_keys=False))
    log = folder / "log"
    with log.open("wb") as lines:
        process = await asyncio.create_subprocess_exec(
            *(PROGRAM, f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'data'}"),
            *("--web.listen-address=127.0.0.1:0", "--storage.tsdb.retention.time=1d"),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=lines,
        )
    try:
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10)) as http:
            yield Prometheus(await _ready(process, log, http), http)
    finally:
        await _end(process)


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.terminate()
    try:
        async with asyncio.timeout(10):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()


async def _ready(process: asyncio.subprocess.Process, log: Path, http: aiohttp.ClientSession) -> str:
    """Its URL, once it answers queries."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and process.returncode is None:
        if found := _LISTENING.search(log.read_text()):
            with contextlib.suppress(aiohttp.ClientError):
                async with http.get(f"http://{found[1]}/-/ready") as answer:
                    if answer.status == 200:
                        return f"http://{found[1]}"
        await asyncio.sleep(0.05)
    raise AssertionError(f"{PROGRAM} is not ready:\n{log.read_text()[-2000:]}")


def promtool(*arguments: str | Path, folder: Path | None = None) -> tuple[int, str]:
    """Exit code and all that it printed. folder: where relative names begin."""
    need_prometheus()
    ended = subprocess.run(  # noqa: S603 - a program of the system, with words of our own
        [TOOL, *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=folder,
        timeout=60,
        check=False,
    )
    return ended.returncode, ended.stdout


def need_prometheus() -> None:
    """A skip with what to install; in CI, and with REQUIRE_PROMETHEUS, a failure."""
    if shutil.which(PROGRAM) is None or shutil.which(TOOL) is None:
        words = f"{PROGRAM} is not installed (Debian, Ubuntu: apt-get install prometheus)"
        if os.environ.get("CI") or os.environ.get("REQUIRE_PROMETHEUS"):
            pytest.fail(words)
        pytest.skip(words)
