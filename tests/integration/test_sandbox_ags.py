"""The sandbox's AGS from outside: discovery, sign-on, refresh, sign-out, and the API behind them."""

from collections.abc import AsyncIterator
from typing import Any

import jwt
import pytest

from proxy.sandbox import AgsSettings, SandboxSettings, User
from tests.support.sandbox import START, START_DATE, Answer, Platform, running

SERVICE = "Customer Auth Service"
DEVICE = {"device": {"hardware": {"type": "CRM"}}}
DAY = 86400


@pytest.fixture
async def platform() -> AsyncIterator[Platform]:
    async with running(SandboxSettings(users=(User("off", "pw", enabled=False), User("dave", "pw")))) as platform:
        yield platform


def listed(**parameters: str) -> list[dict[str, str]]:
    return [{"name": name, "value": value} for name, value in parameters.items()]


async def call(platform: Platform, operation: str, document: object = None, **headers: str) -> Answer:
    sent = {"x-auth-service-id": SERVICE, "nv-tenant-id": "nagra", "x-correlation-id": "c-1"}
    sent |= {name.replace("_", "-"): value for name, value in headers.items()}
    kept = {name: value for name, value in sent.items() if value != "-"}
    method = "GET" if operation == "servicediscovery" else "POST"
    return await platform.ask(method, f"{platform.sandbox.ags_url}/{operation}", json=document, headers=kept)


async def sign_on(platform: Platform, username: str = "", password: str = "", **more: object) -> Answer:
    username, password = username or platform.sandbox.username, password or platform.sandbox.password
    return await call(platform, "signOn", {"parameters": listed(username=username, password=password), **more})


async def refresh(platform: Platform, token: str, username: str = "", **headers: str) -> Answer:
    document = {"parameters": listed(username=username or platform.sandbox.username)}
    return await call(platform, "refresh", document, Authorization=token, **headers)


async def use(platform: Platform, token: str, path: str = "/adm/v1/devices") -> Answer:
    return await platform.call(token, f"/ags-api{path}")


def claims(token: str) -> dict[str, Any]:
    return jwt.decode(token, options={"verify_signature": False})


def refusals(platform: Platform) -> list[tuple[object, object]]:
    return [(event["status"], event["words"]) for event in platform.state.events if event["kind"] == "refused"]


async def test_discovery_lists_services_and_their_parameters(platform: Platform) -> None:
    platform.state.settings.ags.optional_parameters = ("pin",)
    platform.state.settings.ags.password_parameters = ("password", "pin")
    found = await call(platform, "servicediscovery", x_auth_service_id="-")
    assert found.status == 200
    assert [service["authServiceName"] for service in found["availableServices"]] == ["sso-1", SERVICE]
    sign_on, refresh = found["availableServices"][1]["endpoints"]
    assert (sign_on["name"], sign_on["path"], refresh["name"]) == ("SIGNON", "/signOn", "REFRESH")
    assert sign_on["parameterProperties"] == [
        {"name": "username", "mandatory": True, "isPassword": False},
        {"name": "password", "mandatory": True, "isPassword": True},
        {"name": "pin", "mandatory": False, "isPassword": True},
    ]


async def test_discovery_without_a_service_is_a_404(platform: Platform) -> None:
    platform.state.settings.ags.services = ()
    answer = await call(platform, "servicediscovery")
    assert (answer.status, answer.body) == (404, None)


async def test_a_sign_on_brings_the_fields_and_claims_of_the_vendors_pages(platform: Platform) -> None:
    pair = await sign_on(platform, deviceInformation=DEVICE)
    assert (pair.status, pair.headers["Date"]) == (201, START_DATE)
    fields = "access_token refresh_token client_id accountId token_type expires_in refresh_expires_in"
    assert list(pair.body) == [*fields.split(), "fixed_refresh_expires_in"]
    lives = [pair[name] for name in ("expires_in", "refresh_expires_in", "fixed_refresh_expires_in")]
    assert lives == [3600, 172800, 2592000]
    access, again = claims(pair["access_token"]), claims(pair["refresh_token"])
    assert jwt.get_unverified_header(pair["access_token"])["alg"] == "HS256"
    assert (access["typ"], "iat" in access, access["exp"]) == ("DevAuthN", False, int(START) + 3600)
    assert (again["typ"], "iat" in again, again["exp"]) == ("RefreshAuthN", False, int(START) + 172800)
    assert access["fixed_exp"] == again["fixed_exp"] == int(START) + 2592000
    assert (access["deviceId"], access["accountId"]) == (pair["client_id"], pair["accountId"])


