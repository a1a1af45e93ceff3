"""Replicas that share a store keep one session: nobody presents a refresh token twice, everybody has the newest pair.

Each test runs keepers of one identity on one store, as gateways do; K, B: what is known of Keycloak and token keepers.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from proxy.errors import LockLostError, StoreError, TokenError, TokenUnavailableError
from proxy.tokens.keeper import Keeper
from proxy.tokens.source import Credential
from proxy.tokens.stores.base import StoredPair
from proxy.tokens.stores.memory import MemoryStore
from tests.support.tokens import FakeClock, Wing, refused, settle


class Held:
    def __init__(self, *, orphaned: bool) -> None:
        self.orphaned = orphaned
        self.alone = True

    def held(self) -> bool:
        return self.alone


class FleetStore(MemoryStore):
    """A shared store. down: nothing works. orphaned: what the next holder of the lock is told. overtaken: the lock of
    whoever saves next was somebody else's meanwhile. lease: of the last holder. loads: how many."""

    shared = True

    def __init__(self, *, local: bool = False) -> None:
        super().__init__()
        self.local = local
        self.clock = FakeClock()
        self.down = False
        self.orphaned = False
        self.overtaken = False
        self.held_in_time = True
        self.fault: Exception | None = None  # what following meets once
        self.loads = 0
        self.lease = Held(orphaned=False)

    async def load(self, identity: str) -> StoredPair | None:
        self.loads += 1
        self._reach()
        return await super().load(identity)

    async def save(self, identity: str, pair: StoredPair) -> None:
        self._reach()
        if self.overtaken:
            self.overtaken = False
            raise LockLostError("another process renews")
        await super().save(identity, pair)

    @asynccontextmanager
    async def lock(self, identity: str) -> AsyncIterator[Held]:
        self._reach()
        async with super().lock(identity):
            self.lease = Held(orphaned=self.orphaned)
            self.lease.alone = self.held_in_time
            self.orphaned = False
            yield self.lease

    async def changes(self, identity: str) -> AsyncGenerator[StoredPair | None, None]:
        shown: StoredPair | bool | None = False
        while True:
            fault, self.fault = self.fault, None
            if fault is not None:
                raise fault
            found = self._pairs.get(identity)
            if not self.down and found != shown:
                shown = found
                yield found
            if self.down:
                shown = False
            await self.clock.sleep(0.5)

    def _reach(self) -> None:
        if self.down:
            raise StoreError("the store cannot be reached")


class Fleet:
    """Two gateways on one store."""

    def __init__(self, *, local: bool = False) -> None:
        self.store = FleetStore(local=local)
        self.wing = Wing(store=self.store)
        self.store.clock = self.wing.clock
        self.provider = self.wing.provider
        self.clock = self.wing.clock

    async def started(self, number: int = 2, **changes: object) -> list[Keeper]:
        keepers = [self.wing.keeper(**changes) for _ in range(number)]
        await asyncio.gather(*(keeper.start() for keeper in keepers))
        await settle()
        return keepers

    async def close(self) -> None:
        self.provider.recover()
        self.store.down = False
        await self.wing.close()

    def counts(self) -> tuple[int, int]:
        """Logins and refreshes so far."""
        return self.provider.count("password"), self.provider.count("refresh_token")


@pytest.fixture
async def fleet() -> AsyncIterator[Fleet]:
    fleet = Fleet()
    yield fleet
    await fleet.close()


def token(keeper: Keeper) -> Credential:
    credential = keeper.current()
    assert credential is not None
    return credential


def tokens(keepers: list[Keeper]) -> set[str]:
    return {token(keeper).fingerprint for keeper in keepers}


async def test_replicas_that_start_together_log_in_once(fleet: Fleet) -> None:
    fleet.provider.delay = 0.2
    keepers = await fleet.started(3)
    await fleet.clock.advance(1)
    assert len(tokens(keepers)) == 1
    assert fleet.counts() == (1, 0)


async def test_one_refresh_serves_the_fleet_and_arrives_within_a_second(fleet: Fleet) -> None:
    fleet.provider.delay = 0.2
    keepers = await fleet.started()
    for refreshes in range(1, 6):
        while fleet.provider.count("refresh_token") < refreshes:
            await fleet.clock.advance(0.5)
        await fleet.clock.advance(1.2)
        assert len(tokens(keepers)) == 1
        assert fleet.counts() == (1, refreshes)


