"""The matrix of faults: each kind on each way out of the gateway, while it does each thing, with a token in each state.

A cell has a provider and platform of its own (a sandbox), an identity, a route, and cables between them and the
gateway. Many cells share a gateway; those whose fault is Redis's share its cable too. All follow one timetable: the
token comes, the fault begins, the act, the fault's end, and then requests until all is well.
"""

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from typing import Any, Final, Literal

import aiohttp

from proxy.sandbox import Client, Fault, Sandbox, SandboxSettings
from tests.support.cable import Cable, cable
from tests.support.gateway import Gateway, running_gateway, until

FaultName = Literal["latency", "cut", "half-close", "reset", "black hole"]
Way = Literal["provider", "platform", "Redis"]
Doing = Literal["login", "refresh", "replay", "request", "idle"]
Token = Literal["fresh", "stale", "expired"]
Cell = tuple[Way, FaultName, Doing, Token]

FAULTS: Final[tuple[FaultName, ...]] = ("latency", "cut", "half-close", "reset", "black hole")
DOINGS: Final[dict[Way, tuple[Doing, ...]]] = {
    "provider": ("login", "refresh", "replay"),
    "platform": ("request", "replay", "idle"),
    "Redis": ("login", "refresh", "replay", "idle"),
}
TOKENS: Final[tuple[Token, ...]] = ("fresh", "stale", "expired")

LATENCY: Final = 0.1
"""Seconds that each piece takes longer, each way."""
BEGINS, LASTS = 3.0, 4.0
"""Seconds after the token came at which the fault begins, and how long it lasts."""
SURE: Final = 1.5
"""Seconds before the fault's end in which no request is sent: its answer might come of either time."""
PACE: Final = 0.5
TIMEOUTS: Final[dict[Way, float]] = {"provider": 1.5, "platform": 1.5, "Redis": 3.0}
"""Of an exchange with the provider, and of the platform's answer: short, to see them within the fault. A Redis that is
silent is given up after 1.5 s by itself."""
LONGEST: Final = 20.0
"""Seconds after the fault for which a cell is watched."""
STALE_AT: Final = 3.6
LIVES: Final[dict[Token, float]] = {"fresh": 60, "stale": 12, "expired": 2}
REFRESH: Final[dict[Token, dict[str, object]]] = {
    "fresh": {},
    "stale": {"ahead": 1 - STALE_AT / 12, "jitter": 0, "min_interval": "500ms"},
    "expired": {"min_interval": "60s"},  # longer than a life, so that only a request asks for the next token
}


def cells(*ways: Way) -> Iterator[Cell]:
    """Those that mean something."""
    for way in ways:
        for fault in FAULTS:
            for doing in DOINGS[way]:
                for token in TOKENS:
                    if (doing, token) != ("replay", "expired"):  # it is not sent, so nobody can refuse it
                        yield way, fault, doing, token


@dataclass
class Row:
    """What came of a cell. statuses: what requests during the fault were answered (after it, where none was sent).
    slowest: seconds that one of them took. grants: what reached the provider from the fault's beginning until all was
    well. presented: how often the refresh token was that was most often. well: seconds after the fault's end until
    requests are served and the token is new."""

    cell: Cell
    statuses: Counter[int] = field(default_factory=Counter)
    slowest: float = 0.0
    grants: Counter[str] = field(default_factory=Counter)
    presented: int = 0
    well: float = 0.0

    @property
    def outcome(self) -> tuple[str, str]:
        """What does not depend on the moment: the client's side and the provider's."""
        kinds = [
            word
            for grant, word in (("refresh_token", "refresh"), ("password", "login"), ("client_credentials", "login"))
            if self.grants[grant]
        ]
        client, provider = ", ".join(str(status) for status in sorted(self.statuses)), ", ".join(kinds) or "nothing"
        if self.by_chance and self.cell[2] == "replay":
            client = "200 or 403" if self.statuses.keys() <= {200, 403} else client
        elif self.by_chance:
            provider = "refresh or login" if len(kinds) == 1 else provider
        return client, provider

    @property
    def by_chance(self) -> bool:
        """Without Redis a token that lives is kept until a moment drawn from its life, and then a login is the price:
        the fault may be over by then. Likewise whether a refused request joins a renewal that waits for Redis."""
        way, fault, doing, token = self.cell
        if way != "Redis" or fault == "latency" or token != "stale":
            return False
        return doing in ("refresh", "idle") or (fault, doing) == ("black hole", "replay")


