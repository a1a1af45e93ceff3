"""Every kind of fault at every token system, from outside: what the client sees, and what was done meanwhile."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any

import aiohttp
import pytest

from proxy.sandbox import Fault, SandboxSettings
from proxy.sandbox.faults import Endpoint
from tests.support.sandbox import START, START_DATE, Answer, Platform, running

Ask = Callable[[Platform], Awaitable[Answer]]
Refresh = Callable[[Platform, str], Awaitable[Answer]]


@dataclass(frozen=True)
class System:
    """How one system is spoken to. prefix: of its counters."""

    endpoint: Endpoint
    prefix: str
    granted: int
    login: Ask
    refresh: Refresh
    refresh_grant: str


async def ags(platform: Platform, operation: str, names: tuple[str, ...], token: str = "") -> Answer:
    known = {"username": platform.sandbox.username, "password": platform.sandbox.password}
    document = {"parameters": [{"name": name, "value": known[name]} for name in names]}
    headers = {"x-auth-service-id": "sso-1"} | ({"Authorization": token} if token else {})
    return await platform.ask("POST", f"/ags/{operation}", json=document, headers=headers)


async def veeam(platform: Platform, **form: str) -> Answer:
    form |= {"Username": platform.sandbox.username, "Password": platform.sandbox.password}
    return await platform.ask("POST", platform.sandbox.veeam_token_url, data=form)


SYSTEMS = [
    System("token", "", 200, lambda p: p.login(), lambda p, token: p.refresh(token), "refresh_token"),
    System(
        "ags",
        "ags_",
        201,
        lambda p: ags(p, "signOn", ("username", "password")),
        lambda p, token: ags(p, "refresh", ("username",), token),
        "refresh",
    ),
    System(
        "veeam",
        "veeam_",
        200,
        lambda p: veeam(p, grant_type="Password"),
        lambda p, token: veeam(p, grant_type="Refresh_token", refresh_token=token),
        "Refresh_token",
    ),
]
CUT = (aiohttp.ClientPayloadError, aiohttp.ServerDisconnectedError, aiohttp.ClientOSError, ConnectionResetError)


@pytest.fixture
async def platform() -> AsyncIterator[Platform]:
    async with running(SandboxSettings()) as platform:
        yield platform


@pytest.fixture(params=SYSTEMS, ids=lambda system: system.endpoint)
def system(request: pytest.FixtureRequest) -> System:
    found: System = request.param
    return found


@pytest.mark.parametrize(
    ("fault", "status", "header", "value"),
    [
        (Fault("html"), 200, "Content-Type", "text/html; charset=utf-8"),
        (Fault("redirect"), 302, "Location", "https://login.example.com/"),
        (Fault("rate-limit", retry_after="7"), 429, "Retry-After", "7"),
        (Fault("rate-limit", retry_after="7", status=503), 503, "Retry-After", "7"),
        (
            Fault("rate-limit", retry_after="600", retry_date=True),
            429,
            "Retry-After",
            START_DATE.replace(":00:00", ":10:00"),
        ),
        (Fault("big-body"), 200, "Content-Length", str(20 * 1024 * 1024)),
        (Fault("reply", status=502, body="{}"), 502, "Content-Length", "2"),
        (Fault("reject", status=400), 400, "Cache-Control", "no-store"),
    ],
)
async def test_a_canned_answer_comes_instead_and_nothing_is_handled(
    platform: Platform, system: System, fault: Fault, status: int, header: str, value: str
) -> None:
    platform.state.add_fault(system.endpoint, Fault(**vars(fault)))
    answer = await system.login(platform)
    assert (answer.status, answer.headers[header]) == (status, value)
    counters = platform.state.counters
    assert (counters[f"{system.prefix}logins"], counters[f"faults_{system.endpoint}"]) == (0, 1)
    assert (await system.login(platform)).status == system.granted


async def test_a_retry_date_is_by_the_platforms_own_clock(platform: Platform, system: System) -> None:
    platform.state.clock_shift = -600
    platform.state.add_fault(system.endpoint, Fault("rate-limit", retry_after="30", retry_date=True))
    answer = await system.login(platform)
    assert parsedate_to_datetime(answer.headers["Retry-After"]).timestamp() == int(START) - 600 + 30


@pytest.mark.parametrize(("kind", "expected"), [("null-fields", None), ("number-fields", 12345), ("empty-fields", "")])
async def test_fields_of_the_answer_can_be_wrong(
    platform: Platform, system: System, kind: Any, expected: object
) -> None:
    platform.state.add_fault(system.endpoint, Fault(kind))
    answer = await system.login(platform)
    assert answer.status == system.granted
    names = {"access_token", "refresh_token", "expires_in", "refresh_expires_in", "fixed_refresh_expires_in"}
    names |= {"token_type", ".expires"}
    assert {name: answer[name] for name in names & answer.body.keys()} == dict.fromkeys(
        names & answer.body.keys(), expected
    )


@pytest.mark.parametrize("kind", ["rotate-then-reset", "half-json"])
async def test_a_rotation_whose_answer_is_lost_makes_the_old_token_a_reuse(
    platform: Platform, system: System, kind: Any
) -> None:
    pair = await system.login(platform)
    platform.state.add_fault(system.endpoint, Fault(kind, grant=system.refresh_grant))
    with pytest.raises(CUT):
        await system.refresh(platform, pair["refresh_token"])
    counters = platform.state.counters
    assert counters[f"{system.prefix}refreshes"] == 1
    assert (await system.refresh(platform, pair["refresh_token"])).status in (400, 401)
    assert counters[f"{system.prefix}reused_refresh_tokens"] == 1
    assert (await system.login(platform)).status == system.granted


async def test_a_closed_connection_leaves_the_refresh_token_unspent(platform: Platform, system: System) -> None:
    pair = await system.login(platform)
    platform.state.add_fault(system.endpoint, Fault("close"))
    with pytest.raises(CUT):
        await system.refresh(platform, pair["refresh_token"])
    assert (await system.refresh(platform, pair["refresh_token"])).status == 200


async def test_a_late_answer_was_handled_even_when_the_client_has_left(platform: Platform, system: System) -> None:
    pair = await system.login(platform)
    platform.state.add_fault(system.endpoint, Fault("late", delay_ms=60_000))
    platform.sleeps.wake.clear()
    impatient = asyncio.create_task(_refreshed(system, platform, pair["refresh_token"]))
    await platform.sleeps.entered.wait()
    impatient.cancel()
    assert (platform.sleeps.asked, platform.state.counters[f"{system.prefix}refreshes"]) == ([60.0], 1)
    platform.sleeps.wake.set()


async def _refreshed(system: System, platform: Platform, token: str) -> Answer:
    return await system.refresh(platform, token)


async def test_a_fault_for_one_grant_leaves_the_others_alone(platform: Platform, system: System) -> None:
    platform.state.add_fault(system.endpoint, Fault("reject", grant=system.refresh_grant))
    pair = await system.login(platform)
    assert pair.status == system.granted
    assert (await system.refresh(platform, pair["refresh_token"])).status in (400, 401)
    assert (await system.refresh(platform, pair["refresh_token"])).status == 200


async def test_a_clock_ten_minutes_off_shows_in_the_date_and_in_the_tokens(platform: Platform, system: System) -> None:
    platform.state.clock_shift = 600
    pair = await system.login(platform)
    assert pair.headers["Date"] == START_DATE.replace(":00:00", ":10:00")
    platform.clock.time += 1
    assert (await system.refresh(platform, pair["refresh_token"])).status == 200


async def test_faults_of_one_system_are_not_met_at_another(platform: Platform) -> None:
    platform.state.add_fault("ags", Fault("html", times=None))
    platform.state.add_fault("veeam", Fault("redirect", times=None))
    statuses = [(await system.login(platform)).status for system in SYSTEMS]
    assert statuses == [200, 200, 302]
    assert platform.state.counters["logins"] == 1


async def test_a_rejection_is_bare_unless_it_is_given_words(platform: Platform) -> None:
    platform.state.add_fault("ags", Fault("reject"))
    platform.state.add_fault("ags", Fault("reject", status=400, error="invalid_grant", description="Boom"))
    bare, worded = await SYSTEMS[1].login(platform), await SYSTEMS[1].login(platform)
    assert (bare.status, bare.body) == (401, None)
    assert worded.refusal == (400, "invalid_grant", "Boom")


async def test_the_control_api_reaches_the_new_faults_and_settings(platform: Platform) -> None:
    added = await platform.ask("POST", "/_sandbox/faults/veeam", json={"kind": "rate-limit", "retry_date": True})
    assert added["faults"][0]["retry_date"] is True
    wrong = {"kind": "rate-limit", "retry_date": True, "retry_after": "soon"}
    assert "retry_after: expected seconds" in (await platform.ask("POST", "/_sandbox/faults/ags", json=wrong))["error"]
    changed = await platform.ask("PUT", "/_sandbox/settings/ags", json={"access_life": 7, "services": ["one two"]})
    assert (changed["access_life"], changed["services"]) == (7, ["one two"])
    assert (await platform.ask("PUT", "/_sandbox/settings/veeam", json={"mfa": True}))["mfa"] is True
    assert (await platform.ask("PUT", "/_sandbox/settings/ssp", json={"signing_key": "a" * 44})).status == 200
    assert platform.state.settings.ssp.signing_key == "a" * 44
    assert (await platform.ask("PUT", "/_sandbox/settings", json={"ags": {}})).status == 400
    assert (await platform.ask("PUT", "/_sandbox/settings/moon", json={})).status == 404
    seen = await platform.ask("GET", "/_sandbox")
    assert (seen["ags"]["access_life"], seen["veeam"]["mfa"], "signing_key" in seen["ssp"]) == (7, True, False)
