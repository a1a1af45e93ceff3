"""Whatever happens in whatever order: what must hold always, and what must hold once everything is well again."""

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from itertools import pairwise
from urllib.parse import parse_qs

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from proxy.errors import TokenError
from proxy.tokens.keeper import Keeper
from tests.support.tokens import Wing, replied, settle

DOWN = {
    "nobody": TokenError("network", "nobody is there"),
    "reset": TokenError("network", "broken off", lost=True),
    "silent": TokenError("timeout", "no answer", lost=True),
}
Step = tuple[str, float]
COMMON = ["pass", "pass", "pass", "ask", "ask", "reject", "reject", "manual"]
TROUBLE = ["sleep", "set clock", "down", "lose", "slow", "bad gateway", "wrong password", "end sessions"]
CURES = ["up", "right password"]
STEPS = st.lists(
    st.tuples(st.sampled_from([*COMMON, *TROUBLE, *CURES]), st.floats(0.01, 1, allow_nan=False)),
    min_size=5,
    max_size=60,
)


@dataclass
class Walk:
    """One walk through a keeper's life, with what it checks at each step."""

    wing: Wing = field(default_factory=Wing)
    tasks: list[asyncio.Future[object]] = field(default_factory=list)
    acted: list[float] = field(default_factory=list)  # when a person ended the pauses
    refused: list[float] = field(default_factory=list)

    async def run(self, steps: list[Step]) -> None:
        keeper = await self.wing.started()
        try:
            for what, size in steps:
                await self.step(keeper, what, size)
                self.check(keeper)
            await self.well_again(keeper)
            self.check_presentations()
        finally:
            for task in self.tasks:
                task.cancel()
            await asyncio.gather(*self.tasks, return_exceptions=True)
            await self.wing.close()
        assert not self.wing.log.events("renewal broke")

    async def step(self, keeper: Keeper, what: str, size: float) -> None:
        wing, provider = self.wing, self.wing.provider
        match what:
            case "pass":
                await self.passes(keeper, size * 200)
            case "sleep":
                wing.clock.suspend(size * 2000)
            case "set clock":
                wing.clock.set_wall((size - 0.5) * 20_000)
            case "down":
                provider.down = list(DOWN.values())[int(size * 2.99)]
            case "up":
                provider.recover()
            case "lose":
                provider.lose = 1
            case "slow":
                provider.delay = size * 15
            case "bad gateway":
                provider.script = [replied(502, b"")] * int(size * 4)
            case "wrong password":
                provider.password = "another"
            case "right password":
                provider.password = "right"
                self.act(keeper)
            case "end sessions":
                provider.end_sessions()
            case _:
                self.ask(keeper, what)
        await settle()

    def ask(self, keeper: Keeper, what: str) -> None:
        current = keeper.current()
        if what == "ask":
            self.tasks += [asyncio.ensure_future(keeper.obtain()) for _ in range(3)]
        elif what == "manual":
            self.acted.append(self.wing.clock.mono())
            self.tasks.append(asyncio.ensure_future(keeper.refresh_now()))
        elif current is not None:
            for _ in range(3):
                keeper.rejected(current)

    def act(self, keeper: Keeper) -> None:
        self.acted.append(self.wing.clock.mono())
        keeper.credentials_changed()

    async def passes(self, keeper: Keeper, seconds: float) -> None:
        """In portions: a dead token would show between two events."""
        for _ in range(10):
            await self.wing.clock.advance(seconds / 10)
            self.check(keeper)

    def check(self, keeper: Keeper) -> None:
        provider = self.wing.provider
        current = keeper.current()
        if current is not None:
            token = current.line.decode().removeprefix("Authorization: Bearer ").strip()
            assert self.wing.clock.mono() < provider.ends[token]
        assert not provider.overlapped
        keeper.status()

    def check_presentations(self) -> None:
        """A refresh token whose answers are lost is presented once more at most (B7)."""
        provider = self.wing.provider
        lost = Counter(
            parse_qs(request.body.decode())["refresh_token"][0]
            for request, reached in zip(provider.requests, provider.reached, strict=True)
            if reached and b"grant_type=refresh_token" in request.body
        )
        assert max(lost.values(), default=0) <= 2

    def check_logins(self) -> None:
        """After a refused login the next one waits for a minute, or for a person; never less than a second (K7)."""
        refused = self.wing.provider.refused_logins
        logins = [at + 1000 for at in self.wing.provider.times("password")]
        for before, at in pairwise([0.0, *refused]):
            later = [login for login in logins if login > at + 0.01]  # they are rounded
            if later:
                # Who acts while a renewal runs is owed a login after it, and the machine may sleep in between.
                assert later[0] - at >= 59.9 or any(before <= acted <= later[0] + 0.01 for acted in self.acted)
                assert later[0] - at > 1

    async def well_again(self, keeper: Keeper) -> None:
        self.check_logins()
        self.wing.provider.recover()
        await self.wing.clock.advance(11)  # what is under way ends
        if self.wing.provider.password != "right" or self.wing.provider.refused_logins:
            self.wing.provider.password = "right"
            self.act(keeper)
        await self.wing.clock.advance(5)
        assert keeper.usable()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(STEPS)
def test_a_dead_token_is_never_served_exchanges_never_overlap_and_service_comes_back(steps: list[Step]) -> None:
    asyncio.run(Walk().run(steps))