class Place:
    """One cell at work."""

    def __init__(self, cell: Cell, number: int, sandbox: Sandbox, provider: Cable, platform: Cable) -> None:
        self.row = Row(cell)
        self.name = f"c{number}"
        self.way, self.fault, self.doing, self.token = cell
        self.sandbox = sandbox
        self._provider, self._platform = provider, platform
        self._gateway: Gateway
        self._http: aiohttp.ClientSession
        self.began = 0.0  # when its token came, by time.monotonic

    def identity(self) -> dict[str, Any]:
        common = {
            "system": "keycloak",
            "token_url": self.sandbox.token_url.replace(f":{self.sandbox.port}/", f":{self._provider.port}/"),
            "timeout": TIMEOUTS[self.way],
            "refresh": REFRESH[self.token],
        }
        if self.doing == "login":  # a grant that gives no refresh token
            robot = {"grant": "client_credentials", "client_id": "robot", "client_auth": "post"}
            return {**common, **robot, "client_secret": "robots-own-secret"}
        user = {"username": self.sandbox.username, "password": self.sandbox.password}
        return {**common, "client_id": self.sandbox.client_id, **user}

    def route(self) -> dict[str, Any]:
        upstream = f"http://127.0.0.1:{self._platform.port}"
        timeouts = {"connect": TIMEOUTS[self.way], "response": TIMEOUTS[self.way]}
        return {"path": f"/{self.name}", "upstream": upstream, "identity": self.name, "timeouts": timeouts}

    async def run(self, gateway: Gateway, http: aiohttp.ClientSession, redis: Cable | None) -> Row:
        self._gateway, self._http = gateway, http
        state = self.sandbox.state
        faulty = {"provider": self._provider, "platform": self._platform}.get(self.way, redis)
        assert faulty is not None
        await until(lambda: bool(state.events), 30.0, "the first token")
        self.began = time.monotonic()
        await self._ask()
        await self._at(BEGINS)
        before, known = state.counters["token_requests"], set(state.issued)
        late = self.way == "platform" and self.doing == "replay"
        if late:  # the fault is to meet the second sending, so it begins while the refresh is under way
            state.add_fault("token", Fault("delay", delay_ms=int(1000 * (PACE + (STALE_AT - BEGINS)))))
        else:
            begin(faulty, self.fault)
        state.settings.access_life = 60
        await self._during(known, lambda: begin(faulty, self.fault) if late else None)
        await self._at(BEGINS + LASTS)
        await end(faulty, self.fault)
        await self._well(time.monotonic())
        calls = list(state.token_calls)[before:]
        self.row.grants.update(call.grant for call in calls)
        tokens = Counter(call.form["refresh_token"] for call in calls if call.grant == "refresh_token")
        self.row.presented = max(tokens.values(), default=0)
        return self.row

    async def _at(self, seconds: float) -> None:
        await asyncio.sleep(max(self.began + seconds - time.monotonic(), 0.0))

    async def _during(self, known: set[str], strike: Callable[[], None]) -> None:
        """The act, and requests beside it. known: the tokens of before the fault."""
        asking: list[asyncio.Task[Any]] = []
        if self.token == "stale" and self.doing in ("login", "refresh", "replay"):
            await self._at(STALE_AT + 0.2)
        if self.doing == "replay":
            for token in known:
                self.sandbox.state.issued.pop(token, None)
        elif self.token == "fresh" and self.doing in ("login", "refresh"):
            asking.append(asyncio.create_task(self._by_hand()))
        if self.doing != "idle":
            while time.monotonic() < self.began + BEGINS + LASTS - SURE:
                asking.append(asyncio.create_task(self._ask(count=True)))
                await asyncio.sleep(PACE / 2)
                strike()
                strike = lambda: None  # noqa: E731 - once
                await asyncio.sleep(PACE / 2)
        self._asking = asking

    async def _well(self, mended: float) -> None:
        last_bad = mended
        good = 0
        while good < 3 and time.monotonic() < mended + LONGEST:
            begun = time.monotonic()
            status = await self._ask()
            if self.doing == "idle" and good == 0 and not self.row.statuses:
                self.row.statuses[status] += 1
                self.row.slowest = time.monotonic() - begun
            fresh = await self._fresh()
            if status == 200 and fresh:
                good += 1
            else:
                good, last_bad = 0, time.monotonic()
            await asyncio.sleep(0.1)
        self.row.well = last_bad - mended if good == 3 else inf
        await asyncio.gather(*self._asking)

    async def _fresh(self) -> bool:
        async with self._http.get(f"{self._gateway.admin_url}/status") as answer:
            return bool((await answer.json())["identities"][self.name]["state"] == "fresh")

    async def _by_hand(self) -> None:
        async with self._http.post(f"{self._gateway.admin_url}/identities/{self.name}/refresh") as answer:
            await answer.read()

    async def _ask(self, *, count: bool = False) -> int:
        begun = time.monotonic()
        async with self._http.get(f"{self._gateway.url}/{self.name}/adm/v1/accounts") as answer:
            await answer.read()
        if count:
            self.row.statuses[answer.status] += 1
            self.row.slowest = max(self.row.slowest, time.monotonic() - begun)
        return answer.status


