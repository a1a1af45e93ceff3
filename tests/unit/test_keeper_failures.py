"""A provider that is down, slow, broken or lost an answer: what requests see, and how often it is asked (B7 to B10)."""

import asyncio
from itertools import pairwise

import pytest

from proxy.errors import TokenError, TokenUnavailableError
from proxy.tokens.systems.base import Reply
from tests.support.tokens import Wing, jwt, refused, replied

DOWN = TokenError("network", "nobody is there")
LOST = TokenError("network", "the connection broke", lost=True)
TIMEOUT = TokenError("timeout", "no answer", lost=True)


async def test_no_request_fails_or_waits_while_the_token_is_valid(wing: Wing) -> None:
    keeper = await wing.started()
    wing.provider.down = DOWN
    for _ in range(298):
        await wing.clock.advance(1)
        assert keeper.current() is not None
    assert keeper.status()["state"] == "stale"
    tries = wing.provider.times("refresh_token")
    assert 4 <= len(tries) <= 8
    assert all(later - earlier >= 5 for earlier, later in pairwise(tries))


async def test_after_expiry_requests_are_refused_at_once_and_served_within_5_s_of_its_return(wing: Wing) -> None:
    keeper = await wing.started()
    wing.provider.down = DOWN
    await wing.clock.advance(400)
    before = wing.clock.mono()
    with pytest.raises(TokenUnavailableError, match="nobody is there") as caught:
        await keeper.obtain()
    assert wing.clock.mono() == before
    assert 1 <= caught.value.retry_after <= 5
    wing.provider.down = None
    await wing.clock.advance(3)
    assert keeper.current() is not None
    tries = wing.provider.times("refresh_token")
    dead = [at for at in tries if at > 300]
    assert all(later - earlier >= 1 for earlier, later in pairwise(dead))
    assert len(dead) < 110


async def test_a_long_min_interval_does_not_hold_service_back_when_the_provider_returns(wing: Wing) -> None:
    wing.provider.life = 10
    keeper = await wing.started(refresh={"min_interval": "60s"})
    wing.provider.down = DOWN
    await wing.clock.advance(12)
    with pytest.raises(TokenUnavailableError, match="nobody is there"):
        await keeper.obtain()
    wing.provider.down = None
    await wing.clock.advance(5)
    assert keeper.current() is not None


async def test_a_provider_that_hangs_costs_one_timeout_not_one_a_request(wing: Wing) -> None:
    keeper = await wing.started(timeout="4s")
    wing.provider.delay, wing.provider.down = 4, TIMEOUT
    await wing.clock.advance(330)
    for _ in range(20):
        before = wing.clock.mono()
        with pytest.raises(TokenUnavailableError):
            await keeper.obtain()
        assert wing.clock.mono() == before
        await wing.clock.advance(0.7)


async def test_the_first_request_after_an_expiry_waits_for_the_renewal(wing: Wing) -> None:
    keeper = await wing.started()
    wing.clock.suspend(1000)
    assert keeper.current() is None
    wing.provider.delay = 1
    waiting = asyncio.ensure_future(keeper.obtain())
    await wing.clock.advance(1.5)
    assert await waiting is keeper.current()
    assert wing.provider.count("refresh_token") == 1


@pytest.mark.parametrize(
    "lost",
    [
        LOST,
        TokenError("malformed", "half JSON", lost=True),
        replied(502, b"<html>"),
        replied(200, b'{"access_token": "ey'),
        replied(200, b""),
        replied(302, location="https://elsewhere.example.com"),
    ],
    ids=["reset", "not HTTP", "502", "half JSON", "empty", "redirect"],
)
async def test_a_refresh_whose_answers_are_lost_is_repeated_once_and_then_a_login_follows(
    wing: Wing, lost: Reply | TokenError
) -> None:
    keeper = await wing.started()
    redirect = isinstance(lost, Reply) and lost.status == 302
    wing.provider.script = [lost, lost]
    await wing.clock.advance(290)
    assert keeper.current() is not None
    kinds = [kind for kind, _ in wing.provider.calls]
    # A redirect was carried out by nobody: the refresh token is as good as before.
    assert kinds == ["password", "refresh_token", "refresh_token", "refresh_token" if redirect else "password"]


async def test_a_refresh_carried_out_with_its_answer_lost_costs_one_further_use_and_one_login(wing: Wing) -> None:
    keeper = await wing.started()
    wing.provider.lose = 1
    await wing.clock.advance(250)
    # The second use is taken for a reuse, which ends the session; the login follows within the same renewal.
    assert [kind for kind, _ in wing.provider.calls] == ["password", "refresh_token", "refresh_token", "password"]
    assert keeper.status()["state"] == "fresh"


async def test_where_somebody_waits_a_lost_answer_is_made_good_within_the_same_renewal(wing: Wing) -> None:
    keeper = await wing.started()
    wing.clock.suspend(400)
    wing.provider.script = [LOST, LOST]
    waiting = asyncio.ensure_future(keeper.obtain())
    await wing.clock.advance(2)
    assert await waiting is keeper.current()
    assert [kind for kind, _ in wing.provider.calls] == ["password", "refresh_token", "refresh_token", "password"]


async def test_an_old_refresh_token_is_never_presented_a_third_time_however_long_it_lasts(wing: Wing) -> None:
    await wing.started()
    wing.provider.down = TIMEOUT
    await wing.clock.advance(2000)
    assert wing.provider.count("refresh_token") == 2
    wing.provider.recover()
    await wing.clock.advance(5)
    assert wing.provider.count("refresh_token") == 2


