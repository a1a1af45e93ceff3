"""The sandbox's token endpoint from outside: grants, rotation, sessions, lock-outs, and Keycloak's words for each."""

import asyncio
import base64
from collections.abc import AsyncIterator, Callable
from urllib.parse import quote_plus

import jwt
import pytest

from proxy.sandbox import Client, Sandbox, SandboxSettings, User
from tests.support.sandbox import START, START_DATE, Platform, running

SECRET = "s3cr%t+ ü:"
INVALID_CLIENT = "Invalid client or Invalid client credentials"
LOCKED = (401, "invalid_grant", "Invalid user credentials")


@pytest.fixture
async def platform() -> AsyncIterator[Platform]:
    clients = (
        Client("crm_client"),
        Client("ua-grant"),
        Client("off", enabled=False),
        Client("no-direct", direct_access_grants=False),
        Client("backend", secret=SECRET, service_account=True),
        Client("no-service", secret=SECRET),
    )
    users = (
        User("disabled", "pw", enabled=False),
        User("new", "pw", fully_set_up=False),
        User("online", "pw", roles=("operatorRole",)),
    )
    async with running(SandboxSettings(clients=clients, users=users)) as platform:
        yield platform


def basic(name: str, secret: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{name}:{secret}".encode()).decode()}


async def test_a_login_brings_a_signed_pair_in_keycloaks_shape(platform: Platform) -> None:
    pair = await platform.login()
    fields = "access_token expires_in refresh_expires_in refresh_token token_type not-before-policy session_state scope"
    assert (pair.status, list(pair.body)) == (200, fields.split())
    assert (pair["expires_in"], pair["refresh_expires_in"], pair["token_type"]) == (300, 1800, "bearer")
    assert jwt.get_unverified_header(pair["refresh_token"])["alg"] == "HS256"
    certs = await platform.ask("GET", platform.sandbox.token_url.replace("/token", "/certs"))
    key = jwt.PyJWKSet.from_dict(certs.body).keys[0]
    claims = jwt.decode(
        pair["access_token"], key, audience="account", options={"verify_exp": False, "verify_iat": False}
    )
    assert claims["iss"] == platform.sandbox.issuer
    assert (claims["iat"], claims["exp"]) == (int(START), int(START) + 300)
    assert (claims["azp"], claims["preferred_username"]) == ("crm_client", "crm_client_user")
    assert "operatorRole" in claims["realm_access"]["roles"]
    assert claims["sid"] == pair["session_state"]


async def test_success_is_dated_by_the_platforms_clock_and_errors_are_not_dated(platform: Platform) -> None:
    assert (await platform.login()).headers["Date"] == START_DATE
    platform.state.clock_shift = 600
    assert (await platform.login()).headers["Date"] == START_DATE.replace(":00:00", ":10:00")
    refused = await platform.login(password="wrong")
    assert "Date" not in refused.headers
    assert refused.headers["Cache-Control"] == "no-store"


async def test_a_refresh_rotates_and_the_new_pair_works(platform: Platform) -> None:
    pair = await platform.login()
    renewed = await platform.refresh(pair["refresh_token"])
    assert (renewed.status, renewed["refresh_token"] == pair["refresh_token"]) == (200, False)
    assert (await platform.call(renewed["access_token"])).status == 200
    assert (await platform.refresh(renewed["refresh_token"])).status == 200


async def test_a_reused_refresh_token_kills_its_valid_successor_too(platform: Platform) -> None:
    pair = await platform.login()
    renewed = await platform.refresh(pair["refresh_token"])
    again = await platform.refresh(pair["refresh_token"])
    assert again.refusal == (400, "invalid_grant", "Maximum allowed refresh token reuse exceeded")
    successor = await platform.refresh(renewed["refresh_token"])
    assert successor.refusal == (400, "invalid_grant", "Session doesn't have required client")
    assert (await platform.call(renewed["access_token"])).status == 403
    assert platform.state.counters["reused_refresh_tokens"] == 1


async def test_a_token_rotated_away_earlier_is_stale_even_within_the_same_second(platform: Platform) -> None:
    first = await platform.login()
    second = await platform.refresh(first["refresh_token"])
    await platform.refresh(second["refresh_token"])
    assert (await platform.refresh(first["refresh_token"])).refusal == (400, "invalid_grant", "Stale token")


async def test_without_rotation_a_refresh_token_can_come_again(platform: Platform) -> None:
    platform.state.settings.rotation = False
    pair = await platform.login()
    assert [(await platform.refresh(pair["refresh_token"])).status for _ in range(3)] == [200, 200, 200]


async def test_of_four_refreshes_of_one_token_at_once_one_succeeds_and_its_successor_is_dead(
    platform: Platform,
) -> None:
    pair = await platform.login()
    answers = await asyncio.gather(*(platform.refresh(pair["refresh_token"]) for _ in range(4)))
    assert sorted(answer.status for answer in answers) == [200, 400, 400, 400]
    winner = next(answer for answer in answers if answer.status == 200)
    assert (await platform.refresh(winner["refresh_token"])).status == 400


async def test_lifetimes_shrink_towards_the_sessions_end(platform: Platform) -> None:
    settings = platform.state.settings
    settings.access_life, settings.refresh_life, settings.session_max = 6, 10, 20
    pair = await platform.login()
    seen = [(pair["refresh_expires_in"], pair["expires_in"])]
    for _ in range(4):
        platform.clock.time += 4.5
        pair = await platform.refresh(pair["refresh_token"])
        seen.append((pair["refresh_expires_in"], pair["expires_in"]))
    assert seen == [(10, 6), (10, 6), (10, 6), (7, 6), (2, 2)]
    platform.clock.time += 3
    ended = await platform.refresh(pair["refresh_token"])
    assert ended.refusal == (400, "invalid_grant", "Token is not active")


async def test_an_offline_session_says_no_expiry_and_dies_unused_after_thirty_days(platform: Platform) -> None:
    pair = await platform.login(scope="offline_access")
    assert pair["refresh_expires_in"] == 0
    assert "offline_access" in pair["scope"].split()
    claims = jwt.decode(pair["refresh_token"], options={"verify_signature": False})
    assert (claims["typ"], "exp" in claims) == ("Offline", False)
    platform.clock.time += 29 * 86400
    renewed = await platform.refresh(pair["refresh_token"])
    assert (renewed.status, renewed["refresh_expires_in"]) == (200, 0)
    platform.clock.time += 31 * 86400
    died = await platform.refresh(renewed["refresh_token"])
    assert died.refusal == (400, "invalid_grant", "Offline user session not found")


async def test_a_scope_can_only_narrow_at_refresh(platform: Platform) -> None:
    pair = await platform.login()
    narrowed = await platform.refresh(pair["refresh_token"], scope="email")
    assert narrowed["scope"] == "email"
    wider = await platform.refresh(narrowed["refresh_token"], scope="profile email openid")
    assert (wider.status, wider["scope"]) == (200, "profile email")


async def test_two_failures_within_a_second_lock_the_user_for_a_minute(platform: Platform) -> None:
    assert (await platform.login(password="wrong")).refusal == LOCKED
    platform.clock.time += 0.9
    assert (await platform.login(password="wrong")).refusal == LOCKED
    platform.clock.time += 59
    assert (await platform.login()).refusal == LOCKED
    platform.clock.time += 1
    assert (await platform.login()).status == 200
    assert platform.state.counters["lockouts"] == 1


async def test_two_failures_a_second_apart_lock_nobody(platform: Platform) -> None:
    await platform.login(password="wrong")
    platform.clock.time += 1
    await platform.login(password="wrong")
    assert (await platform.login()).status == 200


async def test_one_login_per_user_is_let_in_at_a_time(platform: Platform) -> None:
    platform.state.settings.login_time = 0.5
    platform.sleeps.wake.clear()
    first = asyncio.create_task(platform.login())
    await platform.sleeps.entered.wait()
    others = [(await platform.login()).refusal for _ in range(3)]
    platform.sleeps.wake.set()
    assert (others, (await first).status) == ([LOCKED] * 3, 200)
    assert platform.state.counters["lockouts"] == 0


async def test_not_before_ends_older_tokens_but_not_one_of_the_same_second(platform: Platform) -> None:
    old = await platform.login()
    platform.clock.time += 5
    same = await platform.login()
    assert platform.state.push_not_before() == int(START) + 5
    assert (await platform.call(old["access_token"])).status == 403
    assert (await platform.refresh(old["refresh_token"])).refusal == (400, "invalid_grant", "Stale token")
    renewed = await platform.refresh(same["refresh_token"])
    assert (renewed.status, renewed["not-before-policy"]) == (200, int(START) + 5)


async def test_logout_ends_the_session_and_says_so_twice(platform: Platform) -> None:
    pair = await platform.login()
    assert [(await platform.logout(pair["refresh_token"])).status for _ in range(2)] == [204, 204]
    ended = await platform.refresh(pair["refresh_token"])
    assert ended.refusal == (400, "invalid_grant", "Session not active")
    assert (await platform.call(pair["access_token"])).status == 403
    assert platform.state.counters["logouts"] == 1


@pytest.mark.parametrize(
    ("form", "refusal"),
    [
        ({"password": "wrong"}, LOCKED),
        ({"username": "nobody"}, LOCKED),
        ({"username": "disabled", "password": "pw"}, (400, "invalid_grant", "Account disabled")),
        ({"username": "new", "password": "pw"}, (400, "invalid_grant", "Account is not fully set up")),
        ({"client_id": "unknown"}, (401, "invalid_client", INVALID_CLIENT)),
        ({"client_id": "off"}, (401, "invalid_client", INVALID_CLIENT)),
        ({"client_id": "no-direct"}, (400, "unauthorized_client", "Client not allowed for direct access grants")),
        ({"client_id": "backend"}, (401, "unauthorized_client", INVALID_CLIENT)),
        ({"client_id": "backend", "client_secret": "wrong"}, (401, "unauthorized_client", INVALID_CLIENT)),
        ({"scope": "profile admin"}, (400, "invalid_scope", "Invalid scopes: profile admin")),
        (
            {"username": "online", "password": "pw", "scope": "offline_access"},
            (400, "not_allowed", "Offline tokens not allowed for the user or client"),
        ),
        ({"grant_type": "telepathy"}, (400, "unsupported_grant_type", "Unsupported grant_type")),
        ({"grant_type": "refresh_token"}, (400, "invalid_request", "No refresh token")),
        (
            {"grant_type": "refresh_token", "refresh_token": "a.b.c"},
            (400, "invalid_grant", "Invalid refresh token"),
        ),
        (
            {"grant_type": "client_credentials"},
            (401, "unauthorized_client", "Public client not allowed to retrieve service account"),
        ),
        (
            {"grant_type": "client_credentials", "client_id": "no-service", "client_secret": SECRET},
            (401, "unauthorized_client", "Client not enabled to retrieve service account"),
        ),
    ],
)
async def test_a_refusal_has_keycloaks_status_and_words(
    platform: Platform, form: dict[str, str], refusal: tuple[int, str, str]
) -> None:
    answer = await platform.login(**form)
    assert answer.refusal == refusal
    assert "Date" not in answer.headers


def _realm_off(platform: Platform) -> None:
    platform.state.realms["nagra"].enabled = False


def _https_only(platform: Platform) -> None:
    platform.state.realms["nagra"].require_https = True


def _realm_gone(platform: Platform) -> None:
    del platform.state.realms["nagra"]


@pytest.mark.parametrize(
    ("change", "refusal"),
    [
        (_realm_off, (403, "access_denied", "Realm not enabled")),
        (_https_only, (403, "invalid_request", "HTTPS required")),
        (_realm_gone, (404, "Realm does not exist", "")),
    ],
)
async def test_a_realm_that_serves_nobody_says_why(
    platform: Platform, change: Callable[[Platform], None], refusal: tuple[int, str, str]
) -> None:
    form, url = platform.password_form(), platform.sandbox.token_url
    change(platform)
    assert (await platform.ask("POST", url, data=form)).refusal == refusal


async def test_a_repeated_form_field_is_refused(platform: Platform) -> None:
    form = "grant_type=password&grant_type=password&client_id=crm_client"
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    answer = await platform.ask("POST", platform.sandbox.token_url, data=form, headers=headers)
    assert answer.refusal == (400, "invalid_request", "duplicated parameter")


async def test_only_a_posted_form_is_taken(platform: Platform) -> None:
    assert (await platform.ask("GET", platform.sandbox.token_url)).status == 405
    assert (await platform.ask("POST", platform.sandbox.token_url, json={})).status == 415


async def test_a_user_disabled_after_login_is_refused_at_refresh(platform: Platform) -> None:
    pair = await platform.login()
    platform.state.users["crm_client_user"].enabled = False
    assert (await platform.refresh(pair["refresh_token"])).refusal == (400, "invalid_grant", "User disabled")


async def test_a_refresh_token_belongs_to_its_client_its_realm_and_its_host_name(platform: Platform) -> None:
    token = (await platform.login())["refresh_token"]
    other = await platform.refresh(token, client_id="ua-grant")
    words = "Invalid refresh token. Token client and authorized client don't match"
    assert other.refusal == (400, "invalid_grant", words)
    form = {"grant_type": "refresh_token", "client_id": "crm_client", "refresh_token": token}
    realm = await platform.token(form, realm="UA")
    assert realm["error_description"].startswith("Invalid token issuer. Expected 'http://127.0.0.1")
    host = await platform.token(form, headers={"Host": "other.example.com"})
    assert host["error_description"].startswith("Invalid token issuer. Expected 'http://other.example.com/")
    assert (await platform.token(form)).status == 200


async def test_any_base_path_leads_to_a_realm(platform: Platform) -> None:
    url = f"{platform.sandbox.url}/realms/UA/protocol/openid-connect/token"
    pair = await platform.ask("POST", url, data=platform.password_form(client_id="ua-grant"))
    claims = jwt.decode(pair["access_token"], options={"verify_signature": False})
    assert claims["iss"] == f"{platform.sandbox.url}/realms/UA"


async def test_client_credentials_bring_no_refresh_token(platform: Platform) -> None:
    form = {"grant_type": "client_credentials", "client_id": "backend", "client_secret": SECRET}
    answer = await platform.token(form)
    assert (answer.status, answer["refresh_expires_in"], "refresh_token" in answer.body) == (200, 0, False)
    platform.state.settings.required_role = ""
    assert (await platform.call(answer["access_token"])).status == 200


async def test_basic_client_credentials_are_form_decoded(platform: Platform) -> None:
    form = {"grant_type": "client_credentials"}
    encoded = await platform.token(form, headers=basic("backend", quote_plus(SECRET)))
    assert encoded.status == 200
    raw = await platform.token(form, headers=basic("backend", SECRET))
    assert raw.refusal == (400, "unauthorized_client", "Unexpected error when authenticating client")
    wrong = await platform.token(form, headers=basic("backend", "wrong"))
    assert wrong.refusal == (401, "unauthorized_client", INVALID_CLIENT)


async def test_a_seed_refresh_token_starts_without_a_password(platform: Platform) -> None:
    seed = platform.sandbox.refresh_token(client_id="ua-grant", realm="UA", offline=True)
    form = {"grant_type": "refresh_token", "client_id": "ua-grant", "refresh_token": seed}
    pair = await platform.token(form, realm="UA")
    assert (pair.status, pair["refresh_expires_in"]) == (200, 0)
    assert (await platform.call(pair["access_token"])).status == 200


async def test_sessions_survive_a_restart_on_the_same_port(platform: Platform) -> None:
    pair = await platform.login()
    await platform.sandbox.stop()
    await platform.sandbox.start(port=platform.sandbox.port)
    assert (await platform.call(pair["access_token"])).status == 200
    assert (await platform.refresh(pair["refresh_token"])).status == 200


async def test_the_password_is_random_and_shown_in_no_repr() -> None:
    first, second = Sandbox(), Sandbox()
    assert first.password != second.password
    assert len(first.password) >= 20
    shown = repr(vars(first)) + repr(vars(first.state)) + repr(first.state.settings)
    assert first.password not in shown
