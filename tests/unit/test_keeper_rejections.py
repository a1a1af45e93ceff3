"""The platform refuses a token: one refresh a token, and none in a loop (B1, B3, B4)."""

import asyncio
from itertools import pairwise

import pytest

from proxy.errors import TokenError
from proxy.tokens.keeper import Keeper
from proxy.tokens.source import Credential
from tests.support.tokens import Wing, held, refused, settle


async def renewed(wing: Wing, keeper: Keeper, credential: Credential) -> Credential | None:
    """What a rejection brings, waited for where there is something to wait for."""
    outcome = keeper.rejected(credential)
    if outcome is None or isinstance(outcome, Credential):
        return outcome
    waiting = asyncio.ensure_future(outcome)
    await settle()
    while not waiting.done():
        await wing.clock.advance(0.25)
    return await waiting


async def test_a_rejection_brings_a_new_token(wing: Wing) -> None:
    keeper = await wing.started()
    old = held(keeper)
    assert await renewed(wing, keeper, old) is held(keeper)
    assert held(keeper) is not old
    assert wing.refreshes()[("refresh", "rejected", "success")] == 1


async def test_a_late_rejection_of_an_older_token_costs_nothing(wing: Wing) -> None:
    keeper = await wing.started()
    old = held(keeper)
    await wing.clock.advance(241)
    assert keeper.rejected(old) is held(keeper)
    assert wing.provider.count("refresh_token") == 1


async def test_a_rejection_joins_the_refresh_that_is_under_way(wing: Wing) -> None:
    keeper = await wing.started()
    old = held(keeper)
    wing.provider.delay = 2
    await wing.clock.advance(241)
    assert await renewed(wing, keeper, old) is held(keeper)
    assert wing.provider.count("refresh_token") == 1


async def test_a_session_ended_by_an_administrator_is_cured_by_one_login(wing: Wing) -> None:
    keeper = await wing.started()
    wing.provider.end_sessions()
    new = await renewed(wing, keeper, held(keeper))
    assert new is held(keeper)
    assert [kind for kind, _ in wing.provider.calls] == ["password", "refresh_token", "password"]
    keeper.served(held(keeper))
    await wing.clock.advance(20)
    # The refused session is not logged out: it is gone.
    assert wing.provider.count("logout") == 0


async def test_a_rejection_that_a_refresh_does_not_cure_is_refreshed_for_ever_more_rarely(wing: Wing) -> None:
    keeper = await wing.started()
    # Requests all the time, each refused, for two hours.
    for _ in range(720):
        keeper.rejected(held(keeper))
        await wing.clock.advance(10)
    # After 30, 60, 120, 240, 480, 900, 900, … s.
    assert wing.refreshes()[("refresh", "rejected", "success")] == 1 + 5 + 6
    assert wing.provider.times("refresh_token")[:3] == [0.0, 30.0, 90.0]


@pytest.mark.parametrize(("quiet", "pause"), [(29, 60), (31, 30)])
async def test_a_quiet_time_as_long_as_the_last_pause_ends_the_doubling(wing: Wing, quiet: int, pause: int) -> None:
    """Nobody may be able to tell of a cure: the request that was refused could not be sent again, or its client left.
    Rejections that come one by one are none that a refresh does not cure."""
    keeper = await wing.started()
    await renewed(wing, keeper, held(keeper))
    await wing.clock.advance(30 + quiet)
    assert await renewed(wing, keeper, held(keeper)) is not None
    await wing.clock.advance(pause - 1)
    assert keeper.rejected(held(keeper)) is None
    await wing.clock.advance(1)
    assert await renewed(wing, keeper, held(keeper)) is not None


async def test_a_refresh_by_hand_ends_the_doubling(wing: Wing) -> None:
    keeper = await wing.started()
    await renewed(wing, keeper, held(keeper))
    await wing.clock.advance(30)
    await renewed(wing, keeper, held(keeper))
    await keeper.refresh_now()
    assert await renewed(wing, keeper, held(keeper)) is not None
    await wing.clock.advance(30)
    assert await renewed(wing, keeper, held(keeper)) is not None


async def test_a_cure_ends_the_spacing(wing: Wing) -> None:
    keeper = await wing.started()
    first = await renewed(wing, keeper, held(keeper))
    assert first is not None
    assert keeper.rejected(first) is None
    keeper.served(first)
    assert await renewed(wing, keeper, first) is not None
    assert wing.provider.count("refresh_token") == 2


async def test_a_cure_by_an_older_token_is_none(wing: Wing) -> None:
    keeper = await wing.started()
    old = held(keeper)
    await renewed(wing, keeper, old)
    keeper.served(old)
    assert keeper.rejected(held(keeper)) is None


