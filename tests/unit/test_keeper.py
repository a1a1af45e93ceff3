"""The keeper on a hand-turned clock: who waits, who is served, and how often the provider is asked."""

import asyncio

import pytest

from proxy.errors import TokenError, TokenUnavailableError
from proxy.tokens.source import Credential
from tests.support.tokens import Wing, settle


async def test_a_login_comes_at_start_and_signs_requests(wing: Wing) -> None:
    keeper = await wing.started()
    credential = keeper.current()
    assert credential is not None
    assert credential.line.startswith(b"Authorization: Bearer ey")
    assert credential.line.endswith(b"\r\n")
    assert keeper.header == b"authorization"
    assert wing.provider.calls == [("password", 0.0)]
    assert wing.refreshes() == {("login", "startup", "success"): 1}


async def test_a_thousand_cold_requests_cost_one_token_call(wing: Wing) -> None:
    wing.provider.delay = 2
    keeper = await wing.started()
    waiting = [asyncio.ensure_future(keeper.obtain()) for _ in range(1000)]
    await settle()
    assert wing.metrics.identity("opentv").waiters == 1000
    await wing.clock.advance(2)
    assert len({id(task.result()) for task in waiting}) == 1
    assert wing.provider.calls == [("password", 0.0)]
    assert wing.metrics.identity("opentv").waiters == 0


async def test_a_token_is_refreshed_ahead_while_it_is_served(wing: Wing) -> None:
    keeper = await wing.started()
    first = keeper.current()
    await wing.clock.advance(239)
    assert keeper.current() is first
    wing.provider.delay = 3
    await wing.clock.advance(2)
    assert keeper.status()["state"] == "stale"
    assert keeper.current() is first
    await wing.clock.advance(3)
    assert keeper.current() is not first
    assert keeper.status()["state"] == "fresh"
    assert wing.provider.calls == [("password", 0.0), ("refresh_token", 240.0)]
    assert wing.refreshes()[("refresh", "ahead", "success")] == 1


async def test_two_hundred_rejections_cost_one_refresh(wing: Wing) -> None:
    keeper = await wing.started()
    old = keeper.current()
    assert old is not None
    wing.provider.delay = 1
    outcomes = [keeper.rejected(old) for _ in range(200)]
    await wing.clock.advance(1)
    for outcome in outcomes:
        assert outcome is not None
        assert not isinstance(outcome, Credential)
        assert await outcome is keeper.current()
    assert wing.provider.count("refresh_token") == 1
    assert keeper.rejected(old) is keeper.current()


async def test_a_provider_that_is_down_from_the_start_means_an_answer_at_once(wing: Wing) -> None:
    wing.provider.down = TokenError("network", "nobody is there")
    keeper = await wing.started()
    with pytest.raises(TokenUnavailableError, match="nobody is there"):
        await keeper.obtain()
    wing.provider.down = None
    await wing.clock.advance(3)
    assert keeper.current() is not None


async def test_a_caller_that_leaves_does_not_end_the_renewal(wing: Wing) -> None:
    wing.provider.delay = 2
    keeper = await wing.started()
    caller = asyncio.ensure_future(keeper.obtain())
    await settle()
    caller.cancel()
    await wing.clock.advance(2)
    assert caller.cancelled()
    assert keeper.current() is not None
    assert wing.metrics.identity("opentv").waiters == 0


async def test_a_request_waits_no_longer_than_the_timeout(wing: Wing) -> None:
    wing.provider.delay = 9
    keeper = await wing.started(timeout="4s")
    caller = asyncio.ensure_future(keeper.obtain())
    await wing.clock.advance(3.9)
    assert not caller.done()
    await wing.clock.advance(0.2)
    with pytest.raises(TokenUnavailableError, match="no token within 4 s"):
        await caller


async def test_an_expired_token_is_never_served(wing: Wing) -> None:
    keeper = await wing.started()
    wing.provider.down = TokenError("network", "nobody is there")
    await wing.clock.advance(298.9)
    assert keeper.current() is not None
    await wing.clock.advance(0.2)
    assert keeper.current() is None
    assert keeper.status()["state"] == "expired"
    assert not keeper.usable()


