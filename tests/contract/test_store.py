"""What every token store keeps to: memory, files (one, and one an identity) and Redis."""

import asyncio
from dataclasses import replace
from math import inf
from typing import Any

import pytest

from proxy.tokens.pair import Moment, TokenPair
from proxy.tokens.stores.base import Store, StoredPair, frozen, thawed
from tests.support.gateway import until
from tests.support.stores import PAIR, Workshop, watching


@pytest.fixture
def store(workshop: Workshop) -> Store:
    return workshop.store()


async def test_what_was_never_saved_is_none(store: Store) -> None:
    assert await store.load("opentv") is None
    assert await store.names() == []


async def test_what_was_saved_comes_back_whole(store: Store) -> None:
    least = replace(PAIR, refresh=None, expires=None, full_life=None, issued_at=None, session_opened=False, scope="")
    for pair in (PAIR, replace(PAIR, refresh_expires=4e9, session_ends=4e9 + 0.125, scope='ümläut "x"'), least):
        await store.save("opentv", pair)
        assert await store.load("opentv") == pair


async def test_the_last_save_wins(store: Store) -> None:
    await store.save("opentv", PAIR)
    await store.save("opentv", replace(PAIR, access="NEXT"))
    loaded = await store.load("opentv")
    assert loaded is not None
    assert loaded.access == "NEXT"


async def test_a_pair_as_long_as_pairs_get_is_kept(store: Store) -> None:
    long = replace(PAIR, access="a" * (1 << 20), refresh="r" * (1 << 20))
    await store.save("opentv", long)
    assert await store.load("opentv") == long


async def test_identities_do_not_see_each_other(store: Store) -> None:
    await store.save("opentv", PAIR)
    assert await store.load("opentv2") is None
    await store.delete("opentv2")
    await store.save("a.b-c_d", replace(PAIR, access="OTHER"))
    assert await store.load("opentv") == PAIR
    assert await store.names() == ["a.b-c_d", "opentv"]


async def test_nothing_is_left_after_a_delete_and_a_second_one_is_no_error(store: Store) -> None:
    await store.save("opentv", PAIR)
    await store.delete("opentv")
    await store.delete("opentv")
    assert await store.load("opentv") is None
    assert await store.names() == []


async def test_a_lock_has_one_holder_at_a_time(store: Store) -> None:
    inside = most = 0

    async def hold() -> None:
        nonlocal inside, most
        async with store.lock("opentv") as lease:
            inside += 1
            most = max(most, inside)
            await asyncio.sleep(0)
            assert lease.held()
            assert not lease.orphaned
            inside -= 1

    await asyncio.gather(*(hold() for _ in range(20)))
    assert most == 1


async def test_locks_of_two_identities_do_not_meet(store: Store) -> None:
    async with store.lock("opentv"), asyncio.timeout(5), store.lock("other"):
        pass


async def test_a_holder_saves_under_its_lock(store: Store) -> None:
    async with store.lock("opentv"):
        await store.save("opentv", PAIR)
        assert await store.load("opentv") == PAIR
    async with store.lock("opentv") as lease:
        assert not lease.orphaned


async def test_a_lock_is_free_again_after_an_error_and_after_a_cancelled_holder(store: Store) -> None:
    with pytest.raises(ZeroDivisionError):
        async with store.lock("opentv"):
            raise ZeroDivisionError
    holds = asyncio.Event()

    async def hold() -> None:
        async with store.lock("opentv"):
            holds.set()
            await asyncio.Event().wait()

    holder = asyncio.ensure_future(hold())
    await holds.wait()
    holder.cancel()
    async with asyncio.timeout(5), store.lock("opentv"):
        pass


async def test_a_waiter_that_gives_up_leaves_no_trace(store: Store) -> None:
    async def hold() -> None:
        async with store.lock("opentv"):
            pass

    for pause in (0, 0, 0.001, 0.005, 0.02):  # at its first step, and on its way
        async with store.lock("opentv"):
            waiter = asyncio.ensure_future(hold())
            await asyncio.sleep(pause)
            waiter.cancel()
        async with asyncio.timeout(5), store.lock("opentv") as lease:
            assert not lease.orphaned