def begin(way: Cable, fault: FaultName) -> None:
    match fault:
        case "latency":
            way.slow(LATENCY)
        case "cut":
            way.unplug()
        case "half-close" | "reset":
            way.lose(fault)
        case "black hole":
            way.hold()


async def end(way: Cable, fault: FaultName) -> None:
    if fault == "cut":
        await way.plug()
    way.mend()


@contextlib.asynccontextmanager
async def place(cell: Cell, number: int) -> AsyncIterator[Place]:
    settings = SandboxSettings(
        access_life=int(LIVES[cell[3]]),
        clients=(Client("crm_client"), Client("robot", secret="robots-own-secret", service_account=True)),
        required_role="",
    )
    async with Sandbox(settings) as sandbox, cable(sandbox.port) as provider, cable(sandbox.port) as platform:
        yield Place(cell, number, sandbox, provider, platform)


async def run(
    chosen: Sequence[Cell], folder: Path, redis_port: int | None = None, key: Path | None = None
) -> list[Row]:
    """All of these cells at the same time, behind one gateway. redis_port: it keeps its tokens there, by a cable."""
    folder.mkdir()
    async with contextlib.AsyncExitStack() as stack:
        places = [await stack.enter_async_context(place(cell, number)) for number, cell in enumerate(chosen)]
        config: dict[str, Any] = {
            "identities": {each.name: each.identity() for each in places},
            "routes": [{**each.route(), "strip_prefix": True} for each in places],
            "log": {"level": "warning", "access": "off"},
            "limits": {"connections_per_address": 5000},
        }
        redis = None
        if redis_port is not None:
            redis = await stack.enter_async_context(cable(redis_port))
            url = f"redis://127.0.0.1:{redis.port}/0"
            config["store"] = {"redis": {"url": url, "key_file": str(key), "prefix": f"{folder.name}:"}}
        gateway = await stack.enter_async_context(running_gateway(config, folder))
        connector = aiohttp.TCPConnector(limit=0)
        http = await stack.enter_async_context(
            aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=30))
        )
        return await asyncio.gather(*(each.run(gateway, http, redis) for each in places))
