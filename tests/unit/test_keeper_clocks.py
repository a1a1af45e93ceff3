"""Clocks that jump, machines that sleep, providers whose time is another (B11)."""

import pytest

from tests.support.tokens import START, Wing, replied


@pytest.mark.parametrize("jump", [3 * 3600, -3 * 3600, 400, -400])
async def test_a_set_wall_clock_costs_at_most_one_extra_refresh_and_no_request(wing: Wing, jump: float) -> None:
    keeper = await wing.started()
    await wing.clock.advance(100)
    wing.clock.set_wall(jump)
    for _ in range(100):
        await wing.clock.advance(1)
        assert keeper.current() is not None
    assert wing.provider.count("refresh_token") <= 1
    for _ in range(1000):
        await wing.clock.advance(1)
        assert keeper.current() is not None
    assert wing.provider.count("refresh_token") <= 6
    assert wing.provider.count("password") == 1


async def test_times_for_people_follow_the_wall_clock_as_it_is(wing: Wing) -> None:
    keeper = await wing.started()
    await wing.clock.advance(10)
    wing.clock.set_wall(-3600)
    await wing.clock.advance(2)
    assert keeper.status()["expires_at"] == "2023-11-14T21:18:20Z"
    assert wing.metrics.identity("opentv").access_expiry == START + 300 - 3600


@pytest.mark.parametrize("asleep", [100, 290, 310, 1700])
async def test_a_machine_that_slept_sends_no_dead_token_and_renews_within_a_second(wing: Wing, asleep: float) -> None:
    keeper = await wing.started()
    await wing.clock.advance(5)
    old = keeper.current()
    wing.clock.suspend(asleep)
    assert (keeper.current() is old) == (asleep < 294)
    await wing.clock.advance(1.1)
    assert keeper.current() is not None
    assert (keeper.current() is old) == (asleep == 100)
    assert len(wing.provider.calls) == 1 + (asleep != 100)


async def test_a_machine_that_slept_past_the_sessions_end_logs_in(wing: Wing) -> None:
    keeper = await wing.started()
    wing.clock.suspend(20_000)
    await wing.clock.advance(1.1)
    assert keeper.current() is not None
    assert wing.provider.count("password") == 2


@pytest.mark.parametrize("offset", [600, -600, 86400])
async def test_a_provider_with_another_time_changes_nothing_but_the_gauge(wing: Wing, offset: float) -> None:
    wing.provider.clock_offset = offset
    keeper = await wing.started()
    for _ in range(1000):
        await wing.clock.advance(1)
        assert keeper.current() is not None
    assert wing.provider.times("refresh_token") == [240.0, 480.0, 720.0, 960.0]
    skew = wing.metrics.identity("opentv").clock_skew
    assert skew == pytest.approx(offset, abs=1)


async def test_a_date_header_is_the_better_witness_of_skew(wing: Wing) -> None:
    wing.provider.script = [replied(503, b"", date="Tue, 14 Nov 2023 22:14:03 GMT")]
    await wing.started()
    assert wing.metrics.identity("opentv").clock_skew == pytest.approx(43.5)
