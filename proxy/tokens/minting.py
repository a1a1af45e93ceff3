"""One renewal where no provider is asked: the token is made, or read from a file, on this machine. To the keeper it is
what ``renewal`` is; but there is no login, no session to end, and nothing that a store need keep."""

from typing import Final
from uuid import uuid4

from proxy.counters import Trigger
from proxy.errors import SecretError, TokenError
from proxy.tokens.clock import Clock
from proxy.tokens.ledger import Exchange, Ledger
from proxy.tokens.pair import Grant, TokenPair, from_login
from proxy.tokens.plan import Life
from proxy.tokens.systems.base import Local

LOOK_EVERY: Final = 0.25
"""Seconds between two looks at the file while somebody waits for it to change."""

SOON: Final = 2.0

_ANYTHING: Final = frozenset[Trigger](("startup", "manual", "credentials_changed"))
"""Triggers that the token at hand answers as well as a new one."""


class Minting:
    """timeout: the longest that a renewal waits for the file, where somebody waits for the renewal."""

    def __init__(self, local: Local, ledger: Ledger, clock: Clock, *, timeout: float) -> None:
        self._local = local
        self._ledger = ledger
        self._clock = clock
        self._timeout = timeout

    async def run(self, life: Life, trigger: Trigger, *, urgent: bool, correlation_id: str = "") -> TokenPair:
        """The next pair. Raises TokenError when there is none, with ``life`` told."""
        exchange = Exchange("refresh", trigger, self._clock.now(), correlation_id or str(uuid4()))
        # Looks end before the patience of those who wait does, so that they learn why.
        until = exchange.sent.mono + (self._timeout - LOOK_EVERY if urgent else 0.0)
        told = ""
        while True:
            now = self._clock.now()
            last = now.mono + LOOK_EVERY > until
            try:
                grant = self._fresh(self._local.mint(now.wall), life, trigger, now.mono, waits=not last)
                break
            except (SecretError, TokenError) as error:
                # A look costs nothing: once nothing can be served, the next one is soon, however long this lasts.
                soon = None if life.alive(now.mono) else SOON
                failed = (
                    error if isinstance(error, TokenError) else TokenError("malformed", str(error), retry_after=soon)
                )
                # With nothing to serve, the first look's cause is news already: /readyz tells it.
                if failed.words != told and (last or soon is not None):
                    self._ledger.failed(exchange, failed, now)
                    told = failed.words
                if last:
                    life.failed(failed, "refresh", now.mono)
                    raise failed from error
            await self._clock.sleep(LOOK_EVERY)
        pair = from_login(grant, now, opened=False)
        self._ledger.obtained(exchange, pair, now)
        return pair

    def inherit(self, former: object, pair: TokenPair | None) -> TokenPair | None:  # noqa: ARG002 (as in ``Renewal``)
        """The next look tells as much."""
        return None

    async def load(self) -> TokenPair | None:
        """Nothing is stored: the file is nearer than any store."""
        return None

    def alone(self, pair: TokenPair) -> bool:  # noqa: ARG002 (a renewal for a provider may share it)
        """There is no session to end."""
        return False

    async def close(self, last: TokenPair | None) -> None:
        """There is no session to end."""

    def changed(self, pair: TokenPair | None) -> bool:  # noqa: ARG002 (a renewal for a provider compares)
        """Asked when a file changed: only the next look tells what is in it now."""
        return True

    def _fresh(self, grant: Grant, life: Life, trigger: Trigger, now: float, *, waits: bool) -> Grant:
        """The grant, unless it is the token that was to be replaced. One without an end is only looked at. waits: for
        another than the one that the platform refused; where none comes, that one is as good as it was: it may lack a
        permission, and no exchange has failed."""
        pair = life.pair
        if pair is None or grant.access != pair.access or trigger in _ANYTHING:
            return grant
        if trigger == "rejected" and life.alive(now):
            if waits:
                raise TokenError("timeout", f"the platform refused the token in {self._local.place}")
            return grant
        if pair.expires - pair.obtained.mono < float("inf"):
            raise TokenError("timeout", f"the token in {self._local.place} nears its end, and no other came")
        return grant