async def test_whoever_gives_up_while_taking_a_free_lock_leaves_it_free(store: Store) -> None:
    async def hold() -> None:
        async with store.lock("opentv"):
            pass

    for pause in (0, 0, 0.0005, 0.001, 0.002):
        waiter = asyncio.ensure_future(hold())
        await asyncio.sleep(pause)
        waiter.cancel()
        async with asyncio.timeout(5), store.lock("opentv"):
            pass


async def test_whoever_is_cancelled_twice_leaves_the_lock_free_too(store: Store) -> None:
    async def hold() -> None:
        async with store.lock("opentv"):
            await asyncio.Event().wait()

    for pause in (0, 0.0005, 0.001, 0.002, 0.1):
        waiter = asyncio.ensure_future(hold())
        await asyncio.sleep(pause)
        waiter.cancel()
        await asyncio.sleep(0)
        waiter.cancel()
        async with asyncio.timeout(5), store.lock("opentv"):
            pass
        await asyncio.wait((waiter,))


async def test_changes_bring_what_there_is_and_then_each_change_within_a_second(workshop: Workshop) -> None:
    store = workshop.store()
    await store.save("opentv", PAIR)
    if not store.shared:
        async with watching(store) as found:
            await until(lambda: found() == [PAIR], 1, "what there is")
        return
    other = workshop.store()
    pairs: list[StoredPair | None] = [PAIR]
    async with watching(store) as found, watching(store, "other") as quiet:
        await until(lambda: found() == pairs, 1, "what there is")
        for step in range(3):
            pairs.append(replace(PAIR, access=f"NEXT-{step}"))
            await other.save("opentv", replace(PAIR, access=f"NEXT-{step}"))
            await until(lambda: found() == pairs, 1, "the next pair")
        await other.delete("opentv")
        await until(lambda: found() == [*pairs, None], 1, "that there is none")
        assert quiet() == [None]


async def test_whoever_shares_a_store_shares_pairs_and_locks(workshop: Workshop) -> None:
    one, two = workshop.store(), workshop.store()
    if not one.shared:
        assert await two.names() == []
        return
    async with one.lock("opentv"):
        await one.save("opentv", PAIR)
        waiting = asyncio.ensure_future(two.lock("opentv").__aenter__())
        assert await two.load("opentv") == PAIR
        await asyncio.sleep(0.1)
        assert not waiting.done()
        waiting.cancel()
        await asyncio.wait((waiting,))


def test_a_store_says_what_it_is(workshop: Workshop) -> None:
    store = workshop.store()
    assert store.kind in ("memory", "file", "redis")
    assert store.shared is (store.kind != "memory")


def test_a_stored_pair_shows_no_token() -> None:
    assert "NOBODY-MAY-SEE" not in repr(PAIR)


@pytest.mark.parametrize(
    ("changes", "end"),
    [
        ({}, None),
        ({"refresh_expires": 1800.0}, 1800.0),
        ({"refresh_expires": 1800.0, "session_ends": 900.0}, 900.0),
        ({"session_ends": 900.0}, 900.0),
        ({"refresh_expires": 100.0}, 300.0),
        ({"refresh": None}, 300.0),
        ({"refresh": None, "expires": None}, None),
        ({"expires": None, "refresh_expires": 1800.0}, None),
    ],
)
def test_a_pair_is_worth_keeping_as_long_as_one_of_its_tokens_lives(changes: dict[str, Any], end: float | None) -> None:
    times: dict[str, Any] = {"expires": 300.0, **changes}
    assert replace(PAIR, **times).worthless_at == end


def test_a_pair_survives_storing_on_other_clocks() -> None:
    pair = TokenPair(
        access="a",
        refresh="r",
        obtained=Moment(50.0, 1_700_000_000.0),
        expires=350.0,
        refresh_expires=inf,
        session_began=10.0,
        session_ends=5050.0,
        full_life=300.0,
        session_opened=True,
        issued_at=1_700_000_000.0,
        scope="profile",
    )
    # Another process, a hundred seconds later, its machine just booted.
    now = Moment(7.0, 1_700_000_100.0)
    again = thawed(frozen(pair, "b"), now)
    assert again.expires - now.mono == 200.0
    assert again.refresh_expires == inf
    assert again.session_ends is not None
    assert again.session_ends - now.mono == 4900.0
    assert (again.access, again.refresh, again.lifetime, again.full_life) == ("a", "r", 300.0, 300.0)
    assert thawed(frozen(again, "b"), now) == again