async def test_a_revoked_session_costs_the_fleet_one_login(fleet: Fleet) -> None:
    keepers = await fleet.started()
    await fleet.clock.advance(1)
    fleet.provider.end_sessions()
    fleet.provider.delay = 0.3
    answers = [keeper.rejected(token(keeper)) for keeper in keepers]
    waits = [
        asyncio.ensure_future(answer) for answer in answers if answer is not None and not isinstance(answer, Credential)
    ]
    assert len(waits) == 2
    await fleet.clock.advance(2)
    assert all(await asyncio.gather(*waits))
    assert len(tokens(keepers)) == 1
    assert fleet.counts() == (2, 1)


async def test_what_another_replica_stored_is_news_for_a_request_whose_token_was_refused(fleet: Fleet) -> None:
    one, other = await fleet.started()
    await fleet.clock.advance(1)
    old = token(other)
    refreshing = asyncio.ensure_future(one.refresh_now())
    await settle()
    await refreshing
    answer = other.rejected(old)  # before the news came
    assert answer is not None
    assert not isinstance(answer, Credential)
    found = await answer
    assert found is not None
    assert found.fingerprint == token(one).fingerprint
    assert fleet.counts() == (1, 1)


async def test_what_another_is_about_to_store_replaces_a_refused_token_though_ones_own_exchanges_pause(
    fleet: Fleet,
) -> None:
    """An answer is lost, so whose it was pauses. The other presents the token once more: that ends the session."""
    keepers = await fleet.started()
    fleet.provider.delay, fleet.provider.lose = 0.3, 1
    await fleet.clock.advance(240.7)
    (paused,) = [keeper for keeper in keepers if keeper.status()["consecutive_failures"] == 1]
    assert (fleet.counts(), fleet.provider.open_sessions()) == ((2, 2), 0)
    answers = [paused.rejected(token(paused)) for _ in range(5)]
    waits = [
        asyncio.ensure_future(answer) for answer in answers if answer is not None and not isinstance(answer, Credential)
    ]
    assert len(waits) == 5
    await fleet.clock.advance(0.5)
    found = [wait.result() for wait in waits if wait.done()]
    assert len(found) == 5
    assert {each.fingerprint for each in found if each} == tokens(keepers)
    assert fleet.counts() == (2, 2)


async def test_many_refusals_are_one_look_into_the_store_and_the_next_one_is_a_moment_later(fleet: Fleet) -> None:
    one, _ = await fleet.started()
    fleet.provider.down = TokenError("network", "nobody answers")
    await fleet.clock.advance(240.5)
    loads = fleet.store.loads
    for looks in (1, 1, 2):
        answers = [one.rejected(token(one)) for _ in range(50)]
        await fleet.clock.advance(0.15)
        assert [await answer for answer in answers if answer and not isinstance(answer, Credential)] == [None] * 50
        assert fleet.store.loads == loads + looks


async def test_a_refresh_by_hand_renews_even_when_another_replica_just_did(fleet: Fleet) -> None:
    one, other = await fleet.started()
    await fleet.clock.advance(1)
    await one.refresh_now()
    await other.refresh_now()
    assert fleet.counts() == (1, 2)
    assert fleet.provider.open_sessions() == 1


async def test_what_an_orphaned_lock_may_have_spent_is_not_presented_where_its_holder_may_only_be_frozen(
    fleet: Fleet,
) -> None:
    keepers = await fleet.started()
    fleet.store.orphaned = True
    await fleet.clock.advance(260)
    assert fleet.counts() == (2, 0)
    assert len(tokens(keepers)) == 1
    assert fleet.provider.open_sessions() == 1, "the one that was replaced was logged out"


async def test_on_one_host_it_is_presented_once_more() -> None:
    fleet = Fleet(local=True)
    await fleet.started()
    fleet.store.orphaned = True
    await fleet.clock.advance(260)
    assert fleet.counts() == (1, 1)
    await fleet.close()


