"""In front of a real Keycloak: what shows only after a while. The scenarios mostly wait, so they run side by side."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio

from tests.e2e.scene import open_scene
from tests.support.gateway import running_gateway, until
from tests.support.keycloak import CLIENT, USER, USER_PASSWORD, KeycloakServer, Realm

pytestmark = pytest.mark.timeout(600)

Scenario = Callable[[KeycloakServer, Path], Awaitable[None]]
SCENARIOS: dict[str, Scenario] = {}


def scenario(play: Scenario) -> Scenario:
    SCENARIOS[play.__name__] = play
    return play


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def played(
    request: pytest.FixtureRequest, keycloak_server: KeycloakServer, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[dict[str, asyncio.Task[None]]]:
    """Every scenario that this run asks for, as a task already under way."""
    asked_for = {item.name for item in request.session.items if item.nodeid.startswith(request.node.nodeid)}
    tasks = {
        name: asyncio.ensure_future(play(keycloak_server, tmp_path_factory.mktemp(name)))
        for name, play in SCENARIOS.items()
        if f"test_after_a_while[{name}]" in asked_for
    }
    yield tasks
    for task in tasks.values():
        task.cancel()
    await asyncio.gather(*tasks.values(), return_exceptions=True)


@scenario
async def login_once_then_ten_rotations_of_6_s_tokens_without_a_failed_request(
    server: KeycloakServer, folder: Path
) -> None:
    async with open_scene(server, folder) as here:
        async with here.traffic() as traffic:

            async def rotated() -> bool:
                await asyncio.sleep(0.5)
                return await here.realm.count("REFRESH_TOKEN") >= 10

            await until(rotated, 90.0, "ten rotations")
        assert traffic.failed == []
        assert traffic.statuses[200] > 500
        assert here.upstream.refused == []
        assert await here.realm.count("LOGIN") == 1
        assert await here.realm.count("REFRESH_TOKEN_ERROR", "LOGIN_ERROR") == 0


@scenario
async def sso_session_max_of_20_s_is_met_by_a_login_before_its_end(server: KeycloakServer, folder: Path) -> None:
    async with open_scene(server, folder, realm={"ssoSessionMaxLifespan": 20}) as here:
        async with here.traffic() as traffic:
            await asyncio.sleep(50.0)
        assert traffic.failed == []
        assert here.upstream.refused == []
        assert 3 <= await here.realm.count("LOGIN") <= 5
        assert await here.realm.count("REFRESH_TOKEN_ERROR", "LOGIN_ERROR") == 0

        async def replaced_sessions_gone() -> bool:
            return len(await here.realm.sessions()) == 1

        await until(replaced_sessions_gone, 8.0, "each login's session logs the one before it out")


@scenario
async def a_wrong_password_is_tried_once_and_served_within_5_s_of_its_correction(
    server: KeycloakServer, folder: Path
) -> None:
    async with open_scene(server, folder, password="wrong") as here:
        async with here.traffic(workers=1) as traffic:
            await asyncio.sleep(58.0)
        assert set(traffic.statuses) == {503}
        words = traffic.failed[-1]
        assert words.headers["Content-Type"] == "application/problem+json"
        assert int(words.headers["Retry-After"]) > 0
        assert b"login suspended until" in words.body
        assert (await here.status())["state"] == "suspended"
        assert await here.realm.count("LOGIN", "LOGIN_ERROR") == 1
        assert not await here.realm.locked()
        assert here.upstream.seen == []
        here.password_file.write_text(USER_PASSWORD)
        await until(here.served, 5.0, "served with the right password")
        assert await here.realm.count("LOGIN_ERROR") == 1


async def keep_logging_in(realm: Realm, stop: asyncio.Event) -> None:
    form = {"grant_type": "password", "client_id": CLIENT, "username": USER, "password": USER_PASSWORD}
    async with aiohttp.ClientSession() as http:
        while not stop.is_set():
            async with http.post(realm.token_url, data=form) as reply:
                await reply.read()


@scenario
async def a_right_password_refused_beside_another_login_is_served_after_the_next_try(
    server: KeycloakServer, folder: Path
) -> None:
    async with open_scene(server, folder, run=False) as here, asyncio.TaskGroup() as group:
        stop = asyncio.Event()
        for _ in range(6):
            group.create_task(keep_logging_in(here.realm, stop))
        try:
            for attempt in range(8):  # the gateway's login may be the one that is let in
                own_folder = folder / str(attempt)
                own_folder.mkdir()
                async with running_gateway(here.config(), own_folder) as here.gateway:
                    if (await here.ask()).status == 200:
                        continue
                    stop.set()
                    assert (await here.status())["state"] == "suspended"
                    assert not await here.realm.locked()
                    await until(here.served, 85.0, "served after the next try")
                    return
            raise AssertionError("eight logins in a row met no other one")
        finally:
            stop.set()


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("name", SCENARIOS)
async def test_after_a_while(played: dict[str, asyncio.Task[None]], name: str) -> None:
    await played[name]