async def test_a_device_comes_again_by_its_client_id_or_is_a_new_one(platform: Platform) -> None:
    first = await sign_on(platform, deviceInformation=DEVICE)
    again = await sign_on(platform, clientId=first["client_id"])
    other = await sign_on(platform, deviceInformation=DEVICE)
    assert (first["client_id"], again.status) == (again["client_id"], 201)
    assert other["client_id"] != first["client_id"]
    assert platform.state.counters["ags_logins"] == 3


async def test_several_accounts_need_a_person_and_open_no_session(platform: Platform) -> None:
    platform.state.settings.ags.accounts = ("home", "holiday")
    answer = await sign_on(platform)
    assert answer.status == 300
    assert "access_token" not in answer.body
    assert platform.state.sessions == {}


@pytest.mark.parametrize(
    ("document", "headers", "status", "words"),
    [
        ({}, {}, 400, "mandatory parameters are missing: username, password"),
        ([], {}, 400, "the body is no JSON object"),
        ({"parameters": {"username": "dave"}}, {}, 400, "parameters is no list"),
        ({"parameters": [{"name": "username"}]}, {}, 400, "a parameter is not an object of the strings"),
        ({"parameters": [{"name": "username", "value": 7}]}, {}, 400, "a parameter is not an object of the strings"),
        ({"parameters": listed(username="a") * 2}, {}, 400, "a parameter comes twice"),
        ({"parameters": listed(username="dave", password="no")}, {}, 401, "wrong user name or password"),
        ({"parameters": listed(username="nobody", password="pw")}, {}, 401, "wrong user name or password"),
        ({"parameters": listed(username="off", password="pw")}, {}, 403, "the user is disabled"),
        ({"parameters": listed(username="dave", password="pw"), "clientId": "gone"}, {}, 404, "clientId is unknown"),
        ({"parameters": listed(username="dave", password="pw"), "clientId": 1}, {}, 400, "clientId is no string"),
        (
            {"parameters": listed(username="dave", password="pw"), "clientId": "a", "deviceInformation": {}},
            {},
            400,
            "exclude each other",
        ),
        ({}, {"x_auth_service_id": "-"}, 400, "x-auth-service-id is missing"),
        ({}, {"x_auth_service_id": "sso-2"}, 400, "x-auth-service-id names no service"),
    ],
)
async def test_a_refused_sign_on_is_a_bare_status_and_the_words_are_in_the_events(
    platform: Platform, document: object, headers: dict[str, str], status: int, words: str
) -> None:
    answer = await call(platform, "signOn", document, **headers)
    assert (answer.status, answer.body) == (status, None)
    [(seen, why)] = refusals(platform)
    assert seen == status
    assert words in str(why)
    assert platform.state.counters["ags_refusals"] == 1


async def test_a_body_that_is_not_announced_as_json_is_none(platform: Platform) -> None:
    headers = {"x-auth-service-id": SERVICE}
    answer = await platform.ask("POST", "/ags/signOn", data=b'{"parameters":[]}', headers=headers)
    assert (answer.status, refusals(platform)) == (400, [(400, "the body is no JSON object")])


async def test_a_device_can_be_asked_for_and_belongs_to_its_user(platform: Platform) -> None:
    platform.state.settings.ags.require_device = True
    assert (await sign_on(platform)).status == 400
    assert (await sign_on(platform, deviceInformation={})).status == 400
    pair = await sign_on(platform, deviceInformation=DEVICE)
    assert (await sign_on(platform, "dave", "pw", clientId=pair["client_id"])).status == 403


async def test_another_tenant_is_forbidden_once_there_is_one(platform: Platform) -> None:
    assert (await call(platform, "servicediscovery", nv_tenant_id="other")).status == 200
    platform.state.settings.ags.tenant_id = "nagra"
    assert (await call(platform, "servicediscovery", nv_tenant_id="other")).status == 403
    assert (await call(platform, "servicediscovery", nv_tenant_id="-")).status == 403
    assert (await call(platform, "servicediscovery")).status == 200