async def test_after_a_loss_of_data_the_fleet_logs_in_once_and_presents_nothing(fleet: Fleet) -> None:
    keepers = await fleet.started()
    await fleet.clock.advance(10)
    await fleet.store.delete("opentv")
    await fleet.clock.advance(250)
    assert fleet.counts() == (2, 0)
    assert len(tokens(keepers)) == 1


async def test_who_stood_still_until_the_lock_ran_out_presents_nothing(fleet: Fleet) -> None:
    one, other = await fleet.started()
    await fleet.clock.advance(1)
    fleet.store.held_in_time = False
    with pytest.raises(Exception, match="stood still"):
        await one.refresh_now()
    assert fleet.counts() == (1, 0)
    fleet.store.held_in_time = True
    await other.refresh_now()
    await fleet.clock.advance(1)
    assert token(one).fingerprint == token(other).fingerprint
    assert fleet.counts() == (1, 1)


async def test_who_wakes_up_after_the_lock_ran_out_and_hears_nothing_from_the_provider_uses_what_the_other_stored(
    fleet: Fleet,
) -> None:
    """At once: not before the news came by itself, its requests would be told that the provider does not answer."""
    one, _ = await fleet.started()
    await fleet.clock.advance(1)
    stored = await fleet.store.load("opentv")
    assert stored is not None
    fleet.provider.delay, fleet.provider.down = 0.2, TokenError("timeout", "no connection")
    renewing = asyncio.ensure_future(one.refresh_now())
    await fleet.clock.advance(0.15)
    fleet.store.lease.alone = False
    await MemoryStore.save(fleet.store, "opentv", replace(stored, access="NEWER", refresh="NEWER"))
    await fleet.clock.advance(0.1)
    await renewing
    assert b"NEWER" in token(one).line
    assert one.status()["consecutive_failures"] == 0


async def test_who_is_overtaken_while_exchanging_uses_what_the_other_stored(fleet: Fleet) -> None:
    one, other = await fleet.started()
    await fleet.clock.advance(1)
    await other.refresh_now()
    await fleet.clock.advance(1)
    newest = token(other).fingerprint
    fleet.store.overtaken = True
    await one.refresh_now()
    assert fleet.counts() == (1, 2)
    assert token(one).fingerprint == newest


async def test_without_the_store_each_replica_serves_its_token_and_then_a_session_of_its_own(fleet: Fleet) -> None:
    keepers = await fleet.started()
    shared = tokens(keepers)
    fleet.wing.draw = 0.5
    fleet.store.down = True
    await fleet.clock.advance(230)
    assert tokens(keepers) == shared
    await fleet.clock.advance(66)
    assert len(tokens(keepers) - shared) == 2, "before the shared token's end, each at its own moment"
    assert fleet.counts() == (3, 0), "the shared refresh token was presented by nobody"
    await fleet.clock.advance(600)
    assert fleet.provider.count("password") == 3
    assert fleet.provider.count("refresh_token") >= 4, "what is a replica's own, it refreshes"


async def test_when_the_store_is_back_the_fleet_agrees_on_one_session_and_ends_the_others(fleet: Fleet) -> None:
    keepers = await fleet.started(3)
    fleet.store.down = True
    await fleet.clock.advance(400)
    assert len(tokens(keepers)) == 3
    fleet.store.down = False
    await fleet.clock.advance(7)
    assert len(tokens(keepers)) == 1
    await fleet.clock.advance(10)
    assert fleet.provider.open_sessions() == 1
    before = fleet.counts()
    await fleet.clock.advance(600)
    assert fleet.provider.count("password") == before[0]


@pytest.mark.parametrize("lost", [False, True])
async def test_the_session_that_was_left_for_want_of_a_store_ends_too(fleet: Fleet, *, lost: bool) -> None:
    """Whether the store comes back with it or empty, and also when the own one is refreshed before it is shared."""
    keepers = await fleet.started()
    fleet.store.down = True
    await fleet.clock.advance(400)
    assert fleet.provider.open_sessions() == 3
    if lost:
        await MemoryStore.delete(fleet.store, "opentv")
    fleet.store.down = False
    await keepers[0].refresh_now()
    await fleet.clock.advance(12)
    assert len(tokens(keepers)) == 1
    assert fleet.provider.open_sessions() == 1
    assert fleet.provider.reused == 0