async def test_a_connection_that_never_came_does_not_spend_the_refresh_token(wing: Wing) -> None:
    keeper = await wing.started()
    wing.provider.down = DOWN
    await wing.clock.advance(1000)
    wing.provider.down = None
    await wing.clock.advance(5)
    assert keeper.current() is not None
    assert wing.provider.count("password") == 1


BAD_REPLIES = {
    "null token": replied(200, {"access_token": None, "token_type": "bearer"}),
    "number": replied(200, {"access_token": 7, "token_type": "bearer"}),
    "empty": replied(200, {"access_token": "", "token_type": "bearer"}),
    "CRLF": replied(200, {"access_token": "a\r\nb", "token_type": "bearer"}),
    "HTML": replied(200, b"<html>"),
    "redirect": replied(301, location="/"),
    "other type": replied(200, {"access_token": "a", "token_type": "mac"}),
    "dead": replied(200, {"access_token": jwt(iat=5, exp=5), "token_type": "bearer", "expires_in": 0}),
    "server error": replied(500, b"oops"),
    "bad gateway": replied(502, b"oops"),
    "teapot": replied(418, b""),
    "unauthorised without words": replied(401, b""),
    "too many requests": replied(429, b""),
    "wrong client": refused(401, "invalid_client"),
    "wrong realm": refused(404, "Realm does not exist"),
    "wrong password": refused(401, "invalid_grant", "Invalid user credentials"),
    "not set up": refused(400, "invalid_grant", "Account is not fully set up"),
}
# At most so many calls in the first ten minutes without any token.
CALM = {"server error": 400, "bad gateway": 400, "too many requests": 15, "teapot": 6, "wrong password": 5}


@pytest.mark.parametrize("name", BAD_REPLIES)
async def test_no_bad_reply_makes_a_hot_loop_whatever_the_traffic(wing: Wing, name: str) -> None:
    wing.provider.script = [BAD_REPLIES[name]] * 1000
    keeper = await wing.started()
    for _ in range(600):
        for _ in range(3):
            with pytest.raises(TokenUnavailableError):
                await keeper.obtain()
        await wing.clock.advance(1)
    assert keeper.current() is None
    assert len(wing.provider.calls) <= CALM.get(name, 60)
    times = [at for _, at in wing.provider.calls]
    assert all(later - earlier >= 1 for earlier, later in pairwise(times))


@pytest.mark.parametrize("status", [429, 503])
async def test_retry_after_is_honoured_and_told_on(wing: Wing, status: int) -> None:
    wing.provider.script = [replied(status, retry_after="40")]
    keeper = await wing.started()
    with pytest.raises(TokenUnavailableError) as caught:
        await keeper.obtain()
    assert caught.value.retry_after == 40
    await wing.clock.advance(39.9)
    assert len(wing.provider.calls) == 1
    await wing.clock.advance(0.2)
    assert keeper.current() is not None


async def test_retry_after_is_bounded(wing: Wing) -> None:
    wing.provider.script = [replied(503, retry_after="99999999")]
    keeper = await wing.started()
    await wing.clock.advance(901)
    assert keeper.current() is not None


async def test_retry_after_bounds_an_early_refresh_too(wing: Wing) -> None:
    keeper = await wing.started()
    wing.provider.script = [replied(429, retry_after="50")]
    await wing.clock.advance(295)
    assert wing.provider.times("refresh_token") == [240.0, 290.0]
    assert keeper.status()["state"] == "fresh"


async def test_a_rate_limit_is_no_credential_failure(wing: Wing) -> None:
    wing.provider.script = [replied(429, b"")] * 3
    keeper = await wing.started()
    assert keeper.status()["suspended_until"] is None
    await wing.clock.advance(60)
    assert keeper.current() is not None


async def test_an_operators_error_is_tried_ever_more_rarely_and_at_once_when_a_person_acted(wing: Wing) -> None:
    wing.provider.script = [refused(401, "unauthorized_client")] * 4
    keeper = await wing.started()
    await wing.clock.advance(600)
    assert wing.provider.times("password") == [0.0, 30.0, 90.0, 210.0, 450.0]
    assert keeper.current() is not None

    wing.provider.end_sessions()
    wing.provider.script = [refused(401, "unauthorized_client")] * 2
    await wing.clock.advance(300)
    wing.provider.script.clear()
    keeper.credentials_changed()
    await wing.clock.advance(2)
    assert keeper.status()["state"] == "fresh"


async def test_consecutive_failures_are_counted_until_a_success(wing: Wing) -> None:
    wing.provider.down = DOWN
    keeper = await wing.started()
    await wing.clock.advance(10)
    numbers = wing.metrics.identity("opentv")
    assert numbers.consecutive_failures >= 5
    assert not numbers.usable_now()
    wing.provider.down = None
    await wing.clock.advance(3)
    assert keeper.status()["consecutive_failures"] == numbers.consecutive_failures == 0


async def test_an_error_inside_does_not_end_the_keeping(wing: Wing) -> None:
    def bug(_: object) -> Reply:
        raise ZeroDivisionError

    wing.provider.script = [bug]
    keeper = await wing.started()
    assert wing.log.events("renewal broke")[0]["error"] == "ZeroDivisionError"
    with pytest.raises(TokenUnavailableError, match="see its log"):
        await keeper.obtain()
    await wing.clock.advance(3)
    assert keeper.current() is not None