@pytest.mark.parametrize(("life", "most"), [(1, 720), (2, 720), (4, 720), (6, 720), (0.2, 720), (30, 165)])
async def test_a_short_lifetime_makes_no_loop(wing: Wing, life: float, most: int) -> None:
    wing.provider.life = life
    wing.provider.reply_extra = {"access_token": "opaque", "expires_in": life}
    await wing.started()
    await wing.clock.advance(3600)
    assert len(wing.provider.calls) <= most + 1


async def test_a_token_dead_on_arrival_is_not_served_and_not_asked_for_in_a_loop(wing: Wing) -> None:
    wing.provider.reply_extra = {"access_token": "opaque", "expires_in": 1}
    wing.provider.delay = 2
    keeper = await wing.started()
    await wing.clock.advance(300)
    assert keeper.current() is None
    assert len(wing.provider.calls) < 30
    with pytest.raises(TokenUnavailableError, match="dead before it arrived"):
        await keeper.obtain()


async def test_the_injected_header_is_as_configured(wing: Wing) -> None:
    keeper = await wing.started(inject={"header": "nv-authorizations", "scheme": ""})
    credential = keeper.current()
    assert credential is not None
    assert credential.line.startswith(b"nv-authorizations: ey")
    assert keeper.header == b"nv-authorizations"
    assert b"ey" not in repr(credential).encode()


async def test_a_login_that_brings_too_few_roles_is_warned_about(wing: Wing) -> None:
    wing.provider.roles = ("viewer",)
    await wing.started(expect_roles=["operatorRole", "viewer"])
    assert wing.log.events("roles missing")[0]["missing"] == ["operatorRole"]


async def test_status_has_the_contracts_shape(wing: Wing) -> None:
    keeper = await wing.started()
    status = keeper.status()
    assert status == {
        "state": "fresh",
        "fingerprint": keeper.current().fingerprint if keeper.current() else "",  # type: ignore[union-attr]  # asked first
        "issued_at": "2023-11-14T22:13:20Z",
        "expires_at": "2023-11-14T22:18:20Z",
        "refresh_expires_at": "2023-11-14T22:43:20Z",
        "session_ends_at": None,
        "next_refresh_at": "2023-11-14T22:17:20Z",
        "last_refresh": {
            "at": "2023-11-14T22:13:20Z",
            "trigger": "startup",
            "grant": "login",
            "result": "success",
            "duration_s": 0,
            "detail": "",
        },
        "consecutive_failures": 0,
        "suspended_until": None,
        "history": [status["last_refresh"]],
    }


async def test_the_history_holds_the_last_twenty(wing: Wing) -> None:
    keeper = await wing.started()
    await wing.clock.advance(240 * 25)
    history = keeper.status()["history"]
    assert isinstance(history, list)
    assert len(history) == 20


async def test_gauges_follow_the_token(wing: Wing) -> None:
    await wing.started()
    await wing.clock.advance(1)
    numbers = wing.metrics.identity("opentv")
    began = wing.clock.wall() - 1
    assert numbers.usable_now()
    assert numbers.access_expiry == began + 300
    assert numbers.refresh_expiry == began + 1800
    assert numbers.access_issued == numbers.last_success == began
    assert numbers.next_refresh == began + 240
    assert (numbers.session_end, numbers.login_suspended, numbers.consecutive_failures) == (None, False, 0)


async def test_no_log_line_and_no_status_holds_a_secret(wing: Wing) -> None:
    keeper = await wing.started(client_auth="post", client_secret="client-secret-1")
    wing.provider.down = TokenError("network", "nobody is there", lost=True)
    await wing.clock.advance(400)
    wing.provider.recover()
    wing.provider.password = "other"
    wing.provider.end_sessions()
    await wing.clock.advance(400)
    credential = keeper._credential
    assert credential is not None
    seen = repr(wing.log.lines) + repr(keeper.status())
    secrets = [credential.line.decode()[22:60], "client-secret-1", "session-0", "'right'"]
    assert [secret for secret in secrets if secret in seen] == []


async def test_manual_refresh_renews_at_once_and_says_when_it_fails(wing: Wing) -> None:
    keeper = await wing.started()
    first = keeper.current()
    await keeper.refresh_now()
    assert keeper.current() is not first
    assert wing.refreshes()[("refresh", "manual", "success")] == 1
    wing.provider.down = TokenError("network", "nobody is there")
    with pytest.raises(TokenUnavailableError, match="nobody is there"):
        await keeper.refresh_now()
    assert keeper.usable()
