"""The store beneath the keeper: a pair is safe before it is used, and a store that is down stops nothing (B6, B14)."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from proxy.counters import StoreOperation
from proxy.errors import StoreError
from proxy.tokens.keeper import Keeper
from proxy.tokens.stores.base import StoredPair
from proxy.tokens.stores.memory import MemoryStore
from tests.support.tokens import Wing, settle


class WatchedStore(MemoryStore):
    """broken: operations that fail. in_use: what the keeper served when the last pair was saved."""

    def __init__(self, *broken: StoreOperation) -> None:
        super().__init__()
        self.broken = broken
        self.keeper: Keeper | None = None
        self.in_use: list[str] = []

    async def load(self, identity: str) -> StoredPair | None:
        self._fail("load")
        return await super().load(identity)

    async def save(self, identity: str, pair: StoredPair) -> None:
        self._fail("save")
        current = self.keeper.current() if self.keeper else None
        self.in_use.append(current.fingerprint if current else "")
        await super().save(identity, pair)

    async def delete(self, identity: str) -> None:
        self._fail("delete")
        await super().delete(identity)

    @asynccontextmanager
    async def lock(self, identity: str) -> AsyncIterator[Any]:
        self._fail("lock")
        async with super().lock(identity) as lease:
            yield lease

    def _fail(self, operation: StoreOperation) -> None:
        if operation in self.broken:
            raise StoreError("the store cannot be reached")


@pytest.mark.parametrize("broken", [("load",), ("save",), ("lock",), ("delete",), ("load", "save", "lock", "delete")])
async def test_a_store_that_is_down_is_counted_and_stops_nothing(broken: tuple[StoreOperation, ...]) -> None:
    wing = Wing(store=WatchedStore(*broken))
    keeper = await wing.started()
    await wing.clock.advance(1000)
    assert keeper.current() is not None
    assert wing.provider.count("password") == 1
    await wing.close()
    assert wing.provider.open_sessions() == 0
    errors = wing.metrics.store("memory").errors
    assert {operation for operation, count in errors.items() if count} >= set(broken) - {"delete"}
    assert wing.log.events("store failed")


async def test_the_same_failure_is_counted_each_time_and_told_once_a_minute() -> None:
    wing = Wing(store=WatchedStore("load", "save"))
    await wing.started()
    await wing.clock.advance(1000)  # the metrics' own clock stands nearly still
    told = [(line["identity"], line["operation"]) for line in wing.log.events("store failed")]
    assert sorted(told, key=str) == [("opentv", "load"), ("opentv", "save")]
    assert wing.metrics.store("memory").errors["save"] > 1
    await wing.close()


async def test_a_rotated_pair_is_stored_before_it_is_used() -> None:
    store = WatchedStore()
    wing = Wing(store=store)
    store.keeper = await wing.started()
    first = store.keeper.current()
    assert first is not None
    await wing.clock.advance(241)
    assert store.in_use == ["", first.fingerprint]
    stored = await store.load("opentv")
    assert stored is not None
    assert stored.refresh == wing.provider.sessions[0].refresh
    await wing.close()


async def test_a_stored_pair_is_taken_up_without_a_login(wing: Wing) -> None:
    first = await wing.started()
    await first.stop_renewing()
    second = await wing.started()
    taken_up = second.current()
    assert taken_up is not None
    assert wing.provider.count("password") == 1
    (told,) = wing.log.events("token adopted")
    assert (told["source"], told["identity"]) == ("store", "opentv")
    assert told["fingerprint"] == taken_up.fingerprint
    # As after a kill -9 long ago: the access token is dead, the refresh token is not.
    await second.stop_renewing()
    wing.clock.suspend(400)
    third = await wing.started()
    await settle()
    assert third.current() is not None
    assert [kind for kind, _ in wing.provider.calls] == ["password", "refresh_token"]


async def test_a_stored_pair_of_another_configuration_is_not_used(wing: Wing) -> None:
    first = await wing.started()
    await first.stop_renewing()
    await wing.started(client_id="another")
    assert wing.provider.count("password") == 2
