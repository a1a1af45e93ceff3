"""Sessions at the provider: opened rarely, replaced before their end, logged out when ours (K1, K2, K5, K8, K9)."""

import asyncio
from pathlib import Path

import pytest

from proxy.errors import TokenError, TokenUnavailableError
from tests.support.tokens import Wing, refused, settle


async def test_a_session_is_replaced_before_its_absolute_end(wing: Wing) -> None:
    wing.provider.life, wing.provider.idle, wing.provider.maximum = 6, 10, 20
    keeper = await wing.started()
    for _ in range(1200):
        await wing.clock.advance(0.1)
        assert keeper.current() is not None
    logins = wing.provider.times("password")
    assert 6 <= len(logins) <= 8
    assert wing.refreshes()[("login", "session_end", "success")] == len(logins) - 1
    assert {result for _, _, result in wing.refreshes()} == {"success"}
    assert wing.provider.open_sessions() <= 2


async def test_ten_hours_of_defaults_are_one_login_and_then_another(wing: Wing) -> None:
    keeper = await wing.started()
    await wing.clock.skip(34600)
    assert keeper.status()["session_ends_at"] is not None
    assert wing.provider.count("password") == 1
    await wing.clock.skip(1800)
    assert wing.provider.count("password") == 2
    assert {result for _, _, result in wing.refreshes()} == {"success"}
    # By login as soon as a refresh would not give a full life any more.
    assert 35600 < wing.provider.times("password")[1] < 36000


async def test_the_replaced_session_is_logged_out_after_a_grace_for_requests_under_way(wing: Wing) -> None:
    wing.provider.maximum = 900
    await wing.started()
    await wing.clock.advance(900)
    second = wing.provider.times("password")[1]
    assert wing.provider.times("logout") == [second + 5]
    assert wing.provider.open_sessions() == 1


async def test_an_offline_session_has_no_end_and_is_used_though_nobody_asks(wing: Wing) -> None:
    wing.provider.offline, wing.provider.maximum = True, 1e9
    wing.provider.life = 40 * 86400
    keeper = await wing.started()
    await wing.clock.advance(1)
    assert keeper.status()["refresh_expires_at"] is None
    assert wing.metrics.identity("opentv").refresh_expiry is None
    for _ in range(3):
        wing.clock.suspend(86400)
        await wing.clock.advance(2)
    assert wing.provider.count("refresh_token") == 3
    assert wing.provider.count("password") == 1


async def test_a_reply_without_refresh_token_keeps_the_old_one(wing: Wing) -> None:
    await wing.started()
    wing.provider.rotates = False
    wing.provider.reply_extra = {"refresh_token": None}
    await wing.clock.advance(1000)
    assert wing.provider.count("password") == 1
    assert wing.provider.count("refresh_token") == 4


async def test_a_not_before_policy_later_than_the_token_renews_at_once_but_only_once(wing: Wing) -> None:
    wing.provider.not_before = wing.clock.wall() + 1000
    await wing.started()
    await wing.clock.advance(30)
    assert len(wing.provider.calls) == 2
    await wing.clock.advance(600)
    assert len(wing.provider.calls) <= 5


async def test_a_not_before_policy_of_the_tokens_own_second_changes_nothing(wing: Wing) -> None:
    wing.provider.not_before = wing.clock.wall()
    await wing.started()
    await wing.clock.advance(200)
    assert len(wing.provider.calls) == 1


async def test_client_credentials_log_in_again_before_the_end(wing: Wing) -> None:
    keeper = await wing.started(grant="client_credentials", client_auth="post", client_secret="s", system="oauth2")
    await wing.clock.advance(500)
    assert wing.provider.times("client_credentials") == [0.0, 240.0, 480.0]
    assert keeper.status()["refresh_expires_at"] is None
    assert wing.refreshes()[("login", "ahead", "success")] == 2


async def test_a_session_of_our_own_is_logged_out_at_the_end(wing: Wing) -> None:
    keeper = await wing.started()
    await keeper.close()
    assert wing.provider.count("logout") == 1
    assert wing.provider.open_sessions() == 0
    assert keeper.current() is None
    assert await wing.store.load("opentv") is None
    assert wing.provider.closed


async def test_logout_can_be_turned_off(wing: Wing) -> None:
    keeper = await wing.started(logout=False)
    await keeper.close()
    assert wing.provider.count("logout") == 0


