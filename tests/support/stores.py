"""Stores of each kind as the gateway builds them, and what they tell the operator."""

import asyncio
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from proxy.config import Store as Section
from proxy.counters import StoreMetrics
from proxy.tokens.stores import build_store
from proxy.tokens.stores.base import Store, StoredPair

PAIR = StoredPair(
    access="eyJhbGciOiJSUzI1NiJ9.THE-ACCESS-TOKEN-NOBODY-MAY-SEE.signature",
    refresh="eyJhbGciOiJIUzI1NiJ9.THE-REFRESH-TOKEN-NOBODY-MAY-SEE.signature",
    binding="b" * 64,
    obtained=1_700_000_000.25,
    expires=1_700_000_300.25,
    refresh_expires=None,
    session_began=1_699_999_000.0,
    session_ends=None,
    full_life=300.0,
    session_opened=True,
    issued_at=1_700_000_000.0,
    scope="profile",
)
"""Its refresh token never expires, so that no store drops it."""


class Told:
    """A log, and the metrics beside it."""

    def __init__(self) -> None:
        self.words: list[str] = []
        self.metrics = StoreMetrics()

    def warning(self, event: str, **fields: object) -> None:
        assert event in ("store failed", "configuration")
        assert event != "store failed" or fields["identity"]
        self.words.append(str(fields["words"]))

    def counted(self) -> dict[str, int]:
        return {name: count for name, count in self.metrics.errors.items() if count}


def key_line(number: int = 0) -> str:
    """A key as a line of a key file."""
    return urlsafe_b64encode(bytes((number + step) % 256 for step in range(32))).decode()


def key_file(folder: Path, *numbers: int) -> Path:
    file = folder / "keys"
    file.write_text("".join(f"{key_line(number)}\n" for number in numbers or (0,)))
    file.chmod(0o600)
    return file


class Workshop:
    """Makes stores that share their files or their Redis, as processes do; closes them. told: by all of them."""

    def __init__(self, section: dict[str, Any] | str) -> None:
        self.section = section
        self.told = Told()
        self._made: list[Store] = []

    @property
    def prefix(self) -> str:
        """Of the keys in Redis."""
        assert isinstance(self.section, dict)
        prefix: str = self.section["redis"]["prefix"]
        return prefix

    def store(self, **changes: Any) -> Store:
        """changes: keys of the section that differ for this one."""
        section = self.section
        if isinstance(section, dict):
            ((kind, keys),) = section.items()
            section = {kind: keys | changes}
        made = build_store(Section.model_validate(section), self.told.metrics, self.told)
        self._made.append(made)
        return made

    async def close(self) -> None:
        for store in self._made:
            await store.close()


@asynccontextmanager
async def watching(store: Store, identity: str = "opentv") -> AsyncIterator[Callable[[], list[StoredPair | None]]]:
    """What ``changes`` brought so far, the first one (what there was) included."""
    found: list[StoredPair | None] = []

    async def watch() -> None:
        changes = store.changes(identity)
        while True:
            found.append(await anext(changes))

    task = asyncio.ensure_future(watch())
    try:
        yield lambda: found
    finally:
        task.cancel()
        await asyncio.wait((task,))