async def test_a_refresh_by_header_rotates_and_the_new_pair_works(platform: Platform) -> None:
    pair = await sign_on(platform)
    platform.clock.time += 60
    renewed = await refresh(platform, pair["refresh_token"])
    assert (renewed.status, renewed["client_id"]) == (200, pair["client_id"])
    assert renewed["refresh_token"] != pair["refresh_token"]
    assert (await use(platform, renewed["access_token"])).status == 200
    assert (await refresh(platform, renewed["refresh_token"])).status == 200
    assert platform.state.counters["ags_refreshes"] == 2


async def test_a_reused_refresh_token_ends_the_session_and_its_successor(platform: Platform) -> None:
    pair = await sign_on(platform)
    renewed = await refresh(platform, pair["refresh_token"])
    assert (await refresh(platform, pair["refresh_token"])).status == 401
    assert (await refresh(platform, renewed["refresh_token"])).status == 401
    assert (await use(platform, renewed["access_token"])).status == 403
    counters = platform.state.counters
    assert (counters["ags_reused_refresh_tokens"], counters["reused_refresh_tokens"]) == (1, 0)


@pytest.mark.parametrize(
    ("change", "status", "words"),
    [
        ({"Authorization": "-"}, 400, "Authorization is missing"),
        ({"Authorization": "Bearer {}"}, 401, "Authorization is not the bare token"),
        ({"Authorization": "a.b.c"}, 401, "Authorization is no RefreshAuthN token"),
        ({"x_auth_service_id": "-"}, 400, "x-auth-service-id is missing"),
        ({"x_auth_service_id": "sso-1"}, 403, "x-auth-service-id is not that of the sign-on"),
    ],
)
async def test_a_refused_refresh_says_what_was_wrong_with_its_headers(
    platform: Platform, change: dict[str, str], status: int, words: str
) -> None:
    pair = await sign_on(platform)
    document = {"parameters": listed(username=platform.sandbox.username)}
    headers = {"Authorization": "{}", **change}
    headers = {name: value.format(pair["refresh_token"]) for name, value in headers.items()}
    assert (await call(platform, "refresh", document, **headers)).status == status
    assert refusals(platform) == [(status, words)]
    assert (await refresh(platform, pair["refresh_token"])).status == 200


async def test_which_parameters_a_refresh_must_bring_is_the_sites_choice(platform: Platform) -> None:
    pair = await sign_on(platform)
    assert (await call(platform, "refresh", {}, Authorization=pair["refresh_token"])).status == 400
    assert (await refresh(platform, pair["refresh_token"], "dave")).status == 403
    platform.state.settings.ags.refresh_parameters = ()
    assert (await call(platform, "refresh", {}, Authorization=pair["refresh_token"])).status == 200


async def test_an_access_token_is_no_refresh_token_nor_the_other_way_round(platform: Platform) -> None:
    pair = await sign_on(platform)
    assert (await refresh(platform, pair["access_token"])).status == 401
    assert (await use(platform, pair["refresh_token"]))["result"] == "Access token is invalid"
    keycloak = await platform.login()
    assert (await use(platform, keycloak["access_token"]))["result"] == "Access token is invalid"
    assert (await platform.call(pair["access_token"])).status == 403


async def test_a_disabled_user_and_a_dead_token_are_refused_at_refresh(platform: Platform) -> None:
    pair = await sign_on(platform, "dave", "pw")
    platform.state.users["dave"].enabled = False
    assert (await refresh(platform, pair["refresh_token"], "dave")).status == 403
    platform.state.users["dave"].enabled = True
    platform.clock.time += 172801
    assert (await refresh(platform, pair["refresh_token"], "dave")).status == 401
    assert refusals(platform)[-1] == (401, "the token is expired")


@pytest.mark.parametrize("counts_down", [True, False])
async def test_no_refresh_moves_the_fixed_end_of_the_session(counts_down: bool) -> None:
    async with running(SandboxSettings(ags=AgsSettings(fixed_counts_down=counts_down))) as platform:
        pair = await sign_on(platform)
        for _ in range(29):
            platform.clock.time += DAY
            pair = await refresh(platform, pair["refresh_token"])
        assert (pair["expires_in"], pair["refresh_expires_in"]) == (3600, DAY)
        assert pair["fixed_refresh_expires_in"] == (DAY if counts_down else 30 * DAY)
        assert claims(pair["refresh_token"])["fixed_exp"] == int(START) + 30 * DAY
        platform.clock.time += DAY - 10
        pair = await refresh(platform, pair["refresh_token"])
        assert (pair["expires_in"], pair["refresh_expires_in"]) == (10, 10)
        platform.clock.time += 11
        assert (await refresh(platform, pair["refresh_token"])).status == 401
        assert (await use(platform, pair["access_token"])).status == 403


