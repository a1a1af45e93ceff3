"""What a token store is. Memory, file and redis follow the same contract (tests/contract/test_store.py)."""

from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from math import inf
from typing import Protocol

from proxy.counters import StoreOperation
from proxy.tokens.pair import Moment, TokenPair


@dataclass(frozen=True, slots=True)
class StoredPair:
    """A pair at rest. Times are Unix seconds (no other clock means anything to another process); None: no known end.

    binding: whom the pair belongs to (endpoint, client, user), hashed: a pair of a former configuration is not used.
    """

    access: str = field(repr=False)
    refresh: str | None = field(repr=False)
    binding: str
    obtained: float
    expires: float | None
    refresh_expires: float | None
    session_began: float
    session_ends: float | None
    full_life: float | None
    session_opened: bool
    issued_at: float | None = None
    scope: str = ""
    client_id: str | None = None
    seed: str | None = None
    session: str = ""

    @property
    def worthless_at(self) -> float | None:
        """When neither of the two tokens is good for anything any more, Unix seconds; None: no known end."""
        ends = [inf if end is None else end for end in (self.refresh_expires, self.session_ends)]
        last = max(inf if self.expires is None else self.expires, min(ends) if self.refresh is not None else -inf)
        return None if last == inf else last


def frozen(pair: TokenPair, binding: str) -> StoredPair:
    """The pair as it is stored."""

    def wall(mono: float | None) -> float | None:
        return None if mono is None or mono == inf else pair.wall(mono)

    return StoredPair(
        access=pair.access,
        refresh=pair.refresh,
        binding=binding,
        obtained=pair.obtained.wall,
        expires=wall(pair.expires),
        refresh_expires=wall(pair.refresh_expires),
        session_began=pair.wall(pair.session_began),
        session_ends=wall(pair.session_ends),
        full_life=None if pair.full_life == inf else pair.full_life,
        session_opened=pair.session_opened,
        issued_at=pair.issued_at,
        scope=pair.scope,
        client_id=pair.client_id,
        seed=pair.seed,
        session=pair.session,
    )


def thawed(stored: StoredPair, now: Moment) -> TokenPair:
    """The pair as it lives on, its times moved to this process' clocks."""

    def mono(wall: float) -> float:
        return wall - now.wall + now.mono

    return TokenPair(
        access=stored.access,
        refresh=stored.refresh,
        obtained=Moment(mono(stored.obtained), stored.obtained),
        expires=inf if stored.expires is None else mono(stored.expires),
        refresh_expires=inf if stored.refresh_expires is None else mono(stored.refresh_expires),
        session_began=mono(stored.session_began),
        session_ends=None if stored.session_ends is None else mono(stored.session_ends),
        full_life=inf if stored.full_life is None else stored.full_life,
        session_opened=stored.session_opened,
        issued_at=stored.issued_at,
        scope=stored.scope,
        client_id=stored.client_id,
        seed=stored.seed,
        session=stored.session,
    )


class Lease(Protocol):
    """The lock as its holder sees it. Good until the ``async with`` ends, unless it is lost before."""

    @property
    def orphaned(self) -> bool:
        """The holder before vanished, or could not save what it got: the refresh token that is stored may have been
        presented already. Where the store is ``local`` that holder is dead; else it may only be frozen."""

    def held(self) -> bool:
        """Whether this process is still beyond doubt the only holder. Worth asking right before a refresh token is
        presented: a process that was frozen may have been taken for dead."""


class Store(Protocol):
    """One pair an identity. Every method may raise StoreError: the store is down. Serving goes on without it then."""

    @property
    def kind(self) -> str:
        """``memory``, ``file``, ``redis``: the metric's label."""

    @property
    def shared(self) -> bool:
        """Whether other processes, now or later, may use the sessions kept here: then nobody logs them out."""

    @property
    def local(self) -> bool:
        """Whether all who share it are of this host, and the kernel frees a dead holder's lock, and no other's."""

    async def load(self, identity: str) -> StoredPair | None:
        """What was saved last; None when there is nothing. What cannot be read for good is set aside first, said in
        the log and counted, and is nothing from then on."""

    async def save(self, identity: str, pair: StoredPair) -> None:
        """Replaces what there is, wholly or not at all. When this returns, the pair is safe, and who watches
        ``changes`` learns of it within a second.

        Raises LockLostError, a StoreError, and leaves what there is, when another process has had the lock since this
        one got it, or has it now and this one does not: what is stored may be newer.
        """

    async def delete(self, identity: str) -> None:
        """Nothing is left of it; no error when there was nothing. Needs no lock."""

    def lock(self, identity: str) -> AbstractAsyncContextManager[Lease]:
        """At most one holder an identity, across everything that shares the store. Waits for its turn as long as the
        caller bears it; busy is no error. Outlives the slowest exchange; that of a dead process is free again within
        ``DEAD_HOLDER`` seconds."""

    def changes(self, identity: str) -> AsyncGenerator[StoredPair | None, None]:
        """What is stored now (None: nothing), then again each time it is found changed, by whomever: this process
        included. Several changes at a time may come as one.

        Never ends and raises no StoreError: while the store is down nothing comes, and when it is back what it holds.
        Belongs into a task of its own, which is cancelled when nobody listens any more.
        """

    async def names(self) -> list[str]:
        """The identities of which something is stored, sorted."""

    async def close(self) -> None:
        """Gives back connections. Nothing else may be asked afterwards."""


DEAD_HOLDER = 8.0
"""Seconds after which the lock of a process that died is free at the latest. Less than an identity's default timeout,
so that whoever waits for a token still gets one."""

Note = Callable[[StoreOperation, str, str], None]
"""Tells an operator of what a store met and no caller learns of: which operation, for which identity, and words. Counts
as its error."""
