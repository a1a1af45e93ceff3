"""The file store's files: read, replaced whole, set aside when unreadable. Everything here blocks: for a thread.

A file is a JSON object, ``{"format": "opentv-proxy-store/1", "pairs": {IDENTITY: SEALED}}``: names in the clear, pairs
sealed. A folder has one such file per identity, ``IDENTITY.json``; else there is one for all. Replacing is write
aside, fsync, rename, fsync of the folder: a reader, and whoever comes after a crash, finds the old or the new one.
"""

import errno
import fcntl
import json
import os
import re
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from proxy.config.model import IDENTITY_NAME
from proxy.errors import StoreError
from proxy.tokens.stores import codec
from proxy.tokens.stores.base import Note, StoredPair
from proxy.tokens.stores.sealing import DamagedError, Sealer, UnknownKeyError

FORMAT: Final = "opentv-proxy-store/1"
LIMIT: Final = 1 << 25
"""Bytes of a file that are read: room for a dozen of the longest pairs there can be (1 MiB a token)."""
PATIENCE: Final = 2.0
"""Seconds to wait for another writer, who needs milliseconds."""
Signature = tuple[int, int, int]


class _UnusableError(Exception):
    """A file, or the entry asked for, that will never be readable. Its text is words."""


class Shelf:
    """path: the folder, or the one file. note: told of what was set aside. look_only: nothing is made, and nothing set
    aside by a reader. now: Unix seconds.

    State is in the files alone, guarded by an advisory lock of a file beside them: several processes may share them.
    """

    def __init__(
        self,
        path: Path,
        *,
        folder: bool,
        sealer: Sealer,
        note: Note,
        look_only: bool = False,
        now: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        # Renaming over a symbolic link would replace the link.
        self._path = path.resolve()
        self._folder = folder
        self._sealer = sealer
        self._note = note
        self._look_only = look_only
        self._now = now
        self._sleep = sleep

    def prepare(self) -> None:
        """Makes the folder where there is none, and finds out whether it can be written. Raises StoreError."""
        if self._look_only:
            return
        place = self._path if self._folder else self._path.parent
        with told(place):
            if not place.is_dir():
                place.mkdir(mode=0o700, parents=True)
            if not self._folder and self._path.is_dir():
                raise IsADirectoryError(errno.EISDIR, "it is a folder by now")
            with self._guarded():
                pass

    def file(self, identity: str) -> Path:
        return self._path / f"{identity}.json" if self._folder else self._path

    def lock_file(self, identity: str) -> Path:
        """What the holder of an identity's lock locks."""
        return self._path / f"{identity}.lock" if self._folder else Path(f"{self._path}.{identity}.lock")

    def signature(self, identity: str) -> Signature | None:
        """Differs whenever the file does; None: there is none."""
        file = self.file(identity)
        with told(file):
            try:
                found = file.stat()
            except FileNotFoundError:
                return None
        return found.st_ino, found.st_mtime_ns, found.st_size

    def read(self, identity: str) -> StoredPair | None:
        file = self.file(identity)
        with told(file):
            try:
                return self._pair(identity, _entries(file))
            except _UnusableError as why:
                if self._look_only:
                    words = "left as it is here; a gateway would set it aside"
                    raise StoreError(f"{file} cannot be read for {identity}: {why}; {words}") from why
                with self._guarded():
                    return self._pair(identity, self._mended(identity))

    def write(self, identity: str, pair: StoredPair) -> None:
        file = self.file(identity)
        sealed = self._sealer.seal(identity, codec.encode(pair))
        with told(file), self._guarded():
            _replace(file, self._mended(identity) | {identity: sealed})

    def remove(self, identity: str) -> None:
        file = self.file(identity)
        with told(file):
            if not file.exists():
                return
        with told(file), self._guarded():
            entries = self._mended(identity)
            if entries.pop(identity, None) is not None:
                _replace(file, entries)

    def names(self) -> list[str]:
        with told(self._path):
            files = list(self._path.glob("*.json")) if self._folder else [self._path]
            found: set[str] = set()
            for file in files:
                with suppress(_UnusableError):
                    found.update(name for name in _entries(file) if self.file(name) == file)
            return sorted(found)

    def _pair(self, identity: str, entries: dict[str, str]) -> StoredPair | None:
        sealed = entries.get(identity)
        try:
            return codec.decode(self._sealer.open(identity, sealed)) if sealed is not None else None
        except UnknownKeyError as error:
            words = f"{error}; put that key back into key_file, and the file into its place, to have the session again"
            raise _UnusableError(words) from error
        except (DamagedError, ValueError) as error:
            raise _UnusableError(str(error)) from error

    def _mended(self, identity: str) -> dict[str, str]:
        """The file's entries. What cannot be read is put aside first: the whole file, of which the other identities'
        entries are kept in place. For the guard's holder."""
        file, entries = self.file(identity), dict[str, str]()
        try:
            entries = _entries(file)
            self._pair(identity, entries)
        except _UnusableError as why:
            aside = _free(f"{file}.corrupt-{datetime.fromtimestamp(self._now(), UTC):%Y%m%dT%H%M%SZ}")
            file.rename(aside)
            entries.pop(identity, None)
            _replace(file, entries)
            self._note("load", identity, f"{file} cannot be read for {identity} and was set aside as {aside}: {why}")
        return entries

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        """One writer at a time, among threads as among processes: the lock belongs to the opened file."""
        path = self._path / ".lock" if self._folder else Path(f"{self._path}.lock")
        guard = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            left = PATIENCE
            while True:
                with suppress(BlockingIOError):
                    fcntl.flock(guard, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                if left <= 0:
                    raise StoreError(f"another process keeps {path} locked and does not go on")
                self._sleep(0.01)
                left -= 0.01
            yield
        finally:
            os.close(guard)


@contextmanager
def told(file: Path) -> Iterator[None]:
    """What the operating system refuses, in words."""
    try:
        yield
    except OSError as exc:
        hint = ""
        if exc.errno in (errno.EBUSY, errno.EXDEV):
            hint = ": where it is mounted by itself it cannot be replaced; mount its folder"
        raise StoreError(f"the token store {file} cannot be used: {exc.strerror or exc}{hint}") from exc


def _entries(file: Path) -> dict[str, str]:
    """Sealed pairs by identity; none where there is no file. Raises OSError, _UnusableError."""
    try:
        # O_NONBLOCK: a named pipe in its place must not hold the thread.
        descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        return {}
    with os.fdopen(descriptor, "rb") as opened:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "it is no regular file")
        content = opened.read(LIMIT + 1)
    try:
        tree = json.loads(content) if len(content) <= LIMIT else None
    except (ValueError, RecursionError):
        tree = None
    if not isinstance(tree, dict) or tree.get("format") != FORMAT or not isinstance(tree.get("pairs"), dict):
        raise _UnusableError("it is empty" if not content else "it is cut off, or not of this gateway's making")
    return {name: text if isinstance(text, str) else "" for name, text in tree["pairs"].items() if _named(name)}


def _named(name: str) -> bool:
    return re.fullmatch(IDENTITY_NAME, name) is not None


def _replace(file: Path, entries: dict[str, str]) -> None:
    """For the guard's holder. No entries: no file."""
    if entries:
        beside = file.with_name(f".{file.name}.tmp")
        descriptor = os.open(
            beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600
        )
        with os.fdopen(descriptor, "wb") as opened:
            os.fchmod(descriptor, 0o600)
            _give(descriptor, file)
            opened.write(json.dumps({"format": FORMAT, "pairs": entries}, indent=1).encode() + b"\n")
            opened.flush()
            os.fsync(descriptor)
        beside.replace(file)
    else:
        file.unlink(missing_ok=True)
    folder = os.open(file.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _give(descriptor: int, file: Path) -> None:
    """To the owner of the file that it will replace: root may have called a command on a gateway's file."""
    with suppress(FileNotFoundError, PermissionError):
        before = file.stat()
        if (before.st_uid, before.st_gid) != (os.geteuid(), os.getegid()):
            os.fchown(descriptor, before.st_uid, before.st_gid)


def _free(path: str) -> Path:
    """The first name, counting up, that nothing has yet."""
    candidate, number = Path(path), 1
    while os.path.lexists(candidate):
        number += 1
        candidate = Path(f"{path}-{number}")
    return candidate