async def test_closing_lets_a_renewal_finish_and_then_ends_its_session(wing: Wing) -> None:
    keeper = await wing.started()
    wing.provider.delay = 3
    await wing.clock.advance(241)
    closing = asyncio.ensure_future(keeper.close())
    await wing.clock.advance(1)
    assert not closing.done()
    await wing.clock.advance(8)
    await closing
    assert [kind for kind, _ in wing.provider.calls] == ["password", "refresh_token", "logout"]
    assert wing.provider.open_sessions() == 0


async def test_closing_does_not_wait_for_ever(wing: Wing) -> None:
    wing.provider.delay = 9
    keeper = await wing.started(timeout="2s")
    closing = asyncio.ensure_future(keeper.close())
    await wing.clock.advance(5)
    await closing
    with pytest.raises(TokenUnavailableError):
        await keeper.obtain()


async def test_a_failed_logout_is_no_error(wing: Wing) -> None:
    keeper = await wing.started()
    wing.provider.script = [refused(400, "invalid_grant", "Invalid refresh token")]
    await keeper.close()
    assert wing.log.events("logged out") == []


async def test_a_reload_hands_the_session_over(wing: Wing) -> None:
    first = await wing.started()
    token = first.current()
    assert token is not None
    second = wing.keeper(refresh={"ahead": 0.5})
    await second.start(predecessor=first)
    await settle()
    successor = second.current()
    assert successor is not None
    assert successor.fingerprint == token.fingerprint
    assert first.current() is token
    # What was signed by the first comes back to it: one refresh, by the second.
    outcome = first.rejected(token)
    assert outcome is not None
    await settle()
    await first.close()
    assert wing.provider.count("logout") == 0
    assert wing.provider.count("refresh_token") == 1
    assert wing.provider.count("password") == 1
    assert await first.obtain() is not token or second.current() is not successor
    await wing.clock.advance(400)
    assert wing.provider.count("password") == 1
    assert {result for _, _, result in wing.refreshes()} == {"success"}


async def test_a_reload_to_another_user_opens_a_session_and_ends_the_old_one(wing: Wing) -> None:
    first = await wing.started()
    second = wing.keeper(username="somebody else")
    await second.start(predecessor=first)
    await settle()
    await first.close()
    assert [kind for kind, _ in wing.provider.calls] == ["password", "password", "logout"]
    assert wing.provider.sessions[1].open
    assert await wing.store.load("opentv") is not None
    assert second.current() is not None


async def test_a_seed_is_rotated_from_and_never_logged_out(wing: Wing, tmp_path: Path) -> None:
    file = tmp_path / "refresh-token.txt"
    file.write_text(wing.provider.seed())
    keeper = await wing.started(grant="refresh_token", refresh_token_file=str(file))
    await wing.clock.advance(1000)
    assert keeper.current() is not None
    assert wing.provider.count("refresh_token") == 5
    await keeper.close()
    assert wing.provider.count("logout") == 0
    assert wing.provider.open_sessions() == 1


async def test_a_dead_seed_is_presented_once_and_a_new_one_is_taken_up(wing: Wing, tmp_path: Path) -> None:
    file = tmp_path / "refresh-token.txt"
    file.write_text("session-7-0")
    keeper = await wing.started(grant="refresh_token", refresh_token_file=str(file))
    await wing.clock.advance(1000)
    assert wing.provider.count("refresh_token") == 1
    with pytest.raises(TokenUnavailableError, match=r"put a new refresh token into .*refresh-token\.txt"):
        await keeper.obtain()
    file.write_text(wing.provider.seed())
    keeper.credentials_changed()
    await settle()
    assert keeper.current() is not None


async def test_a_seeds_session_that_ends_goes_over_to_a_new_seed_by_itself(wing: Wing, tmp_path: Path) -> None:
    file = tmp_path / "refresh-token.txt"
    file.write_text(wing.provider.seed())
    keeper = await wing.started(grant="refresh_token", refresh_token_file=str(file))
    file.write_text(wing.provider.seed())
    wing.provider.sessions[0].open = False
    await wing.clock.advance(245)
    assert keeper.status()["state"] == "fresh"
    assert wing.provider.count("refresh_token") == 3


async def test_a_seeds_refresh_token_stays_the_only_chance_however_often_answers_are_lost(
    wing: Wing, tmp_path: Path
) -> None:
    file = tmp_path / "refresh-token.txt"
    file.write_text(wing.provider.seed())
    keeper = await wing.started(grant="refresh_token", refresh_token_file=str(file))
    wing.provider.down = TokenError("timeout", "no answer", lost=True)
    await wing.clock.advance(600)
    wing.provider.down = None
    await wing.clock.advance(5)
    assert keeper.current() is not None
