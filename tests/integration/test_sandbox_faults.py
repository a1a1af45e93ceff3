"""The sandbox's faults from outside: what a client sees of each, and what the platform did meanwhile."""

import asyncio
from collections.abc import AsyncIterator

import aiohttp
import pytest

from proxy.sandbox import Fault
from tests.support.sandbox import Platform, running


@pytest.fixture
async def platform() -> AsyncIterator[Platform]:
    async with running() as platform:
        yield platform


async def test_a_fault_is_met_as_often_as_it_says_and_then_no_more(platform: Platform) -> None:
    platform.state.add_fault("token", Fault("reject", times=2))
    assert [(await platform.login()).status for _ in range(3)] == [401, 401, 200]
    assert platform.state.counters["faults_token"] == 2


async def test_a_fault_without_times_lasts_until_cleared(platform: Platform) -> None:
    platform.state.add_fault("token", Fault("reply", times=None, status=503, body="{}"))
    assert [(await platform.login()).status for _ in range(3)] == [503, 503, 503]
    platform.state.clear_faults()
    assert (await platform.login()).status == 200


async def test_a_fault_for_one_grant_leaves_the_others_alone(platform: Platform) -> None:
    pair = await platform.login()
    platform.state.add_fault("token", Fault("reject", grant="refresh_token"))
    assert (await platform.login()).status == 200
    refused = await platform.refresh(pair["refresh_token"])
    assert refused.refusal == (400, "invalid_grant", "Token is not active")
    assert (await platform.refresh(pair["refresh_token"])).status == 200


async def test_a_rejection_can_have_other_words(platform: Platform) -> None:
    platform.state.add_fault("token", Fault("reject", status=400, error="server_error", description="Boom"))
    assert (await platform.login()).refusal == (400, "server_error", "Boom")


async def test_a_canned_reply_arrives_as_given_and_nothing_is_handled(platform: Platform) -> None:
    platform.state.add_fault("token", Fault("reply", status=502, body='{"a":1}', headers={"X-Why": "test"}))
    answer = await platform.login()
    assert (answer.status, answer.body, answer.headers["X-Why"]) == (502, {"a": 1}, "test")
    assert platform.state.counters["logins"] == 0


async def test_html_redirect_and_rate_limit_look_like_what_proxies_send(platform: Platform) -> None:
    for fault in (Fault("html"), Fault("redirect"), Fault("rate-limit", retry_after="7")):
        platform.state.add_fault("token", fault)
    html, redirect, limited = [await platform.login() for _ in range(3)]
    assert (html.status, html.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert (redirect.status, redirect.headers["Location"]) == (302, "https://login.example.com/")
    assert (limited.status, limited.headers["Retry-After"]) == (429, "7")


async def test_a_big_body_has_the_size_asked_for(platform: Platform) -> None:
    platform.state.add_fault("token", Fault("big-body", size=3_000_000))
    answer = await platform.login()
    assert (answer.status, int(answer.headers["Content-Length"])) == (200, 3_000_000)


async def test_a_closed_connection_gives_no_answer_and_handles_nothing(platform: Platform) -> None:
    platform.state.add_fault("token", Fault("close"))
    with pytest.raises(aiohttp.ServerDisconnectedError):
        await platform.login()
    assert (platform.state.counters["token_requests_password"], platform.state.counters["logins"]) == (1, 0)


async def test_half_json_announces_more_than_comes(platform: Platform) -> None:
    platform.state.add_fault("token", Fault("half-json"))
    with pytest.raises(aiohttp.ClientPayloadError):
        await platform.login()
    assert platform.state.counters["logins"] == 1


async def test_a_rotation_whose_answer_is_lost_makes_the_old_token_a_reuse(platform: Platform) -> None:
    pair = await platform.login()
    platform.state.add_fault("token", Fault("rotate-then-reset"))
    with pytest.raises((ConnectionResetError, aiohttp.ClientConnectionError)):
        await platform.refresh(pair["refresh_token"])
    assert platform.state.counters["refreshes"] == 1
    again = await platform.refresh(pair["refresh_token"])
    assert again.refusal == (400, "invalid_grant", "Maximum allowed refresh token reuse exceeded")


async def test_a_late_answer_was_handled_even_when_the_client_has_left(platform: Platform) -> None:
    pair = await platform.login()
    platform.state.add_fault("token", Fault("late", delay_ms=60_000))
    platform.sleeps.wake.clear()
    impatient = asyncio.create_task(platform.refresh(pair["refresh_token"]))
    await platform.sleeps.entered.wait()
    impatient.cancel()
    assert (platform.sleeps.asked, platform.state.counters["refreshes"]) == ([60.0], 1)
    platform.sleeps.wake.set()


async def test_a_delay_comes_before_the_ordinary_answer(platform: Platform) -> None:
    platform.state.add_fault("token", Fault("delay", delay_ms=1500))
    assert (await platform.login()).status == 200
    assert platform.sleeps.asked == [1.5]


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (Fault("null-fields", fields=("access_token",)), {"access_token": None, "token_type": "bearer"}),
        (Fault("number-fields", fields=("access_token",)), {"access_token": 12345, "token_type": "bearer"}),
        (Fault("empty-fields"), {"access_token": "", "token_type": "", "expires_in": "", "refresh_token": ""}),
        (Fault("set-fields", values={"expires_in": "300"}, drop=("refresh_token",)), {"expires_in": "300"}),
    ],
)
async def test_fields_of_the_answer_can_be_wrong(platform: Platform, fault: Fault, expected: dict[str, object]) -> None:
    platform.state.add_fault("token", fault)
    answer = await platform.login()
    assert answer.status == 200
    assert {name: answer[name] for name in expected} == expected
    assert ("refresh_token" in answer.body) is not bool(fault.drop)


async def test_logout_has_faults_of_its_own(platform: Platform) -> None:
    pair = await platform.login()
    platform.state.add_fault("logout", Fault("reply", status=500))
    assert [(await platform.logout(pair["refresh_token"])).status for _ in range(2)] == [500, 204]


async def test_the_api_rejects_a_good_token_when_told_to(platform: Platform) -> None:
    token = (await platform.login())["access_token"]
    platform.state.add_fault("api", Fault("reject", times=2))
    assert [(await platform.call(token)).status for _ in range(3)] == [403, 403, 200]
    assert platform.state.counters["api_rejections_fault"] == 2


@pytest.mark.parametrize("kind", ["close", "rotate-then-reset"])
async def test_the_api_can_break_a_connection_off(platform: Platform, kind: str) -> None:
    token = (await platform.login())["access_token"]
    platform.state.add_fault("api", Fault(kind))  # type: ignore[arg-type] # both are kinds, parametrized as strings
    with pytest.raises((ConnectionResetError, aiohttp.ClientConnectionError)):
        await platform.call(token, method="POST")
    assert (await platform.call(token)).status == 200


async def test_the_api_can_send_half_an_answer_or_one_of_its_own(platform: Platform) -> None:
    token = (await platform.login())["access_token"]
    platform.state.add_fault("api", Fault("half-json"))
    platform.state.add_fault("api", Fault("reply", status=300, body="[]"))
    with pytest.raises(aiohttp.ClientPayloadError):
        await platform.call(token)
    assert (await platform.call(token)).status == 300
