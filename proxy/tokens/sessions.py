"""The ends of sessions that nobody uses any more (K8, K11): best effort, short, never in anybody's way."""

import asyncio
from math import inf
from typing import Final
from uuid import uuid4

from proxy.errors import SecretError, TokenError
from proxy.tokens.clock import Clock
from proxy.tokens.ledger import Ledger
from proxy.tokens.pair import TokenPair
from proxy.tokens.systems.base import System
from proxy.tokens.transport import Transport

GRACE: Final = 5.0
"""Seconds before a replaced session is logged out: requests signed with its token may still be on their way, and other
replicas take up the new one within a second."""
LOGOUT_TIMEOUT: Final = 3.0


class Sessions:
    """enabled: the configuration's ``logout``. Only sessions that a login of the gateway opened are ever ended.

    State, of the event loop's thread: the sessions to end, each with the task that will.
    """

    def __init__(self, system: System, transport: Transport, ledger: Ledger, clock: Clock, *, enabled: bool) -> None:
        self._system = system
        self._transport = transport
        self._ledger = ledger
        self._clock = clock
        self._enabled = enabled
        self._leaving: dict[asyncio.Task[None], TokenPair] = {}

    def ours(self, pair: TokenPair) -> bool:
        """Whether the session is one that the gateway may end."""
        return self._enabled and pair.session_opened

    def retire(self, pair: TokenPair) -> None:
        """Ends the pair's session, in a while; nothing where it is not the gateway's to end."""
        if self.ours(pair):
            ends = inf if pair.session_ends is None else pair.session_ends
            rest = min(pair.refresh_expires, ends) - self._clock.mono()
            task = asyncio.create_task(self._end_later(pair, min(GRACE, rest / 2)))
            self._leaving[task] = pair
            task.add_done_callback(lambda done: self._leaving.pop(done, None))

    async def close(self, last: TokenPair | None) -> None:
        """The end of the process: what waits is ended now, and so is the last session, if given."""
        pairs = [*self._leaving.values(), *([last] if last and self.ours(last) else [])]
        for task in self._leaving:
            task.cancel()
        await asyncio.gather(*(self._end(pair) for pair in pairs))

    async def _end_later(self, pair: TokenPair, pause: float) -> None:
        await self._clock.sleep(pause)
        await self._end(pair)

    async def _end(self, pair: TokenPair) -> None:
        if pair.refresh is None:
            return
        correlation_id = str(uuid4())
        fields = {"identity": self._ledger.identity, "correlation_id": correlation_id}
        try:
            request = self._system.logout(pair.access, pair.refresh)
            if request is None:
                return
            reply = await self._transport.exchange(request, correlation_id, within=LOGOUT_TIMEOUT)
        except (TokenError, SecretError) as error:
            self._ledger.log.info("logout failed", words=str(error), **fields)
            return
        # 204 also the second time; 400 when the session is gone, which is as good.
        self._ledger.log.info("logged out" if reply.status < 300 else "logout refused", status=reply.status, **fields)
