"""Which watched files have new content. Polled, because a rename or a swapped symlink escapes an inode's watch."""

import hashlib
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

SETTLED = 2.0
"""Seconds after which a file's time stamps can be trusted. Within them a second write of the same length may leave
the stamp as it was (git calls such an entry racily clean), so the content is read again."""

LIMIT = 1 << 20
"""Bytes of a file that are compared."""


@dataclass(frozen=True, slots=True)
class _Seen:
    stamp: tuple[int, int, int, int, int]
    digest: bytes
    settled: bool


class FileWatcher:
    """Remembers the content of files; ``poll`` tells which differ from what the last poll saw.

    Symlinks are followed, so a replaced file (rename) and a Kubernetes volume's swapped ``..data`` are noticed. A file
    that vanishes is no change (the old content stays in force); one that appears is. ``now`` is Unix time in seconds.
    State: ``_seen``, touched by ``watch`` and ``poll`` only, which belong to one thread.
    """

    def __init__(self, paths: Iterable[Path] = (), now: Callable[[], float] = time.time) -> None:
        self._now = now
        self._seen: dict[Path, _Seen | None] = {}
        self.watch(paths)

    def watch(self, paths: Iterable[Path]) -> None:
        """Watch exactly these files from now on. What was watched before keeps what was seen of it."""
        self._seen = {path: self._seen[path] if path in self._seen else self._look(path, None) for path in set(paths)}

    def poll(self) -> set[Path]:
        """The watched files whose content changed since the last poll (or since they began to be watched)."""
        changed: set[Path] = set()
        for path, before in self._seen.items():
            after = self._look(path, before)
            if after is not None and (before is None or after.digest != before.digest):
                changed.add(path)
            self._seen[path] = after or before
        return changed

    def _look(self, path: Path, before: _Seen | None) -> _Seen | None:
        try:
            stat = path.stat()
            stamp = (stat.st_dev, stat.st_ino, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_size)
            if before is not None and before.settled and before.stamp == stamp:
                return before
            settled = self._now() - max(stat.st_mtime, stat.st_ctime) > SETTLED
            with path.open("rb") as file:
                return _Seen(stamp, hashlib.sha256(file.read(LIMIT)).digest(), settled)
        except OSError:
            return None
