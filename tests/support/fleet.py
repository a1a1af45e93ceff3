"""Several gateways on one store: killed, frozen, started again, asked at a steady rate, and compared."""

import asyncio
import contextlib
import os
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.support.gateway import Gateway, start_gateway, until

LONG = bool(os.environ.get("SOAK"))
"""``make soak``: as long as the figures in the documents were measured with. A test run, CI's too, takes a part."""


def tell(request: pytest.FixtureRequest, **figures: object) -> None:
    """Writes figures on the terminal, in a long run and with ``-v``."""
    if LONG or request.config.get_verbosity() > 0:
        manager = request.config.pluginmanager
        reporter, capture = manager.get_plugin("terminalreporter"), manager.get_plugin("capturemanager")
        assert reporter is not None
        assert capture is not None
        with capture.global_and_fixture_disabled():
            reporter.ensure_newline()
            reporter.write_line(f"  {', '.join(f'{name} {value}' for name, value in figures.items())}")


POLL = 0.05
"""Seconds between two looks at what several processes have to be asked for, besides ``until``'s own pause."""


class Replica:
    """One gateway of a fleet, over all its lives. away: when nobody could ask it, as (begin, end) in Unix seconds."""

    def __init__(self, name: str, config: Mapping[str, Any], folder: Path, identity: str = "opentv") -> None:
        self.name = name
        self.config = config
        self.identity = identity
        self.lives: list[Gateway] = []
        self.away: list[tuple[float, float]] = []
        self._folder = folder
        self._left = 0.0
        self._frozen = False

    @property
    def gateway(self) -> Gateway:
        return self.lives[-1]

    @property
    def there(self) -> bool:
        return bool(self.lives) and self.gateway.exit_code is None and not self._frozen and bool(self.gateway.url)

    async def start(self) -> "Replica":
        """Returns when it listens."""
        folder = self._folder / f"{self.name}-{len(self.lives)}"
        folder.mkdir()
        self.lives.append(await start_gateway(self.config, folder, wait=False))
        await self.gateway.listening(60.0)  # many start at a time
        self._back()
        return self

    async def kill(self) -> None:
        """SIGKILL: no farewell."""
        self._leave()
        await self.gateway.kill()

    async def stop(self) -> int:
        """SIGTERM, and the exit code."""
        self._leave()
        return await self.gateway.stop()

    def freeze(self) -> None:
        self._leave()
        self._frozen = True
        os.kill(self.gateway.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        os.kill(self.gateway.pid, signal.SIGCONT)
        self._frozen = False
        self._back()

    async def close(self) -> None:
        if self.lives and self.gateway.exit_code is None:
            if self._frozen:
                self.thaw()
            await self.gateway.stop()

    def absent(self, begin: float, end: float) -> bool:
        """Whether it was away at some moment between."""
        now = [(self._left, end)] if self._left else []
        return any(left <= end and begin <= back for left, back in [*self.away, *now])

    def argv(self) -> str:
        return Path(f"/proc/{self.gateway.pid}/cmdline").read_bytes().decode()

    def said(self) -> str:
        """All that it wrote, in all its lives."""
        return "\n".join(line for life in self.lives for line in (*life.out, *life.log))

    def _leave(self) -> None:
        self._left = time.time()

    def _back(self) -> None:
        if self._left:
            self.away.append((self._left, time.time()))
            self._left = 0.0


class Fleet:
    """replicas: by number, in the order of their configurations."""

    def __init__(self, replicas: Sequence[Replica], http: aiohttp.ClientSession) -> None:
        self.replicas = replicas
        self._http = http

    async def start(self) -> None:
        """All of them at the same time."""
        await asyncio.gather(*(replica.start() for replica in self.replicas))

    async def ask(self, replica: Replica, path: str = "/adm/v1/accounts") -> int:
        async with self._http.get(f"{replica.gateway.url}{path}") as answer:
            await answer.read()
            return answer.status

    async def ready(self, seconds: float = 15.0) -> None:
        """Wait until each serves a request."""

        async def served() -> bool:
            await asyncio.sleep(POLL)
            return all([await self.ask(replica) == 200 for replica in self.replicas])

        await until(served, seconds, "each replica serves")

    async def admin(self, replica: Replica, path: str) -> str:
        async with self._http.get(f"{replica.gateway.admin_url}{path}") as answer:
            return await answer.text()

    async def status(self, replica: Replica) -> dict[str, Any]:
        """What ``/status`` tells of the replica's identity."""
        async with self._http.get(f"{replica.gateway.admin_url}/status") as answer:
            found: dict[str, Any] = (await answer.json())["identities"][replica.identity]
            return found

    async def fingerprints(self) -> list[str | None]:
        return [found["fingerprint"] for found in await asyncio.gather(*map(self.status, self.replicas))]

    async def agreed(self, seconds: float) -> float:
        """Wait until all have the same token; the seconds that took."""

        async def same() -> bool:
            await asyncio.sleep(POLL)
            found = await self.fingerprints()
            return found[0] is not None and len(set(found)) == 1

        return await until(same, seconds, "all replicas have the same token")

    async def renew(self, replica: Replica, seconds: float = 10.0) -> float:
        """By hand, at this one; then wait until all that are there have the new token. The seconds that took after it
        was obtained."""
        async with self._http.post(f"{replica.gateway.admin_url}/identities/{replica.identity}/refresh") as answer:
            assert answer.status == 200, await answer.text()
        new = (await self.status(replica))["fingerprint"]

        async def everywhere() -> bool:
            return {(await self.status(each))["fingerprint"] for each in self.replicas if each.there} == {new}

        return await until(everywhere, seconds, "all have the new token")

    def words(self) -> str:
        """The last of what they said, but for the requests."""

        def last(replica: Replica) -> str:
            return "\n".join([line for line in replica.said().splitlines() if '"logger":"access"' not in line][-40:])

        return "\n".join(f"-- {replica.name}\n{last(replica)}" for replica in self.replicas)

    @contextlib.asynccontextmanager
    async def load(self, rate: float, path: str = "/adm/v1/accounts") -> AsyncIterator["Load"]:
        """So many requests a second to each replica, whatever comes of the former ones."""
        load = Load(self._http, path)
        stop = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            tickers = [group.create_task(load.ask_on(replica, rate, stop)) for replica in self.replicas]
            try:
                yield load
            finally:
                stop.set()
                await asyncio.wait(tickers)


@dataclass(frozen=True)
class Asked:
    """One request. at: Unix seconds. status: 0 where no answer came; words: why, or what it said."""

    replica: Replica
    at: float
    seconds: float
    status: int
    words: str

    @property
    def excused(self) -> bool:
        """Whether its replica was killed or frozen while it was under way."""
        return self.replica.absent(self.at, self.at + self.seconds)


class Load:
    """asked: in the order of their answers. unasked: how often so many were under way that no more were added."""

    MOST = 800

    def __init__(self, http: aiohttp.ClientSession, path: str) -> None:
        self.asked: list[Asked] = []
        self.unasked: Counter[str] = Counter()
        self._http = http
        self._path = path

    def of(self, replica: Replica) -> list[Asked]:
        return [asked for asked in self.asked if asked.replica is replica]

    @property
    def failed(self) -> list[Asked]:
        """What was not answered with 200 by a replica that was there."""
        return [asked for asked in self.asked if asked.status != 200 and not asked.excused]

    def slowest(self, replica: Replica) -> float:
        return max((asked.seconds for asked in self.of(replica) if not asked.excused), default=0.0)

    async def ask_on(self, replica: Replica, rate: float, stop: asyncio.Event) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time()
        async with asyncio.TaskGroup() as group:
            under_way: set[asyncio.Task[None]] = set()
            while not stop.is_set():
                if len(under_way) < self.MOST and replica.lives and replica.gateway.url:
                    task = group.create_task(self._ask(replica))
                    under_way.add(task)
                    task.add_done_callback(under_way.discard)
                else:
                    self.unasked[replica.name] += 1
                due = max(due + 1 / rate, loop.time() - 1)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout_at(due):
                        await stop.wait()

    async def _ask(self, replica: Replica) -> None:
        begun, at = time.monotonic(), time.time()
        status, words = 0, ""
        try:
            async with self._http.get(f"{replica.gateway.url}{self._path}") as answer:
                words = (await answer.text())[:300] if answer.status != 200 else ""
                await answer.read()
                status = answer.status
        except (aiohttp.ClientError, TimeoutError) as exc:
            words = repr(exc)
        self.asked.append(Asked(replica, at, time.monotonic() - begun, status, words))


@contextlib.asynccontextmanager
async def fleet(configs: Sequence[Mapping[str, Any]], folder: Path, *, start: bool = True) -> AsyncIterator[Fleet]:
    """One gateway a configuration, named a, b, …; stopped at the end. start: False leaves that to the test."""
    timeout = aiohttp.ClientTimeout(total=60)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=timeout) as http:
        replicas = [Replica(chr(ord("a") + number), config, folder) for number, config in enumerate(configs)]
        made = Fleet(replicas, http)
        try:
            if start:
                await made.start()
            yield made
        except BaseException as exc:
            exc.add_note(f"The gateways said:\n{made.words()}\n")
            raise
        finally:
            await asyncio.gather(*(replica.close() for replica in replicas))
