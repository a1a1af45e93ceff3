"""What the tests lean on: the realm rotates, refuses reuse, locks, and its event list tells."""

import time

import aiohttp
import pytest

from tests.support.keycloak import CLIENT, USER, USER_PASSWORD, Realm
from tests.support.verifying_upstream import VerifyingUpstream

pytestmark = pytest.mark.timeout(600)  # the first test on a machine pays for the download and the build

Reply = tuple[int, dict[str, object]]


async def exchange(realm: Realm, **form: str) -> Reply:
    async with (
        aiohttp.ClientSession() as http,
        http.post(realm.token_url, data={"client_id": CLIENT, **form}) as reply,
    ):
        return reply.status, await reply.json()


async def log_in(realm: Realm, password: str = USER_PASSWORD) -> Reply:
    return await exchange(realm, grant_type="password", username=USER, password=password)


async def ask(upstream: VerifyingUpstream, token: object) -> int:
    headers = {"Authorization": f"Bearer {token}"}
    async with aiohttp.ClientSession() as http, http.get(f"{upstream.url}/adm/v1/accounts", headers=headers) as reply:
        return reply.status


async def test_a_token_of_the_realm_is_admitted_upstream_and_a_tampered_one_is_not(
    realm: Realm, upstream: VerifyingUpstream
) -> None:
    status, pair = await log_in(realm)
    assert (status, pair["expires_in"], pair["token_type"]) == (200, 6, "Bearer")
    assert await ask(upstream, pair["access_token"]) == 200
    head, payload, signature = str(pair["access_token"]).split(".")
    assert await ask(upstream, f"{head}.{payload}.{signature[:-8]}AAAAAAAA") == 403
    upstream.dead_sessions.add(str(upstream.admitted[0].claims["sid"]))
    assert await ask(upstream, pair["access_token"]) == 403


async def test_a_spent_refresh_token_is_refused_and_the_event_list_tells(realm: Realm) -> None:
    _, first = await log_in(realm)
    status, second = await exchange(realm, grant_type="refresh_token", refresh_token=str(first["refresh_token"]))
    assert status == 200
    status, refusal = await exchange(realm, grant_type="refresh_token", refresh_token=str(first["refresh_token"]))
    assert (status, refusal["error"]) == (400, "invalid_grant")
    assert second["refresh_token"] != first["refresh_token"]
    types = [event["type"] for event in await realm.events()]
    assert types == ["LOGIN", "REFRESH_TOKEN", "REFRESH_TOKEN_ERROR"]


async def test_an_administrator_ends_the_session(realm: Realm) -> None:
    _, pair = await log_in(realm)
    assert len(await realm.sessions()) == 1
    await realm.logout_user()
    assert await realm.sessions() == []
    status, _ = await exchange(realm, grant_type="refresh_token", refresh_token=str(pair["refresh_token"]))
    assert status == 400


async def test_a_pushed_not_before_shows_in_the_next_login(realm: Realm) -> None:
    before = int(time.time())
    assert await realm.push_not_before() >= before
    _, pair = await log_in(realm)
    assert int(str(pair["not-before-policy"])) >= before


async def test_two_quick_wrong_passwords_lock_the_user(realm: Realm) -> None:
    assert not await realm.locked()
    for _ in range(2):
        status, refusal = await log_in(realm, "wrong")
        assert (status, refusal["error"]) == (401, "invalid_grant")
    assert await realm.locked()