async def test_a_rejection_is_passed_on_while_the_provider_is_down(wing: Wing) -> None:
    keeper = await wing.started()
    wing.provider.down = TokenError("network", "nobody is there")
    assert await renewed(wing, keeper, held(keeper)) is None
    assert keeper.rejected(held(keeper)) is None
    assert keeper.current() is not None
    assert len(wing.provider.calls) == 2


@pytest.mark.parametrize("seconds", [3, 20, 90])
async def test_a_rejection_is_cured_within_5_s_of_the_return_of_a_provider_that_was_down(
    wing: Wing, seconds: int
) -> None:
    keeper = await wing.started()
    wing.provider.down = TokenError("network", "nobody is there")
    for _ in range(seconds):
        assert await renewed(wing, keeper, held(keeper)) is None
        await wing.clock.advance(1)
    tries = wing.provider.times("refresh_token")
    assert all(later - earlier >= 1 for earlier, later in pairwise(tries))
    wing.provider.down = None
    back = wing.clock.mono()
    while await renewed(wing, keeper, held(keeper)) is None:
        assert wing.clock.mono() < back + 5
        await wing.clock.advance(0.5)


async def test_a_provider_that_comes_back_without_its_sessions_costs_at_most_5_s_of_rejections(wing: Wing) -> None:
    keeper = await wing.started()
    wing.provider.down = TokenError("network", "nobody is there")
    await wing.clock.advance(285)
    assert keeper.status()["consecutive_failures"] == 4
    wing.provider.down = None
    wing.provider.end_sessions()
    back = wing.clock.mono()
    old = held(keeper)
    while await renewed(wing, keeper, old) is None:
        assert wing.clock.mono() < back + 5
        await wing.clock.advance(0.5)
    assert wing.provider.count("password") == 2


async def test_a_renewal_that_failed_does_not_count_as_one_that_did_not_cure(wing: Wing) -> None:
    keeper = await wing.started()
    wing.provider.down = TokenError("network", "nobody is there")
    assert await renewed(wing, keeper, held(keeper)) is None
    wing.provider.down = None
    await wing.clock.advance(6)
    assert await renewed(wing, keeper, held(keeper)) is held(keeper)


async def test_a_rejection_is_passed_on_while_login_is_suspended(wing: Wing) -> None:
    keeper = await wing.started()
    wing.provider.end_sessions()
    wing.provider.password = "changed"
    assert await renewed(wing, keeper, held(keeper)) is None
    for _ in range(50):
        assert keeper.rejected(held(keeper)) is None
        await wing.clock.advance(1)
    assert wing.provider.count("password") == 2


async def test_rejections_while_the_token_is_dead_join_the_renewal(wing: Wing) -> None:
    keeper = await wing.started()
    old = held(keeper)
    wing.provider.down = TokenError("network", "nobody is there")
    await wing.clock.advance(299.5)
    wing.provider.down = None
    assert await renewed(wing, keeper, old) is None  # known to be down: passed on at once
    await wing.clock.advance(3)
    assert keeper.rejected(old) is held(keeper)


async def test_a_refused_refresh_followed_by_a_login_is_one_renewal_for_all_waiters(wing: Wing) -> None:
    keeper = await wing.started()
    wing.provider.delay = 1
    wing.provider.script = [refused(400, "invalid_grant", "Stale token")]
    old = held(keeper)
    waiting = [asyncio.ensure_future(renewed(wing, keeper, old)) for _ in range(5)]
    await wing.clock.advance(5)
    assert {await task for task in waiting} == {held(keeper)}
    assert wing.provider.count("password") == 2
    # The refresh token was refused, but its session may live on at the provider: nobody can log it out.
    assert wing.provider.count("logout") == 0


async def test_refusing_and_accepting_by_turns_does_not_drive_the_provider(wing: Wing) -> None:
    keeper = await wing.started()
    before = len(wing.provider.calls)
    for _ in range(60):
        outcome = await renewed(wing, keeper, held(keeper))
        if outcome is not None:
            keeper.served(outcome)
    assert len(wing.provider.calls) - before <= 20 + 60 * 0.25 / 3 + 1


async def test_a_token_that_the_provider_has_given_up_is_not_called_fresh(wing: Wing) -> None:
    keeper = await wing.started()
    wing.provider.end_sessions()
    wing.provider.password = "changed"
    assert await renewed(wing, keeper, held(keeper)) is None
    assert keeper.status()["state"] == "suspended"
    assert keeper.usable()  # by its own word it lives, and it is all there is
