"""A refused login: the user must never be locked, whatever the traffic (K7, B10)."""

import asyncio
from itertools import pairwise
from pathlib import Path

import pytest

from proxy.errors import TokenError, TokenUnavailableError
from tests.support.tokens import Wing, refused, settle


async def test_a_wrong_password_is_tried_once_in_the_first_minute_whatever_the_traffic(wing: Wing) -> None:
    keeper = await wing.started(password="wrong")
    for _ in range(59):
        with pytest.raises(TokenUnavailableError, match="login suspended until 2023-11-14T22:14:20Z") as caught:
            await keeper.obtain()
        assert 0 < caught.value.retry_after <= 60
        await wing.clock.advance(1)
    assert wing.provider.times("password") == [0.0]
    status = keeper.status()
    assert (status["state"], status["suspended_until"]) == ("suspended", "2023-11-14T22:14:20Z")
    numbers = wing.metrics.identity("opentv")
    assert (numbers.login_suspended, numbers.usable_now()) == (True, False)


async def test_the_wait_doubles_up_to_a_quarter_of_an_hour(wing: Wing) -> None:
    await wing.started(password="wrong")
    await wing.clock.advance(4000)
    assert wing.provider.times("password") == [0.0, 60.0, 180.0, 420.0, 900.0, 1800.0, 2700.0, 3600.0]


async def test_the_wait_is_jittered_up_to_75_s() -> None:
    wing = Wing(draw=0.999)
    await wing.started(password="wrong")
    await wing.clock.advance(60)
    assert wing.provider.count("password") == 1
    await wing.clock.advance(15)
    assert wing.provider.count("password") == 2
    await wing.close()


async def test_a_right_password_refused_beside_another_login_is_served_after_the_next_try(wing: Wing) -> None:
    wing.provider.script = [refused(401, "invalid_grant", "Invalid user credentials")]
    keeper = await wing.started()
    await wing.clock.advance(61)
    assert keeper.status()["state"] == "fresh"


async def test_a_changed_secret_ends_the_wait(wing: Wing, tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("wrong")
    keeper = await wing.started(password=None, password_file=str(file))
    await wing.clock.advance(10)
    file.write_text("right\n")
    keeper.credentials_changed()
    await settle()
    assert keeper.current() is not None
    assert wing.refreshes()[("login", "credentials_changed", "success")] == 1


async def test_a_secret_that_changes_while_the_old_one_is_being_refused_is_tried(wing: Wing, tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("wrong")
    wing.provider.delay = 2
    keeper = await wing.started(password=None, password_file=str(file))
    await wing.clock.advance(1)
    file.write_text("right")
    keeper.credentials_changed()
    await wing.clock.advance(6)
    assert keeper.current() is not None
    assert wing.provider.count("password") == 2


async def test_a_change_of_secrets_leaves_a_good_token_alone(wing: Wing) -> None:
    keeper = await wing.started()
    keeper.credentials_changed()
    await wing.clock.advance(10)
    assert len(wing.provider.calls) == 1
    assert wing.provider.tls_read == 1


async def test_two_logins_are_never_less_than_a_second_apart_however_often_a_person_asks(wing: Wing) -> None:
    keeper = await wing.started(password="wrong")
    for _ in range(20):
        keeper.credentials_changed()
        asking = asyncio.ensure_future(keeper.refresh_now())
        await wing.clock.advance(0.2)
        asking.cancel()
    times = wing.provider.times("password")
    assert len(times) <= 4
    assert all(later - earlier > 1 for earlier, later in pairwise(times))


async def test_a_manual_refresh_ends_the_wait_and_says_what_came_of_it(wing: Wing) -> None:
    keeper = await wing.started(password="wrong")
    await wing.clock.advance(5)
    with pytest.raises(TokenUnavailableError, match="refused the user name or the password"):
        await keeper.refresh_now()
    wing.provider.password = "wrong"
    await wing.clock.advance(5)
    await keeper.refresh_now()
    assert keeper.usable()
    assert wing.refreshes()[("login", "manual", "success")] == 1


async def test_a_suspended_login_leaves_refreshes_alone(wing: Wing) -> None:
    wing.provider.maximum = 2000
    keeper = await wing.started()
    wing.provider.password = "changed by an administrator"
    await wing.clock.advance(1990)
    # The login before the session's end was refused; the old session is used to its last second.
    assert wing.refreshes()[("login", "session_end", "invalid_credentials")] >= 1
    assert keeper.current() is not None
    assert keeper.status()["state"] in ("fresh", "stale")
    await wing.clock.advance(60)
    assert keeper.status()["state"] == "suspended"
    logins = wing.provider.times("password")[1:]
    assert all(later - earlier >= 60 for earlier, later in pairwise(logins))


async def test_an_unknown_refusal_of_a_login_is_treated_as_carefully(wing: Wing) -> None:
    wing.provider.script = [refused(401, "")] * 100
    await wing.started()
    await wing.clock.advance(300)
    assert wing.provider.times("password") == [0.0, 60.0, 180.0]


@pytest.mark.parametrize("code", ["server_error", "temporarily_unavailable", "unknown_error"])
async def test_a_login_that_the_provider_says_it_did_not_judge_is_tried_again_soon(wing: Wing, code: str) -> None:
    wing.provider.script = [refused(400, code)] * 4
    keeper = await wing.started()
    await wing.clock.advance(32)
    assert wing.provider.times("password") == [0.0, 2.0, 6.0, 14.0, 30.0]
    assert keeper.status()["state"] == "fresh"


async def test_a_provider_that_is_down_suspends_nothing(wing: Wing) -> None:
    wing.provider.down = TokenError("network", "nobody is there")
    keeper = await wing.started()
    await wing.clock.advance(30)
    assert keeper.status()["suspended_until"] is None
    assert keeper.status()["state"] == "expired"


async def test_a_secret_that_cannot_be_read_is_the_operators_to_mend(wing: Wing, tmp_path: Path) -> None:
    file = tmp_path / "password"
    keeper = await wing.started(password=None, password_file=str(file))
    with pytest.raises(TokenUnavailableError, match="does not exist"):
        await keeper.obtain()
    assert wing.provider.calls == []
    file.write_text("right")
    keeper.credentials_changed()
    await settle()
    assert keeper.current() is not None
