"""Tokens in Redis: survive the process, and serve replicas on any number of hosts.

A replica that cannot open what is stored leaves it alone: one with a newer key file may have written it. It goes on as
if Redis were down, and says so, until its own key file is brought up to date.
"""

import asyncio
import re
import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from proxy.config.model import IDENTITY_NAME
from proxy.errors import LockLostError, StoreError
from proxy.tokens.stores import codec, scripts
from proxy.tokens.stores.base import DEAD_HOLDER, Lease, Note, StoredPair
from proxy.tokens.stores.link import Link
from proxy.tokens.stores.sealing import DamagedError, Sealer, UnknownKeyError
from proxy.tokens.stores.turns import turn, whole

RENEWALS: Final = 4
"""How often a lease is renewed before it would end."""
SURE: Final = 1 / 8
"""Of a lease that must be left for its holder to count on it."""
FENCE: Final = 7 * 86400
"""Seconds that the fence is remembered: longer than any process could sleep on a lock that it takes for its own."""
KEPT_ASIDE: Final = 7 * 86400
LIMIT: Final = 1 << 22
"""Bytes of a value that are read: room for the longest pair there can be (1 MiB a token)."""
LOOK_EVERY: Final = 0.5
"""Seconds between two readings where no message tells of a change, and after a failure."""
LOOK_ANYWAY: Final = 5.0
"""And where messages do: one may be lost with a connection."""


@dataclass
class _RedisLease:
    """life: seconds, from one renewal. until: on the steady clock, when it ends unless it is renewed. spoilt: what was
    got under it is not saved."""

    token: str
    number: int
    orphaned: bool
    life: float
    until: float
    mono: Callable[[], float]
    spoilt: bool = False

    def held(self) -> bool:
        return self.mono() < self.until - SURE * self.life


