"""One identity's token, kept: the one stateful thing of the wing, and what the gateway sees of it.

``Life`` decides, ``Renewal`` exchanges; here are the tasks, the waiting and the credential in use. A renewal is one
task that belongs to nobody who waits for it: whoever leaves, it goes on.
"""

import asyncio
from collections.abc import Awaitable, Coroutine
from math import inf
from typing import Any, Final, TypeVar

from proxy.counters import IdentityMetrics, Trigger
from proxy.errors import ConfigError, TokenError, TokenUnavailableError
from proxy.tokens.clock import Clock
from proxy.tokens.ledger import Ledger
from proxy.tokens.minting import Minting
from proxy.tokens.pair import TokenPair
from proxy.tokens.plan import Life
from proxy.tokens.renewal import Renewal
from proxy.tokens.replicas import Replica
from proxy.tokens.source import Credential
from proxy.tokens.status import publish, status
from proxy.tokens.transport import Transport

T = TypeVar("T")

NAP: Final = 1.0
"""The longest sleep, seconds: the clock that sleeps stops with the machine, so a longer one would wake late."""


class Keeper:
    """A ``TokenSource``.

    State, all of the event loop's thread: the credential in use, the renewal in flight, and ``life``.
    """

    def __init__(
        self,
        life: Life,
        renewal: Renewal | Minting,
        transport: Transport,
        ledger: Ledger,
        clock: Clock,
        *,
        header: str,
        scheme: str,
        timeout: float,
    ) -> None:
        self._life = life
        self._renewal = renewal
        self._transport = transport
        self._ledger = ledger
        self._metrics: IdentityMetrics = ledger.metrics
        self._clock = clock
        self._mono = clock.mono
        self._name = header.encode("ascii")
        self._prefix = header.encode("ascii") + b": " + (scheme.encode("ascii") + b" " if scheme else b"")
        self._timeout = timeout
        self._credential: Credential | None = None
        self._dead_at = -inf  # of the credential in use
        self._serial = 0
        self._in_flight: asyncio.Task[Credential | None] | None = None
        self._loop: asyncio.Task[None] | None = None
        self._replica: Replica | None = None
        self._following: asyncio.Task[None] | None = None
        self._helpers: set[asyncio.Task[Any]] = set()  # asyncio itself keeps no reference to a task
        self._closing = False
        self._heir: Keeper | None = None  # took over after a reload; requests under way still come here
        self._try_again = False  # a secret changed while a renewal may have been using the old one

    # The door to the gateway (proxy.tokens.source.TokenSource)

    @property
    def header(self) -> bytes:
        return self._name.lower()

    def current(self) -> Credential | None:
        return self._credential if self._mono() < self._dead_at else None

    async def obtain(self, correlation_id: str = "") -> Credential:
        credential = self.current()
        if credential is not None:
            return credential
        if self._heir is not None:
            return await self._heir.obtain(correlation_id)
        if self._closing:
            raise TokenUnavailableError("the gateway is shutting down, or no longer keeps this token", retry_after=1.0)
        now = self._clock.now()
        refusal = self._life.refusal(now)
        if refusal is not None:
            raise TokenUnavailableError(refusal.words, retry_after=refusal.retry_after)
        await self._wait(self._renew(self._life.due(now).trigger, urgent=True, correlation_id=correlation_id))
        credential = self.current()
        if credential is not None:
            return credential
        refusal = self._life.refusal(self._clock.now())
        if refusal is not None:
            raise TokenUnavailableError(refusal.words, retry_after=refusal.retry_after)
        raise TokenUnavailableError(f"no token within {self._timeout:g} s", retry_after=1.0)

    def rejected(
        self, credential: Credential, correlation_id: str = ""
    ) -> Credential | Awaitable[Credential | None] | None:
        if self._heir is not None:
            return self._heir.rejected(credential, correlation_id)
        current = self.current()
        # By token: after a reload, or a look into a file, two credentials may carry the same one.
        if current is not None and current.fingerprint != credential.fingerprint:
            return current
        now = self._clock.now()
        self._life.unwanted(now.mono)
        if self._in_flight is None:
            if self._closing:
                return None
            if not self._life.may_cure(now):
                if self._replica is None or not self._life.only_pauses(now.mono):
                    return None
                return self._spawn(self._successor(self._replica.look(), credential))
            self._life.rejection_begins(now.mono)
        elif self._life.known_down and current is not None:
            return None  # what is tried then is a probe: nobody waits for it
        task = self._renew("rejected", urgent=True, correlation_id=correlation_id)
        return self._spawn(self._successor(task, credential))

    def served(self, credential: Credential) -> None:
        if self._heir is not None:
            self._heir.served(credential)
        elif self._credential is not None and credential.fingerprint == self._credential.fingerprint:
            self._life.cured()

    # The operator's side

    def usable(self) -> bool:
        return self.current() is not None

    def status(self) -> dict[str, object]:
        """This identity's part of ``/status``."""
        return status(self._life, self._ledger.history, self._clock.now())

    async def refresh_now(self, trigger: Trigger = "manual") -> None:
        """Renews at once, whatever pauses there were. Raises TokenUnavailableError when that brought no token."""
        before = self._credential
        self._life.forgive()
        task = self._renew(trigger, urgent=True)
        await self._wait(task)
        if self._credential is before or not self.usable():
            error = self._life.last_error
            words = error.words if error and task.done() else f"no token within {self._timeout:g} s"
            raise TokenUnavailableError(words, retry_after=1.0)

    def credentials_changed(self) -> None:
        """A secret's file changed, or SIGHUP: what failed is tried at once; a token that works stays."""
        try:
            self._transport.reread_tls()
        except ConfigError as error:
            words = f"the former TLS files stay in use: {error}"
            self._ledger.log.warning("tls files unusable", identity=self._ledger.identity, words=words)
        wanted = self._life.failures > 0 or not self.usable()
        self._life.forgive()
        if self._renewal.changed(self._life.pair):
            self._life.begin_anew()
            wanted = True
        self._try_again = self._in_flight is not None
        if wanted and self._loop is not None:
            self._renew("credentials_changed", urgent=True)

    async def start(self, predecessor: "Keeper | None" = None) -> None:
        """Takes up what the store holds and begins to keep the token. Does not wait for one.

        predecessor: the same identity's keeper before a reload. Two keepers must never renew one session, so it stops
        renewing first; where both mean the same session, this one goes on with it.
        """
        if predecessor is not None:
            await predecessor.stop_renewing()
            self._serial = predecessor._serial
        pair = await self._renewal.load()
        if predecessor is not None:
            pair = self._renewal.inherit(predecessor._renewal, predecessor._life.pair) or pair
        if pair is not None:
            self._adopt(pair)
            if self._renewal.changed(pair):
                self._life.begin_anew()
            if predecessor is not None:
                predecessor.bequeath(self)
        # Not before: a keeper that is never started must not speak for another.
        self._metrics.usable_probe = self.usable
        self._loop = asyncio.create_task(self._run(), name=f"keep {self._ledger.identity}")
        if isinstance(self._renewal, Renewal) and self._renewal.custody.shared:
            self._replica = Replica(self._life, self._renewal, self._clock, self._ledger, self._take)
            self._following = asyncio.create_task(self._replica.run(), name=f"follow {self._ledger.identity}")

    async def stop_renewing(self) -> None:
        """No renewal begins any more; one in flight finishes and is stored. The token at hand still serves."""
        self._closing = True
        tasks = [task for task in (self._loop, self._following) if task is not None]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        if self._in_flight is not None:
            await self._clock.wait(self._in_flight, 2 * self._timeout)

    def bequeath(self, heir: "Keeper") -> None:
        """The heir goes on with this session: it is not logged out here, and late questions go there."""
        self._heir = heir

    async def close(self) -> None:
        """The end: a renewal in flight finishes and is stored, then what is ours alone is logged out (K8)."""
        await self.stop_renewing()
        pair = self._life.pair
        last = pair if self._heir is None and pair is not None and self._renewal.alone(pair) else None
        if last is not None:
            self._dead_at = -inf
        await self._renewal.close(last)
        for task in [*self._helpers, *([self._in_flight] if self._in_flight else [])]:
            task.cancel()
        await self._transport.close()

    # Inside

    async def _run(self) -> None:
        while True:
            now = self._clock.now()
            publish(self._metrics, self._life, now)
            due = self._life.due(now)
            if self._in_flight is None and due.at <= now.mono:
                self._renew(due.trigger, urgent=not self.usable())
            if self._in_flight is not None:
                await self._clock.wait(self._in_flight, NAP)
            else:
                await self._clock.sleep(min(due.at - now.mono, NAP))

    def _renew(self, trigger: Trigger, *, urgent: bool, correlation_id: str = "") -> asyncio.Task[Credential | None]:
        """The one renewal in flight; begun now when there is none."""
        if self._in_flight is None:
            self._in_flight = asyncio.create_task(
                self._renewed(trigger, urgent=urgent, correlation_id=correlation_id), name="renew"
            )
        return self._in_flight

    async def _renewed(self, trigger: Trigger, *, urgent: bool, correlation_id: str) -> Credential | None:
        """Never raises: it may have no one to tell."""
        try:
            pair = await self._renewal.run(self._life, trigger, urgent=urgent, correlation_id=correlation_id)
            if not self._adopt(pair):
                words = "the token was dead before it arrived: the provider is slow, or its tokens live too short"
                self._life.arrived_dead(TokenError("malformed", words), self._mono())
        except TokenError:  # told to the ledger and to life
            if trigger == "rejected":
                self._life.rejection_failed()
        except Exception as exc:
            self._ledger.log.exception("renewal broke", identity=self._ledger.identity, error=type(exc).__name__)
            error = TokenError("malformed", "an error inside the gateway: see its log")
            self._life.failed(error, "login", self._mono())
        finally:
            self._in_flight = None
        if self._try_again and self._life.failures and not self._closing:
            self._life.forgive()
            self._renew("credentials_changed", urgent=True)
        self._try_again = False
        publish(self._metrics, self._life, self._clock.now())
        return self.current()

    def _adopt(self, pair: TokenPair) -> bool:
        """The pair is ours now; whether its access token can be used."""
        now = self._mono()
        if pair is not self._life.pair:
            self._life.adopted(pair, now)
        if not self._life.alive(now):
            return False
        self._serial += 1
        line = self._prefix + pair.access.encode("ascii") + b"\r\n"
        self._credential = Credential(self._name, line, self._serial, pair.fingerprint)
        self._dead_at = pair.dead_at
        return True

    def _take(self, pair: TokenPair) -> None:
        """Another replica stored it, and ``life`` goes on with it already."""
        self._adopt(pair)
        publish(self._metrics, self._life, self._clock.now())

    async def _successor(self, task: asyncio.Task[Any], old: Credential) -> Credential | None:
        await self._wait(task)
        current = self.current()
        return None if current is None or current.fingerprint == old.fingerprint else current

    async def _wait(self, task: asyncio.Task[Credential | None]) -> None:
        began = self._mono()
        self._metrics.waiters += 1
        try:
            await self._clock.wait(task, self._timeout)
        finally:
            self._metrics.waiters -= 1
            self._metrics.wait.observe(self._mono() - began)

    def _spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.create_task(work)
        self._helpers.add(task)
        task.add_done_callback(self._helpers.discard)
        return task
