"""One identity's place in the store, and what this process knows of it: which pairs are the fleet's, which its own."""

from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from proxy.counters import StoreOperation
from proxy.errors import LockLostError, StoreError
from proxy.tokens.clock import Clock
from proxy.tokens.ledger import Ledger
from proxy.tokens.pair import TokenPair
from proxy.tokens.stores.base import Lease, Store, StoredPair, frozen, thawed

REMEMBERED: Final = 64


class Custody:
    """binding: whom this configuration logs in as, hashed; pairs of others are not seen here.

    A pair that was ever in the store is the fleet's: any replica may have it, and only who holds the lock and finds it
    stored may present its refresh token. A pair that could not be stored is this process's own. A store that nobody
    shares makes no difference between the two.

    State, of the event loop's thread: fingerprint and session of the last pairs that were in the store.
    """

    def __init__(self, store: Store, ledger: Ledger, clock: Clock, *, binding: str) -> None:
        self._store = store
        self._ledger = ledger
        self._clock = clock
        self._binding = binding
        self._known: deque[tuple[str, str]] = deque(maxlen=REMEMBERED)
        self.shared = store.shared
        self.local = store.local

    def inherit(self, former: "Custody") -> bool:
        """Goes on with what a former configuration's keeper knows, if that meant the same."""
        if self._binding == former._binding:
            self._known.extend(former._known)
        return self._binding == former._binding

    def known(self, pair: TokenPair) -> bool:
        """Whether the pair is or was in the store."""
        return any(fingerprint == pair.fingerprint for fingerprint, _ in self._known)

    def alone(self, pair: TokenPair) -> bool:
        """Whether nobody else can know of the pair's session."""
        return not self.shared or all(session != pair.session for _, session in self._known)

    def note(self, pair: TokenPair) -> None:
        if not self.known(pair):
            self._known.append((pair.fingerprint, pair.session))

    async def load(self) -> TokenPair | None:
        """What is stored for this identity and configuration. Raises StoreError, told to the operator."""
        try:
            return self._mine(await self._store.load(self._ledger.identity))
        except StoreError as error:
            self._ledger.store_failed("load", error)
            raise

    async def save(self, pair: TokenPair) -> bool:
        """Whether the pair is stored, so the fleet's from now on. False when the store is down. Raises LockLostError
        when somebody else had or has the lock: what is stored may be newer."""
        # Before: it may be seen there before this returns.
        self.note(pair)
        try:
            await self._store.save(self._ledger.identity, frozen(pair, self._binding))
        except StoreError as error:
            self._known.remove((pair.fingerprint, pair.session))
            self._ledger.store_failed("save", error)
            if isinstance(error, LockLostError):
                raise
            return False
        return True

    async def forget(self) -> None:
        """Takes the pair out of the store, unless it is a later configuration's by now."""
        operation: StoreOperation = "load"
        try:
            if self._mine(await self._store.load(self._ledger.identity)) is not None:
                operation = "delete"
                await self._store.delete(self._ledger.identity)
        except StoreError as error:
            self._ledger.store_failed(operation, error)

    @asynccontextmanager
    async def lock(self) -> AsyncIterator[Lease | None]:
        """The store's lock; None when the store is down."""
        try:
            lock = self._store.lock(self._ledger.identity)
            lease = await lock.__aenter__()
        except StoreError as error:
            self._ledger.store_failed("lock", error)
            yield None
            return
        try:
            yield lease
        finally:
            await lock.__aexit__(None, None, None)

    async def changes(self) -> AsyncGenerator[TokenPair | None, None]:
        """``Store.changes``, of this configuration. Each time, the store was reached."""
        async for stored in self._store.changes(self._ledger.identity):
            yield self._mine(stored)

    def _mine(self, stored: StoredPair | None) -> TokenPair | None:
        now = self._clock.now()
        if stored is None or stored.binding != self._binding:
            return None
        return None if stored.worthless_at is not None and stored.worthless_at <= now.wall else thawed(stored, now)
