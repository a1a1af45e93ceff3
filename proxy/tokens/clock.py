"""The one place of the wing that reads a clock or sleeps; tests pass their own."""

import asyncio
import time
from collections.abc import Awaitable
from typing import Protocol

from proxy.tokens.pair import Moment


class Clock(Protocol):
    def mono(self) -> float:
        """Seconds that neither jump nor stop while the machine sleeps."""

    def now(self) -> Moment:
        """Both clocks, read together."""

    async def sleep(self, seconds: float) -> None: ...

    async def wait(self, work: Awaitable[object], seconds: float) -> bool:
        """Waits for ``work``, a task or future, and says whether it finished in time; never cancels it."""


class SystemClock:
    """CLOCK_BOOTTIME counts the machine's sleep, which asyncio's own clock (CLOCK_MONOTONIC) does not: who sleeps here
    for long wakes late after a suspend, so nobody does."""

    @staticmethod
    def mono() -> float:
        return time.clock_gettime(time.CLOCK_BOOTTIME)

    @staticmethod
    def now() -> Moment:
        return Moment(time.clock_gettime(time.CLOCK_BOOTTIME), time.time())

    @staticmethod
    async def sleep(seconds: float) -> None:
        await asyncio.sleep(seconds)

    @staticmethod
    async def wait(work: Awaitable[object], seconds: float) -> bool:
        future = asyncio.ensure_future(work)
        done, _ = await asyncio.wait((future,), timeout=seconds)
        return bool(done)
