"""The sandbox's Veeam from outside: its odd names, its tokens, its refusals, and the API behind it."""

import json
import re
from collections.abc import AsyncIterator
from typing import Any

import jwt
import pytest

from proxy.sandbox import SandboxSettings, User
from tests.support.sandbox import START, START_DATE, Answer, Platform, running

FORM = "application/x-www-form-urlencoded"


@pytest.fixture
async def platform() -> AsyncIterator[Platform]:
    async with running(SandboxSettings(users=(User("off", "pw", enabled=False), User("other", "pw")))) as platform:
        yield platform


def who(platform: Platform, **change: str) -> dict[str, str]:
    return {"Username": platform.sandbox.username, "Password": platform.sandbox.password, **change}


async def ask(platform: Platform, form: dict[str, str]) -> Answer:
    kept = {name: value for name, value in form.items() if value != "-"}
    return await platform.ask("POST", platform.sandbox.veeam_token_url, data=kept)


async def login(platform: Platform, **change: str) -> Answer:
    return await ask(platform, {"grant_type": "Password", **who(platform, **change)})


async def refresh(platform: Platform, token: str, **change: str) -> Answer:
    return await ask(platform, {"grant_type": "Refresh_token", "refresh_token": token, **who(platform, **change)})


async def use(platform: Platform, token: str) -> Answer:
    return await platform.call(token, "/veeam-api/adm/v1/devices")


def claims(token: str) -> dict[str, Any]:
    return jwt.decode(token, options={"verify_signature": False})


async def test_a_login_brings_the_fields_and_the_times_of_the_vendors_page(platform: Platform) -> None:
    pair = await login(platform)
    fields = "access_token token_type refresh_token expires_in .issued .expires userId username roleName userType"
    assert list(pair.body) == [*fields.split(), "mfa_enabled", "shortLived"]
    assert (pair.status, pair.headers["Date"], pair["expires_in"]) == (200, START_DATE, 3600)
    assert (pair[".issued"], pair[".expires"]) == ("2027-01-15T08:00:00.2500000Z", "2027-01-15T09:00:00.2500000Z")
    assert jwt.get_unverified_header(pair["access_token"])["alg"] == "RS512"
    again = claims(pair["refresh_token"])
    assert again["exp"] == int(START) + 14 * 86400
    assert re.fullmatch(r"auth/refresh/[0-9a-f-]{36}", again["aud"])


async def test_the_access_token_is_signed_with_the_published_key(platform: Platform) -> None:
    certs = await platform.ask("GET", platform.sandbox.token_url.replace("/token", "/certs"))
    key = jwt.PyJWKSet.from_dict(certs.body).keys[0].key
    token = (await login(platform))["access_token"]
    payload = jwt.PyJWS(algorithms=["RS512"]).decode(token, key, algorithms=["RS512"])
    assert json.loads(payload)["sub"] == platform.sandbox.username


async def test_a_refresh_rotates_and_reuse_ends_the_session(platform: Platform) -> None:
    pair = await login(platform)
    renewed = await refresh(platform, pair["refresh_token"])
    assert (renewed.status, (await use(platform, renewed["access_token"])).status) == (200, 200)
    assert (await refresh(platform, pair["refresh_token"])).status == 401
    assert (await refresh(platform, renewed["refresh_token"])).status == 401
    counters = platform.state.counters
    wanted = {
        "veeam_logins": 1,
        "veeam_refreshes": 1,
        "veeam_refusals": 2,
        "veeam_reused_refresh_tokens": 1,
        "logins": 0,
    }
    assert {name: counters[name] for name in wanted} == wanted
    assert counters["veeam_requests_Refresh_token"] == 3


async def test_a_refresh_token_lives_a_fortnight_from_its_last_use(platform: Platform) -> None:
    pair = await login(platform)
    platform.clock.time += 13 * 86400
    renewed = await refresh(platform, pair["refresh_token"])
    platform.clock.time += 14 * 86400
    again = await refresh(platform, renewed["refresh_token"])
    assert again.status == 200
    platform.clock.time += 14 * 86400 + 1
    assert (await refresh(platform, again["refresh_token"])).status == 401


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"grant_type": "password"}, 400),
        ({"grant_type": "-"}, 400),
        ({"Username": "-", "username": "crm_client_user"}, 400),
        ({"Password": "-"}, 400),
        ({"Password": "wrong"}, 401),
        ({"Username": "nobody"}, 401),
        ({"Username": "off", "Password": "pw"}, 401),
        ({"grant_type": "Refresh_token"}, 400),
        ({"grant_type": "Refresh_token", "refresh_token": "a.b.c"}, 401),
        ({"grant_type": "refresh_token", "refresh_token": "a.b.c"}, 400),
    ],
)
async def test_a_refusal_is_a_bare_status(platform: Platform, change: dict[str, str], status: int) -> None:
    answer = await login(platform, **change)
    assert (answer.status, answer.body, platform.state.counters["veeam_refusals"]) == (status, None, 1)
    assert platform.state.events[-1]["status"] == status


async def test_a_refresh_comes_with_the_credentials_of_its_login(platform: Platform) -> None:
    pair = await login(platform)
    token = pair["refresh_token"]
    assert (await refresh(platform, token, Username="-", Password="-")).status == 400
    assert (await refresh(platform, token, Password="wrong")).status == 401
    assert (await refresh(platform, token, Username="other", Password="pw")).status == 401
    platform.state.settings.veeam.refresh_credentials = False
    assert (await refresh(platform, token, Username="-", Password="-")).status == 200


async def test_with_mfa_a_login_is_a_200_without_a_token(platform: Platform) -> None:
    platform.state.settings.veeam.mfa = True
    answer = await login(platform)
    assert (answer.status, sorted(answer.body)) == (200, ["mfa_enabled", "mfa_token"])
    assert platform.state.sessions == {}
    assert (await login(platform, Password="wrong")).status == 401


async def test_only_a_living_veeam_access_token_opens_its_api(platform: Platform) -> None:
    pair = await login(platform)
    keycloak = await platform.login()
    assert (await use(platform, pair["access_token"])).status == 200
    assert (await use(platform, pair["refresh_token"])).status == 403
    assert (await use(platform, keycloak["access_token"])).status == 403
    assert (await platform.call(pair["access_token"])).status == 403
    platform.clock.time += 3601
    assert (await use(platform, pair["access_token"]))["result"] == "Access token is expired"
    counters = platform.state.counters
    assert (counters["veeam_api_requests"], counters["veeam_api_rejections"], counters["api_rejections"]) == (4, 3, 4)


async def test_only_a_posted_form_is_taken(platform: Platform) -> None:
    assert (await platform.ask("GET", platform.sandbox.veeam_token_url)).status == 405
    assert (await platform.ask("POST", platform.sandbox.veeam_token_url, json={})).status == 415
    twice = {"data": "grant_type=Password&grant_type=Password", "headers": {"Content-Type": FORM}}
    assert (await platform.ask("POST", platform.sandbox.veeam_token_url, **twice)).status == 400
