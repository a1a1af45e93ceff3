"""Clocks that jump, processes that stand still, providers whose clock is wrong: no dead token is sent knowingly, and at
most one refresh is made that nobody needed (B11)."""

import asyncio
import contextlib
import os
import re
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import aiohttp
import pytest

from proxy.sandbox import Sandbox, SandboxSettings
from tests.support.gateway import Gateway, running_gateway, until
from tests.support.wallclock import WallClock

PACE = 0.05
HOURS = 3 * 3600


@dataclass
class Scene:
    """statuses: of the requests that are sent all the time."""

    sandbox: Sandbox
    gateway: Gateway
    http: aiohttp.ClientSession
    statuses: Counter[int] = field(default_factory=Counter)

    @property
    def renewals(self) -> int:
        return self.sandbox.state.counters["token_requests"]

    async def served(self, more: int) -> None:
        """Wait for so many more answers."""
        before = self.statuses.total()
        await until(lambda: self.statuses.total() >= before + more, 30.0, f"{more} answers")

    def well(self) -> None:
        """Nothing failed, and the platform never saw a token that it did not want."""
        assert set(self.statuses) == {200}, self.statuses
        counted = self.sandbox.state.counters
        assert {name: n for name, n in counted.items() if name.startswith("api_rejections")} == {}
        assert (counted["logins"], counted["reused_refresh_tokens"]) == (1, 0)

    async def ask_on(self) -> None:
        while True:
            async with self.http.get(f"{self.gateway.url}/adm/v1/x") as answer:
                await answer.read()
                self.statuses[answer.status] += 1
            await asyncio.sleep(PACE)


@contextlib.asynccontextmanager
async def scene(
    folder: Path, life: int, env: Mapping[str, str] | None = None, shift: float = 0.0
) -> AsyncIterator[Scene]:
    async with (
        Sandbox(SandboxSettings(access_life=life)) as sandbox,
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30)) as http,
    ):
        sandbox.state.clock_shift = shift
        opentv = {
            "system": "keycloak",
            "token_url": sandbox.token_url,
            "client_id": sandbox.client_id,
            "username": sandbox.username,
            "password": sandbox.password,
            "refresh": {"min_interval": "500ms"},
        }
        config = {
            "identities": {"opentv": opentv},
            "routes": [{"path": "/", "upstream": sandbox.url, "identity": "opentv"}],
        }
        async with running_gateway(config, folder, env) as gateway:
            here = Scene(sandbox, gateway, http)
            asking = asyncio.create_task(here.ask_on())
            try:
                await here.served(5)
                yield here
            finally:
                asking.cancel()
                await asyncio.wait((asking,))


async def test_a_wall_clock_that_jumps_by_hours_costs_one_refresh_at_most(tmp_path: Path) -> None:
    clock = WallClock(tmp_path)
    async with scene(tmp_path, 300, clock.env) as here:
        # Only beyond the token's end does a jump look like one.
        for seconds, renewals in ((HOURS, 2), (-HOURS, 2), (0, 2), (2 * HOURS, 3)):
            clock.set(seconds)
            await here.served(30)  # more than a second, and the keeper looks at least once a second
            assert here.renewals == renewals, seconds
            told = datetime.fromisoformat(here.gateway.records[-1]["timestamp"]).timestamp()
            assert abs(told - time.time() - seconds) < 60
        here.well()


async def test_a_process_that_stands_still_past_its_tokens_end_sends_no_dead_token(tmp_path: Path) -> None:
    life = 3
    async with scene(tmp_path, life) as here:
        before = here.renewals
        os.kill(here.gateway.pid, signal.SIGSTOP)
        try:
            waiting = [
                asyncio.create_task(here.http.get(f"{here.gateway.url}/adm/v1/waiting/{number}"))
                for number in range(20)
            ]
            await asyncio.sleep(life + 1.5)
        finally:
            os.kill(here.gateway.pid, signal.SIGCONT)
        for answer in await asyncio.gather(*waiting):
            assert answer.status == 200
            answer.release()
        assert here.renewals <= before + 2  # the one that was due, and perhaps one that was under way
        await here.served(10)
        here.well()


@pytest.mark.parametrize("shift", [600.0, -600.0])
async def test_a_provider_whose_clock_is_off_by_ten_minutes_is_served_by_like_any_other(
    tmp_path: Path, shift: float
) -> None:
    async with scene(tmp_path, 2, shift=shift) as here:
        await until(lambda: here.sandbox.state.counters["refreshes"] >= 3, 20.0, "three rotations")
        here.well()
        async with here.http.get(f"{here.gateway.admin_url}/status") as answer:
            words = " ".join((await answer.json())["warnings"])
        side = "ahead of" if shift > 0 else "behind"
        assert re.search(rf"the provider's clock is (599|600|601) s {side} this machine's", words), words


async def test_a_providers_clock_that_jumps_costs_one_refresh_and_no_request(tmp_path: Path) -> None:
    async with scene(tmp_path, 300) as here:
        here.sandbox.state.clock_shift = 600.0
        await here.served(20)
        assert here.renewals == 2
        assert set(here.statuses) == {200}
        here.sandbox.state.clock_shift = 0.0
        await here.served(20)
        assert here.renewals == 2
        assert set(here.statuses) == {200}
