"""One renewal: under the store's lock, refresh or log in, and store the pair before anybody uses it."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final
from uuid import uuid4

from proxy.counters import Trigger
from proxy.errors import SecretError, StoreError, TokenError
from proxy.tokens.clock import Clock
from proxy.tokens.ledger import Exchange, Ledger
from proxy.tokens.pair import Grant, TokenPair, from_login, from_refresh
from proxy.tokens.plan import Life
from proxy.tokens.stores.base import Store, frozen, thawed
from proxy.tokens.systems.base import Reply, Step, System, TokenRequest
from proxy.tokens.systems.refusals import new_seed
from proxy.tokens.systems.replies import http_date
from proxy.tokens.transport import Transport

EXCHANGES: Final = 3
"""The most one renewal makes: a refresh, once more when its answer was lost, a login (B7)."""
AGAIN_AFTER: Final = 0.5
LOGOUT_TIMEOUT: Final = 3.0
_REFUSED: Final = ("invalid_credentials", "invalid_grant", "operator")


class Renewal:
    """Does what ``Life`` decides. At most one runs at a time: the keeper sees to that.

    binding: whom this configuration logs in as, hashed. timeout: seconds after which a renewal begins no further
    exchange. new_id: makes correlation ids.
    """

    def __init__(
        self,
        system: System,
        transport: Transport,
        store: Store,
        ledger: Ledger,
        clock: Clock,
        *,
        binding: str,
        timeout: float,
        new_id: Callable[[], str] = lambda: str(uuid4()),
    ) -> None:
        self._system = system
        self._transport = transport
        self._store = store
        self._ledger = ledger
        self._clock = clock
        self._binding = binding
        self._timeout = timeout
        self._new_id = new_id
        self._spent_seed: str | None = None  # digest of the last seed that got a definite answer
        self._seed: str | None = None  # digest of the last that was to be presented
        self._device: str | None = None  # the client id of the last login
        self._refused_device: str | None = None  # one with which a login was refused: the next introduces the device

    async def run(self, life: Life, trigger: Trigger, *, urgent: bool, correlation_id: str = "") -> TokenPair:
        """The next pair, stored. Raises TokenError when there is none, with ``life`` told. urgent: somebody waits.
        correlation_id: of the request that asked, if one did."""
        async with self._locked():
            began = self._clock.mono()
            for left in reversed(range(EXCHANGES)):
                step = life.step(self._clock.mono())
                if step == "login" and (pause := life.login_wait(self._clock.mono())):
                    await self._clock.sleep(pause)
                try:
                    pair = await self._exchange(step, life, trigger, correlation_id or self._new_id())
                except TokenError as error:
                    if step == "refresh":
                        life.refresh_failed(error)
                    now = self._clock.mono()
                    patient = urgent and now - began < self._timeout
                    if not (left and life.carries_on(step, error, now, patient=patient)):
                        life.failed(error, step, now)
                        raise
                    if error.lost:
                        await self._clock.sleep(AGAIN_AFTER)
                else:
                    # Before use: after a crash between the two, the stored refresh token would be a spent one.
                    await self._save(pair)
                    return pair
        raise AssertionError("the last exchange returns or raises")

    async def load(self) -> TokenPair | None:
        """What the store still holds for this identity and configuration."""
        try:
            stored = await self._store.load(self._ledger.identity)
        except StoreError as error:
            self._ledger.store_failed("load", error)
            return None
        return thawed(stored, self._clock.now()) if stored and stored.binding == self._binding else None

    async def forget(self) -> None:
        """Takes the pair out of the store, unless it is a later configuration's by now."""
        try:
            stored = await self._store.load(self._ledger.identity)
            if stored is not None and stored.binding == self._binding:
                await self._store.delete(self._ledger.identity)
        except StoreError as error:
            self._ledger.store_failed("delete", error)

    def changed(self, pair: TokenPair | None) -> bool:
        """Whether a person put another seed in place than the one that the pair's session came from."""
        if pair is None or pair.seed is None:
            return False
        try:
            return self._system.seed_digest() not in (None, pair.seed, self._spent_seed)
        except SecretError:
            return False  # the first one may be gone: its successor is what counts

    async def logout(self, pair: TokenPair) -> None:
        """Ends the pair's session at the provider: best effort, short (K11)."""
        if pair.refresh is None:
            return
        correlation_id = self._new_id()
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

    async def _exchange(self, step: Step, life: Life, trigger: Trigger, correlation_id: str) -> TokenPair:
        exchange = Exchange(step, trigger, self._clock.now(), correlation_id)
        try:
            request = self._request(step, life.pair)
            reply = await self._transport.exchange(request, exchange.correlation_id, probing=life.known_down)
            grant = self._read(reply, request, exchange)
        except SecretError as exc:
            error = TokenError("operator", str(exc))
            self._ledger.failed(exchange, error, self._clock.now())
            raise error from exc
        except TokenError as error:
            self._ledger.failed(exchange, error, self._clock.now())
            raise
        if step == "refresh" and life.pair is not None:
            pair = from_refresh(grant, exchange.sent, life.pair)
        else:
            opened = self._system.seed is None
            pair = from_login(grant, exchange.sent, opened=opened, seed=None if opened else self._spent_seed)
        self._ledger.obtained(exchange, pair, self._clock.now())
        return pair

    def _request(self, step: Step, pair: TokenPair | None) -> TokenRequest:
        if step == "refresh" and pair is not None and pair.refresh is not None:
            return self._system.refresh(pair.refresh)
        self._seed = self._system.seed_digest()
        if self._system.seed is not None and self._seed in (self._spent_seed, pair.seed if pair else None):
            raise TokenError("invalid_grant", f"the session is over: {new_seed(self._system.seed)}")
        self._device = pair.client_id if pair and pair.client_id != self._refused_device else None
        return self._system.login(self._device)

    def _read(self, reply: Reply, request: TokenRequest, exchange: Exchange) -> Grant:
        received = self._clock.now()
        date = http_date(reply.headers.get("date", ""))
        if date is not None:
            self._ledger.skew(date, exchange.sent, received)
        seed = exchange.grant == "login" and self._system.seed is not None
        try:
            grant = self._system.read(reply, request, exchange.grant, received.wall)
        except TokenError as error:
            if seed and error.result == "invalid_grant":
                self._spent_seed = self._seed
            if exchange.grant == "login" and error.result in _REFUSED:
                self._refused_device = self._device
            raise
        if seed:
            self._spent_seed = self._seed
        if date is None and grant.issued_at is not None:
            self._ledger.skew(grant.issued_at, exchange.sent, received)
        return grant

    @asynccontextmanager
    async def _locked(self) -> AsyncIterator[None]:
        """The store's lock; none when the store is down: the replica then keeps a session of its own (B6)."""
        try:
            lock = self._store.lock(self._ledger.identity)
            await lock.__aenter__()
        except StoreError as error:
            self._ledger.store_failed("lock", error)
            yield
            return
        try:
            yield
        finally:
            await lock.__aexit__(None, None, None)

    async def _save(self, pair: TokenPair) -> None:
        try:
            await self._store.save(self._ledger.identity, frozen(pair, self._binding))
        except StoreError as error:
            self._ledger.store_failed("save", error)
