"""Tokens that live as long as the process: the default. Survives a reload of the configuration, nothing else."""

from asyncio import Event, Lock
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager

from proxy.tokens.stores.base import Lease, StoredPair


class _Held:
    """Nobody else can reach the store, and whoever holds its lock here cannot vanish alone."""

    orphaned = False

    @staticmethod
    def held() -> bool:
        return True


class MemoryStore:
    kind = "memory"
    shared = False
    local = True

    def __init__(self) -> None:
        self._pairs: dict[str, StoredPair] = {}
        self._locks: dict[str, Lock] = {}

    async def load(self, identity: str) -> StoredPair | None:
        return self._pairs.get(identity)

    async def save(self, identity: str, pair: StoredPair) -> None:
        self._pairs[identity] = pair

    async def delete(self, identity: str) -> None:
        self._pairs.pop(identity, None)

    @asynccontextmanager
    async def lock(self, identity: str) -> AsyncIterator[Lease]:
        async with self._locks.setdefault(identity, Lock()):
            yield _Held()

    async def changes(self, identity: str) -> AsyncGenerator[StoredPair | None, None]:
        """Nobody else saves here, so nothing comes after the first."""
        yield self._pairs.get(identity)
        await Event().wait()

    async def names(self) -> list[str]:
        return sorted(self._pairs)

    async def close(self) -> None:
        """Nothing to give back."""
