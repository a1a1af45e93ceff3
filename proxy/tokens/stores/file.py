"""Tokens in files: survive the process, and serve several processes of one host."""

import asyncio
import fcntl
import os
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from proxy.errors import StoreError
from proxy.tokens.stores.base import Lease, Note, StoredPair
from proxy.tokens.stores.shelf import Shelf, Signature
from proxy.tokens.stores.turns import turn, whole

LOOK_EVERY: Final = 0.5
"""Seconds between two looks at a file that another process may have replaced."""
_HELD, _FREE = b"held\n", b"free\n"


class FileLock:
    """An advisory lock (flock) of a file that is never removed. The kernel frees it when its process dies, however;
    the word in the file then still says that it was held."""

    def __init__(self, descriptor: int, *, orphaned: bool) -> None:
        self._descriptor = descriptor
        self.orphaned = orphaned
        self.spoilt = False  # what was got under it could not be saved

    @classmethod
    def take(cls, path: Path) -> "FileLock | None":
        """None when somebody else has it. Raises StoreError."""
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if not os.path.samestat(path.stat(), os.fstat(descriptor)):
                    raise BlockingIOError  # somebody replaced the file meanwhile: that lock is of nothing
                taken = cls(descriptor, orphaned=os.pread(descriptor, len(_HELD), 0) == _HELD)
                os.pwrite(descriptor, _HELD, 0)
            except BaseException:
                os.close(descriptor)
                raise
        except (BlockingIOError, FileNotFoundError) as exc:
            if isinstance(exc, FileNotFoundError) and not path.parent.is_dir():
                raise StoreError(f"the token store's folder {path.parent} is gone") from exc
            return None
        except OSError as exc:
            raise StoreError(f"the token store's lock {path} cannot be used: {exc.strerror or exc}") from exc
        return taken

    def held(self) -> bool:
        return True

    def free(self) -> None:
        try:
            if not self.spoilt:
                os.pwrite(self._descriptor, _FREE, 0)
        except OSError:
            pass  # no room for the word: whoever comes next is told to be careful, and that is all
        finally:
            os.close(self._descriptor)


class FileStore:
    """note: told of what no caller learns of. sleep: between two looks.

    State: the locks held by this process, of the event loop's thread. Files are touched in threads only.
    """

    kind = "file"
    shared = True
    local = True

    def __init__(self, shelf: Shelf, note: Note, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        self._shelf = shelf
        self._note = note
        self._sleep = sleep
        self._locks: dict[str, FileLock] = {}

    async def load(self, identity: str) -> StoredPair | None:
        return await asyncio.to_thread(self._shelf.read, identity)

    async def save(self, identity: str, pair: StoredPair) -> None:
        try:
            await whole(asyncio.to_thread(self._shelf.write, identity, pair))
        except StoreError:
            if identity in self._locks:
                self._locks[identity].spoilt = True
            raise

    async def delete(self, identity: str) -> None:
        await whole(asyncio.to_thread(self._shelf.remove, identity))

    @asynccontextmanager
    async def lock(self, identity: str) -> AsyncIterator[Lease]:
        file = self._shelf.lock_file(identity)

        async def attempt() -> FileLock | None:
            return await asyncio.to_thread(FileLock.take, file)

        async def free(lock: FileLock) -> None:
            await asyncio.to_thread(lock.free)

        lock = await turn(attempt, free, self._sleep)
        self._locks[identity] = lock
        try:
            yield lock
        finally:
            del self._locks[identity]
            await whole(free(lock))

    async def changes(self, identity: str) -> AsyncGenerator[StoredPair | None, None]:
        seen: Signature | bool | None = False  # nothing yet
        shown: StoredPair | bool | None = False
        failing = False
        while True:
            fresh: StoredPair | bool | None = False
            try:
                # The signature first: a file replaced between the two is looked at again.
                signature = await asyncio.to_thread(self._shelf.signature, identity)
                if signature != seen:
                    fresh = await self.load(identity)
                    seen, failing = signature, False
            except StoreError as error:
                if not failing:
                    self._note("load", identity, str(error))
                failing, seen, shown = True, False, False
            if not isinstance(fresh, bool) and fresh != shown:
                shown = fresh
                yield fresh
            await self._sleep(LOOK_EVERY)

    async def names(self) -> list[str]:
        return await asyncio.to_thread(self._shelf.names)

    async def close(self) -> None:
        """Nothing to give back."""
