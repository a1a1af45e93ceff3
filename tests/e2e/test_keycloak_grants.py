"""In front of a real Keycloak: the grants and client authentications that a site may have, told by its event list."""

import aiohttp
import pytest

from tests.e2e.scene import OpenScene, Scene
from tests.support.gateway import until
from tests.support.keycloak import CLIENT, USER, USER_PASSWORD

pytestmark = pytest.mark.timeout(600)  # the first test on a machine pays for the download and the build

# Basic is form-encoded before base64 (RFC 6749 2.3.1): each of these characters has broken someone's client.
SECRET = "a%b+c:d é/=&"


async def make_confidential(here: Scene) -> None:
    await here.realm.patch_client(publicClient=False, serviceAccountsEnabled=True, secret=SECRET)
    here.upstream.role = "offline_access"  # what Keycloak gives a service account by itself


async def offline_token(here: Scene) -> str:
    form = {"grant_type": "password", "client_id": CLIENT, "username": USER, "password": USER_PASSWORD}
    form["scope"] = "offline_access"
    async with aiohttp.ClientSession() as http, http.post(here.realm.token_url, data=form) as reply:
        pair = await reply.json()
    assert pair["refresh_expires_in"] == 0
    return str(pair["refresh_token"])


@pytest.mark.parametrize("client_auth", ["post", "basic"])
@pytest.mark.parametrize("system", ["keycloak", "oauth2"])
async def test_client_credentials_are_renewed_without_a_refresh_token(
    scene: OpenScene, system: str, client_auth: str
) -> None:
    identity = {
        "system": system,
        "grant": "client_credentials",
        "client_auth": client_auth,
        "client_secret": SECRET,
        "username": None,
        "password_file": None,
        "refresh": {"min_interval": "1s", "ahead": 0.6},
    }
    async with scene(identity=identity, prepare=make_confidential) as here:
        async with here.traffic() as traffic:

            async def renewed() -> bool:
                return await here.realm.count("CLIENT_LOGIN") >= 3

            await until(renewed, 20.0, "three client logins")
        assert (traffic.failed, here.upstream.refused) == ([], [])
        assert await here.realm.count("REFRESH_TOKEN_ERROR", "CLIENT_LOGIN_ERROR") == 0


@pytest.mark.parametrize("client_auth", ["post", "basic"])
async def test_a_confidential_client_logs_in_refreshes_and_logs_out(scene: OpenScene, client_auth: str) -> None:
    identity = {
        "client_auth": client_auth,
        "client_secret": SECRET,
        "refresh": {"min_interval": "1s", "ahead": 0.6},
    }
    async with scene(identity=identity, prepare=make_confidential) as here:
        here.upstream.role = "operatorRole"
        async with here.traffic() as traffic:

            async def rotated() -> bool:
                return await here.realm.count("REFRESH_TOKEN") >= 2

            await until(rotated, 20.0, "two rotations")
        assert (traffic.failed, here.upstream.refused) == ([], [])
        assert await here.gateway.stop() == 0
        events = [event["type"] for event in await here.realm.events()]
        assert (events[0], events[-1]) == ("LOGIN", "LOGOUT")
        assert not [kind for kind in events if kind.endswith("ERROR")]


async def test_an_offline_token_in_a_file_is_the_seed_and_its_session_is_left_alive(scene: OpenScene) -> None:
    async def seed(here: Scene) -> None:
        (here.folder / "refresh-token.txt").write_text(await offline_token(here))

    identity = {
        "grant": "refresh_token",
        "refresh_token_file": "refresh-token.txt",
        "scope": "offline_access",
        "username": None,
        "password_file": None,
        "refresh": {"min_interval": "1s", "ahead": 0.6},
    }
    async with scene(identity=identity, prepare=seed) as here:
        async with here.traffic() as traffic:

            async def rotated() -> bool:
                return await here.realm.count("REFRESH_TOKEN") >= 4

            await until(rotated, 20.0, "four rotations")
        assert (traffic.failed, here.upstream.refused) == ([], [])
        assert await here.gateway.stop() == 0
        events = [event["type"] for event in await here.realm.events()]
        assert events[0] == "LOGIN"
        assert set(events[1:]) == {"REFRESH_TOKEN"}
