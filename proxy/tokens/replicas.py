"""What a replica does beside renewing: it takes up what others stored, and stores what it could not."""

import asyncio
from collections.abc import Callable
from math import inf
from typing import Final

from proxy.tokens.clock import Clock
from proxy.tokens.ledger import Ledger
from proxy.tokens.pair import TokenPair
from proxy.tokens.plan import Life
from proxy.tokens.renewal import Renewal

SHARE_AGAIN: Final = 5.0
"""Seconds between two tries to store a pair, while nothing says that the store is back."""
LOOK_EVERY: Final = 1.0
LOOK_AGAIN: Final = 0.25
"""Seconds between two looks because of rejections: many a request may be refused meanwhile."""


class Replica:
    """One keeper's part in the fleet. take: gets what others stored, in place of the pair at hand.

    State, of the event loop's thread: when to try to store again; the last look into the store, and when the next may
    be.
    """

    def __init__(
        self, life: Life, renewal: Renewal, clock: Clock, ledger: Ledger, take: Callable[[TokenPair], None]
    ) -> None:
        self._life = life
        self._renewal = renewal
        self._clock = clock
        self._ledger = ledger
        self._take = take
        self._share_at = -inf
        self._looking: asyncio.Task[None] | None = None
        self._look_at = -inf

    async def run(self) -> None:
        """Until cancelled. A fault of ours must not leave a replica that follows nobody: it begins again."""
        try:
            while True:
                try:
                    async with asyncio.TaskGroup() as tasks:
                        tasks.create_task(self._follow(), name="follow the store")
                        tasks.create_task(self._share(), name="store later")
                except Exception as exc:
                    error = type(exc).__name__
                    self._ledger.log.exception("following broke", identity=self._ledger.identity, error=error)
                await self._clock.sleep(LOOK_EVERY)
        finally:
            if self._looking is not None:
                self._looking.cancel()

    def look(self) -> asyncio.Task[None]:
        """Takes up what another has stored, or is about to: for a rejection while this one's own exchanges pause."""
        if self._looking is None or (self._looking.done() and self._clock.mono() >= self._look_at):
            self._looking = asyncio.create_task(self._look(), name="look into the store")
        return self._looking

    async def _look(self) -> None:
        found = await self._renewal.look(self._life)
        self._look_at = self._clock.mono() + LOOK_AGAIN
        if found is not None:
            self._take(found)

    async def _follow(self) -> None:
        async for found in self._renewal.custody.changes():
            self._share_at = -inf
            self._life.entitle(presentable=True)  # the store was reached: the next renewal sees for itself
            if found is not None and self._renewal.follow(self._life, found):
                self._take(found)

    async def _share(self) -> None:
        while True:
            await self._clock.sleep(LOOK_EVERY)
            pair = self._life.pair
            if pair is None or self._renewal.custody.known(pair) or self._clock.mono() < self._share_at:
                continue
            self._share_at = self._clock.mono() + SHARE_AGAIN
            agreed = await self._renewal.share(self._life)
            if agreed:
                self._take(agreed)