async def test_a_pair_that_could_not_be_stored_is_stored_as_soon_as_that_works(fleet: Fleet) -> None:
    one, other = await fleet.started()
    await fleet.clock.advance(1)

    async def outage() -> None:
        await fleet.clock.sleep(0.1)
        fleet.store.down = True

    fleet.provider.delay = 0.2
    going = asyncio.ensure_future(asyncio.gather(one.refresh_now(), outage()))
    await fleet.clock.advance(1)
    await going
    assert token(one).fingerprint != token(other).fingerprint
    fleet.store.down = False
    await fleet.clock.advance(6)
    assert token(one).fingerprint == token(other).fingerprint
    assert fleet.counts() == (1, 1)


async def test_without_the_store_a_seed_is_not_presented_and_the_words_say_why() -> None:
    fleet = Fleet()
    seed = fleet.provider.seed()
    keepers = await fleet.started(grant="refresh_token", refresh_token=seed)
    assert len(tokens(keepers)) == 1
    fleet.store.down = True
    await fleet.clock.advance(310)
    with pytest.raises(Exception, match="without it a refresh token that replicas share is not presented"):
        await keepers[0].obtain()
    assert fleet.counts() == (0, 1)
    assert len(fleet.wing.log.events("token exchange withheld")) == 2, "once a replica"
    last = keepers[0].status()["last_refresh"]
    assert isinstance(last, dict)
    assert last["result"] == "network"
    assert "the token store is down" in last["detail"]
    fleet.store.down = False
    await fleet.clock.advance(4)
    assert len(tokens(keepers)) == 1
    assert fleet.counts() == (0, 2)
    await fleet.close()


async def test_a_replica_that_meets_a_fault_of_its_own_goes_on_following(fleet: Fleet) -> None:
    one, other = await fleet.started()
    fleet.store.fault = ZeroDivisionError("a fault")
    await fleet.clock.advance(3)
    assert fleet.wing.log.events("following broke")
    await one.refresh_now()
    await fleet.clock.advance(2)
    assert token(other).fingerprint == token(one).fingerprint


async def test_a_replica_that_ends_logs_out_only_what_is_its_own(fleet: Fleet) -> None:
    one, other = await fleet.started()
    await fleet.clock.advance(1)
    await one.close()
    assert fleet.provider.open_sessions() == 1
    fleet.store.down = True
    await fleet.clock.advance(400)
    assert fleet.provider.open_sessions() == 2
    fleet.store.down = False
    closing = asyncio.ensure_future(other.close())
    await fleet.clock.advance(1)
    await closing
    assert await fleet.store.load("opentv") is not None, "what is the fleet's stays stored"
    assert [session.open for session in fleet.provider.sessions] == [True, False]


async def test_refused_logins_of_replicas_are_never_less_than_a_second_apart(fleet: Fleet) -> None:
    fleet.provider.password = "another"
    await fleet.started(3)
    await fleet.clock.advance(10)
    times = fleet.provider.refused_logins
    assert len(times) == 3
    assert all(later - earlier >= 1.5 for earlier, later in pairwise(times))


@pytest.mark.parametrize(("lost", "tries"), [(False, [240.0, 241.5, 301.5]), (True, [240.0, 300.0])])
async def test_a_refused_login_suspends_a_replica_that_may_not_present_the_refresh_token(
    fleet: Fleet, *, lost: bool, tries: list[float]
) -> None:
    """With the store down, or without what it held, whoever asks and however often (K7, B10). tries: of the first;
    where no lock keeps it apart from the other, whom it may have met, there is another one soon."""
    one, _ = await fleet.started()
    await fleet.clock.advance(1)
    fleet.provider.password = "another"
    if lost:
        await MemoryStore.delete(fleet.store, "opentv")
    else:
        fleet.store.down = True
    await fleet.clock.advance(301)
    for _ in range(10):
        with pytest.raises(TokenUnavailableError, match="login suspended until"):
            await one.obtain()
        await fleet.clock.advance(1)
    times = [time - 1000.0 for time in fleet.provider.refused_logins]
    assert times[::2] == tries, "no request is a reason for another"
    assert len(times) == 2 * len(tries), "the other's"
    assert one.status()["state"] == "suspended"
    fleet.provider.password = "right"
    await fleet.clock.advance(160)
    assert one.usable()


