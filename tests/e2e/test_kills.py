"""SIGKILL at random moments: what the file store holds is never broken, and no session is lost that it could have kept.

The provider's answers take a while, so that many a kill hits between a rotation and the writing of its pair: the one
moment in which a login is the price.
"""

import asyncio
import contextlib
import random
from collections import Counter, deque
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import jwt
import pytest

from proxy.sandbox import Fault, Sandbox, SandboxSettings
from proxy.tokens.stores.base import StoredPair
from tests.support.fleet import LONG, tell
from tests.support.gateway import Gateway, start_gateway
from tests.support.stores import Workshop, key_file

KILLS = 1000 if LONG else 100
LANES = 4
"""Gateways at a time, each with a provider and a store of its own: starting one takes longer than killing it."""
ANSWER = 150
"""Milliseconds that the provider's answer takes after it has rotated."""
WRITING = 0.5
"""Seconds after which an answer must be in the file: many times what it takes, for machines that are busy."""


@dataclass
class Tally:
    """What came of a lane's kills. hits: those between a rotation, or a login, and the writing of its pair. wrong: what
    must not be, in words."""

    kills: int = 0
    hits: int = 0
    logins: int = 0
    refreshes: int = 0
    reused: int = 0
    served: int = 0
    wrong: list[str] = field(default_factory=list)

    def plus(self, other: "Tally") -> "Tally":
        return Tally(**{name: value + getattr(other, name) for name, value in vars(self).items()})


class Lane:
    """One gateway after the other, on one file store."""

    def __init__(self, folder: Path, sandbox: Sandbox, http: aiohttp.ClientSession, draw: random.Random) -> None:
        self.tally = Tally()
        self._folder = folder
        self._sandbox = sandbox
        self._state = sandbox.state
        self._http = http
        self._draw = draw
        store = {"file": {"path": f"{folder}/kept/tokens.json", "key_file": str(key_file(folder))}}
        self._workshop = Workshop(store)
        self._config = {
            "identities": {
                "opentv": {
                    "system": "keycloak",
                    "token_url": sandbox.token_url,
                    "client_id": sandbox.client_id,
                    "username": sandbox.username,
                    "password": sandbox.password,
                    "refresh": {"min_interval": "300ms"},
                }
            },
            "routes": [{"path": "/", "upstream": sandbox.url, "identity": "opentv"}],
            "store": store,
        }

    async def killed(self) -> None:
        """One life and its end, and whether all is as it must be afterwards."""
        spent = self._spent(await self._stored())
        before = Counter(self._state.counters)
        handled = len(self._state.token_calls)
        gateway = await start_gateway(self._config, self._folder, wait=False)
        asking = asyncio.create_task(self._ask_on(gateway))
        if self._draw.random() < 0.7:
            with contextlib.suppress(AssertionError):
                await gateway.listening()
        await asyncio.sleep(self._draw.uniform(0.0, 0.8))
        assert gateway.exit_code is None, gateway.words()
        killed_at = self._state.now()
        await gateway.kill()
        await asking
        await asyncio.sleep(0.02)  # what was on its way to the provider arrives all the same
        after = self._spent(await self._stored())
        self.tally.kills += 1
        if after and len(self._state.token_calls) > handled:
            self.tally.hits += 1
            unwritten = killed_at - self._state.token_calls[-1].at
            if unwritten > ANSWER / 1000 + WRITING:
                self.tally.wrong.append(f"{unwritten:.2f} s after it was asked for, a pair was not written yet")
        logins, reused = (self._state.counters[name] - before[name] for name in ("logins", "reused_refresh_tokens"))
        if logins > spent or reused > spent:
            self.tally.wrong.append(f"{logins} logins, {reused} reuses; the stored token was good: {not spent}")

    async def end(self) -> None:
        """A last life, which ends as it should."""
        gateway = await start_gateway(self._config, self._folder)
        async with self._http.get(f"{gateway.url}/adm/v1/accounts") as answer:
            assert answer.status == 200, (await answer.text(), gateway.words())
        assert await gateway.stop() == 0
        counters = self._state.counters
        self.tally.logins, self.tally.refreshes = counters["logins"], counters["refreshes"]
        self.tally.reused = counters["reused_refresh_tokens"]
        self.tally.wrong += self._workshop.told.words
        self.tally.wrong += [str(file) for file in self._folder.rglob("*.corrupt-*")]
        if counters["lockouts"] or counters["logouts"]:
            self.tally.wrong.append(f"lockouts or logouts: {counters}")

    async def _stored(self) -> StoredPair | None:
        """Raises, and says so, when it cannot be read."""
        return await self._workshop.store().load("opentv")

    def _spent(self, pair: StoredPair | None) -> bool:
        """Whether nothing that is stored can go on with the session that the provider opened last."""
        if pair is None or pair.refresh is None:
            return True
        claims: dict[str, Any] = jwt.decode(pair.refresh, options={"verify_signature": False})
        newest = list(self._state.sessions.values())[-1]
        return (
            claims["sid"] != newest.sid
            or newest.detached
            or claims["jti"] == newest.last_used
            or claims["jti"] in newest.spent
        )

    async def _ask_on(self, gateway: Gateway) -> None:
        """Requests until the end; all that are answered must have been served."""
        while gateway.exit_code is None:
            await asyncio.sleep(0.05)
            if not gateway.url:
                continue
            try:
                async with self._http.get(f"{gateway.url}/adm/v1/accounts") as answer:
                    words = await answer.text()
            except aiohttp.ClientError:
                continue  # killed
            self.tally.served += answer.status == 200
            if answer.status != 200:
                self.tally.wrong.append(f"{answer.status} {words}")


@contextlib.asynccontextmanager
async def lane(folder: Path, draw: random.Random) -> AsyncIterator[Lane]:
    folder.mkdir()
    async with Sandbox(SandboxSettings(access_life=2)) as sandbox, aiohttp.ClientSession() as http:
        sandbox.state.token_calls = deque()
        sandbox.state.add_fault("token", Fault("late", times=None, delay_ms=ANSWER))
        yield Lane(folder, sandbox, http, draw)


@pytest.mark.timeout(3600 if LONG else 300)
async def test_killed_at_any_moment_a_gateway_goes_on_with_the_session_that_is_stored(
    request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    seed = random.randrange(1 << 32)  # noqa: S311 - moments, not secrets

    async def work(number: int) -> Tally:
        async with lane(tmp_path / f"lane{number}", random.Random(seed + number)) as here:  # noqa: S311 - the same
            for _ in range(KILLS // LANES):
                await here.killed()
            await here.end()
            return here.tally

    total = Tally()
    for tally in await asyncio.gather(*(work(number) for number in range(LANES))):
        total = total.plus(tally)
    assert total.wrong == [], (seed, total)
    assert total.kills == KILLS
    assert 0 < total.hits < KILLS / 2
    assert total.logins <= LANES + total.hits, (seed, total)
    assert total.reused <= total.hits, (seed, total)
    assert total.served > KILLS
    tell(request, **vars(total))