async def test_times_can_be_in_milliseconds_and_mean_the_same(platform: Platform) -> None:
    platform.state.settings.ags.exp_milliseconds = True
    pair = await sign_on(platform)
    access = claims(pair["access_token"])
    assert (access["exp"], pair["expires_in"]) == ((int(START) + 3600) * 1000, 3600)
    assert access["fixed_exp"] == (int(START) + 2592000) * 1000
    platform.clock.time += 3600
    assert (await use(platform, pair["access_token"])).status == 200
    platform.clock.time += 1
    assert (await use(platform, pair["access_token"]))["result"] == "Access token is expired"
    assert (await refresh(platform, pair["refresh_token"])).status == 200


async def test_a_sign_out_by_the_bare_access_token_ends_the_session(platform: Platform) -> None:
    pair = await sign_on(platform)
    assert (await call(platform, "signOut", Authorization=f"Bearer {pair['access_token']}")).status == 403
    assert (await call(platform, "signOut", Authorization=pair["access_token"], x_auth_service_id="-")).status == 400
    done = await call(platform, "signOut", Authorization=pair["access_token"])
    assert (done.status, done.body, platform.state.counters["ags_logouts"]) == (200, None, 1)
    assert (await call(platform, "signOut", Authorization=pair["access_token"])).status == 404
    assert (await use(platform, pair["access_token"])).status == 403
    assert (await refresh(platform, pair["refresh_token"])).status == 401


async def test_the_api_behind_ags_has_a_prefix_a_header_and_a_scheme_of_its_own(platform: Platform) -> None:
    token = (await sign_on(platform))["access_token"]
    assert (await use(platform, token, "/rmg/v1/operator/entitlements")).body["resultCode"] == "0"
    settings = platform.state.settings.ags
    settings.api_prefix, settings.api_header, settings.api_scheme = "/other", "nv-authorizations", ""
    answer = await platform.ask("POST", "/other/adm/v1/devices", headers={"nv-authorizations": token})
    assert (answer.status, answer["result"]["path"]) == (201, "/adm/v1/devices")
    seen = platform.state.received[-1]
    assert (seen.system, seen.verdict, seen.target) == ("ags", "valid", "/other/adm/v1/devices")
    shown = await platform.ask("GET", "/other/echo/a", headers={"nv-authorizations": f"Bearer {token}"})
    assert shown["verdict"] == "scheme"
    counters = platform.state.counters
    assert (counters["ags_api_requests"], counters["api_requests"], counters["ags_api_rejections"]) == (3, 3, 0)


async def test_ags_tokens_can_be_revoked_and_their_session_ended(platform: Platform) -> None:
    pair = await sign_on(platform)
    platform.state.revoke_access_tokens()
    assert (await use(platform, pair["access_token"]))["result"] == "Access token is not active"
    renewed = await refresh(platform, pair["refresh_token"])
    assert (await use(platform, renewed["access_token"])).status == 200
    platform.state.revoke_sessions()
    assert (await refresh(platform, renewed["refresh_token"])).status == 401


async def test_each_call_is_kept_for_tests_to_read_and_shown_without_its_values(platform: Platform) -> None:
    pair = await sign_on(platform, deviceInformation=DEVICE)
    await refresh(platform, pair["refresh_token"])
    first, second = platform.state.token_calls
    assert (first.operation, first.realm, first.grant, second.grant) == ("ags", SERVICE, "signOn", "refresh")
    assert first.form["deviceInformation"] == DEVICE
    shown = await platform.ask("GET", "/_sandbox/requests")
    assert shown["token_requests"][0]["fields"] == ["parameters", "deviceInformation"]
    seen = str(shown.body) + repr(platform.state.token_calls) + str((await platform.ask("GET", "/_sandbox")).body)
    assert pair["refresh_token"] not in seen
    assert platform.sandbox.password not in seen


@pytest.mark.parametrize(("method", "path"), [("POST", "servicediscovery"), ("GET", "signOn"), ("PUT", "refresh")])
async def test_another_method_is_refused(platform: Platform, method: str, path: str) -> None:
    assert (await platform.ask(method, f"/ags/{path}")).status == 405