class RedisStore:
    """prefix: begins every key. note: told of what no caller learns of. mono: seconds of a clock that counts the
    machine's sleep. now: Unix seconds. lease: seconds that the lock of a dead holder lasts. look_only: a reader sets
    nothing aside.

    State, of the event loop's thread: the leases that this process has.
    """

    kind = "redis"
    shared = True
    local = False

    def __init__(
        self,
        link: Link,
        sealer: Sealer,
        prefix: str,
        note: Note,
        *,
        mono: Callable[[], float],
        now: Callable[[], float] = time.time,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        lease: float = DEAD_HOLDER,
        look_only: bool = False,
    ) -> None:
        self._link = link
        self._sealer = sealer
        self._prefix = prefix
        self._note = note
        self._mono = mono
        self._now = now
        self._sleep = sleep
        self._lease = lease
        self._look_only = look_only
        self._leases: dict[str, _RedisLease] = {}

    async def load(self, identity: str) -> StoredPair | None:
        return await self._opened(identity, await self._raw(identity))

    async def save(self, identity: str, pair: StoredPair) -> None:
        lease = self._leases.get(identity)
        try:
            await self.load(identity)  # what cannot be read is not overwritten unseen
            sealed = await asyncio.to_thread(self._sealer.seal, identity, codec.encode(pair))
            end = pair.worthless_at
            life = 0 if end is None else max(round((end - self._now()) * 1000), 1)
            keys = [self._key(identity, name) for name in ("pair", "lock", "fence")]
            arguments = (lease.token if lease else "", sealed, life, self._key(identity, "saved"), FENCE * 1000)
            if not await self._link.run(scripts.SAVE, keys, arguments):
                raise LockLostError(f"another process renews {identity}: its pair stays in Redis, not this one")
        except StoreError:
            if lease is not None:
                lease.spoilt = True
            raise

    async def delete(self, identity: str) -> None:
        await self._link.run(scripts.FORGET, [self._key(identity, "pair")], [self._key(identity, "saved")])

    @asynccontextmanager
    async def lock(self, identity: str) -> AsyncIterator[Lease]:
        keys = [self._key(identity, name) for name in ("lock", "fence")]
        token = secrets.token_hex(8)

        async def attempt() -> _RedisLease | None:
            asked = self._mono()
            times = (round(self._lease * 1000), FENCE * 1000)
            number, orphaned = await self._link.run(scripts.ACQUIRE, keys, (token, *times))
            life, until = self._lease, asked + self._lease
            return _RedisLease(token, number, bool(orphaned), life, until, self._mono) if number else None

        async def release(lease: _RedisLease) -> None:
            try:
                saved = 0 if lease.spoilt else 1
                await self._link.run(scripts.RELEASE, keys, (token, saved, FENCE * 1000))
            except StoreError as error:
                self._note("lock", identity, f"the lock of {identity} frees itself within {self._lease:g} s: {error}")

        lease = await turn(attempt, release, self._sleep)
        self._leases[identity] = lease
        renewing = asyncio.create_task(self._renew(lease, keys), name=f"hold {identity}")
        try:
            yield lease
        finally:
            renewing.cancel()
            if self._leases.get(identity) is lease:
                del self._leases[identity]
            await whole(release(lease))

    async def _renew(self, lease: _RedisLease, keys: list[str]) -> None:
        while True:
            await self._sleep(lease.life / RENEWALS)
            asked = self._mono()
            arguments = (lease.token, round(lease.life * 1000), FENCE * 1000, lease.number)
            with suppress(StoreError):  # the next one may come in time; if none does, the lease ends and says so
                if not await self._link.run(scripts.RENEW, keys, arguments):
                    lease.until = asked
                    return
                lease.until = asked + lease.life

    async def changes(self, identity: str) -> AsyncGenerator[StoredPair | None, None]:
        failing = False
        while True:
            try:
                async with self._link.listening(self._key(identity, "saved")) as message:
                    seen: bytes | None = None
                    while True:
                        raw = await self._raw(identity)
                        if raw != seen:
                            found = await self._opened(identity, raw)
                            seen, failing = raw, False
                            yield found
                        if message is None:
                            await self._sleep(LOOK_EVERY)
                        else:
                            await message(LOOK_ANYWAY)
            except StoreError as error:
                if not failing:
                    self._note("load", identity, str(error))
                failing = True
            await self._sleep(LOOK_EVERY)

    async def names(self) -> list[str]:
        literal = re.sub(r"([*?\[\]\\^-])", r"\\\1", self._prefix)
        begin, end = f"{self._prefix}{{", "}:pair"
        keys = await self._link.keys(f"{literal}{{*}}:pair")
        names = (key[len(begin) : -len(end)] for key in keys if key.startswith(begin) and key.endswith(end))
        return sorted(name for name in names if re.fullmatch(IDENTITY_NAME, name))

    async def close(self) -> None:
        await self._link.close()

    def _key(self, identity: str, name: str) -> str:
        return f"{self._prefix}{{{identity}}}:{name}"

    async def _raw(self, identity: str) -> bytes:
        return await self._link.read(self._key(identity, "pair"), LIMIT)

    async def _opened(self, identity: str, raw: bytes) -> StoredPair | None:
        if not raw:
            return None
        try:
            text = raw.decode("ascii", "replace")
            return codec.decode(await asyncio.to_thread(self._sealer.open, identity, text))
        except UnknownKeyError as error:
            words = f"add that key to key_file here, or drop the pair: opentv-proxy store --forget {identity}"
            raise StoreError(f"what Redis holds for {identity} is left alone: {error}; {words}") from error
        except (DamagedError, ValueError) as error:
            if self._look_only:
                words = "left as it is here; a gateway would set it aside"
                raise StoreError(f"what Redis holds for {identity} cannot be read: {error}; {words}") from error
            aside = self._key(identity, f"corrupt-{datetime.fromtimestamp(self._now(), UTC):%Y%m%dT%H%M%SZ}")
            keys = [self._key(identity, "pair"), aside]
            if await self._link.run(scripts.ASIDE, keys, (raw, KEPT_ASIDE * 1000)):
                self._note(
                    "load", identity, f"what Redis held for {identity} is set aside as {aside} for a week: {error}"
                )
            return None