async def test_a_replica_whose_login_was_refused_without_the_store_refreshes_when_it_is_back(fleet: Fleet) -> None:
    keepers = await fleet.started()
    await fleet.clock.advance(1)
    fleet.provider.password = "another"
    fleet.store.down = True
    await fleet.clock.advance(301)
    assert not any(keeper.usable() for keeper in keepers)
    fleet.store.down = False
    await fleet.clock.advance(3)
    assert len(tokens(keepers)) == 1
    assert fleet.provider.count("refresh_token") == 1


async def test_a_replica_whose_login_met_anothers_takes_up_that_session_when_the_store_is_back(fleet: Fleet) -> None:
    keepers = await fleet.started()
    await fleet.clock.advance(1)
    fleet.provider.delay = 0.2
    fleet.store.down = True
    fleet.provider.script = [refused(401, "invalid_grant", "Invalid user credentials")]
    await fleet.clock.advance(239.5)
    fleet.store.down = False
    await fleet.clock.advance(4)
    assert len(tokens(keepers)) == 1
    assert fleet.provider.count("password") == 3, "the first one's, the refused one and the other's"
    assert all(keeper.status()["consecutive_failures"] == 0 for keeper in keepers)


async def test_the_log_tells_of_a_token_that_another_replica_brought(fleet: Fleet) -> None:
    one, other = await fleet.started()
    await fleet.clock.advance(1)
    await one.refresh_now()
    await fleet.clock.advance(1)
    adopted = fleet.wing.log.events("token adopted")
    assert (adopted[-1]["fingerprint"], adopted[-1]["source"]) == (token(other).fingerprint, "replica")
    assert fleet.wing.refreshes() == {("login", "startup", "success"): 1, ("refresh", "manual", "success"): 1}


ACTIONS = st.sampled_from(("pass", "long", "down", "up", "lose", "orphan", "refuse", "refresh", "end"))


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(actions=st.lists(st.tuples(ACTIONS, st.integers(0, 2)), max_size=25), draw=st.sampled_from((0.0, 0.3, 0.9)))
def test_whatever_befalls_the_store_nobody_presents_a_replaced_refresh_token(
    actions: list[tuple[str, int]], draw: float
) -> None:
    asyncio.run(befall(actions, draw))


async def refuse(keeper: Keeper, credential: Credential) -> None:
    answer = keeper.rejected(credential)
    if answer is not None and not isinstance(answer, Credential):
        await answer


async def refresh(keeper: Keeper) -> None:
    with suppress(TokenUnavailableError):
        await keeper.refresh_now()


async def befall(actions: list[tuple[str, int]], draw: float) -> None:
    fleet = Fleet()
    fleet.provider.delay = 0.2
    fleet.provider.life = 60
    fleet.wing.draw = draw
    keepers = await fleet.started(3)
    await fleet.clock.advance(2)
    store, clock = fleet.store, fleet.clock
    asked: list[asyncio.Task[None]] = []
    for action, number in actions:
        keeper = keepers[number]
        match action:
            case "pass":
                await clock.advance(0.15 + number)
            case "long":
                await clock.advance(20 * (1 + number))
            case "down" | "up":
                store.down = action == "down"
            case "lose":
                await MemoryStore.delete(store, "opentv")
            case "orphan":
                store.orphaned = True
            case "refuse" if (credential := keeper.current()) is not None:
                asked.append(asyncio.create_task(refuse(keeper, credential)))
            case "refresh":
                asked.append(asyncio.create_task(refresh(keeper)))
            case "end":
                fleet.provider.end_sessions()
        await settle()
    assert fleet.provider.reused == 0
    store.down = False
    await clock.advance(100)
    assert fleet.provider.reused == 0
    assert len(tokens(keepers)) == 1, "they agree"
    await clock.advance(100)
    assert len(tokens(keepers)) == 1
    await asyncio.gather(*asked)
    await fleet.close()
