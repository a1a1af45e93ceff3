"""In front of a real Keycloak: what ends a session, and what that costs a CRM. Keycloak's event list is the witness."""

import asyncio
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.e2e.scene import OpenScene, Scene, open_scene
from tests.support.gateway import ROOT, environment, until
from tests.support.keycloak import CLIENT, OwnServer
from tests.support.verifying_upstream import Rejection

pytestmark = pytest.mark.timeout(600)  # the first test on a machine pays for the download and the build

LONG = {"accessTokenLifespan": 300}
REFUSALS = {
    "403": Rejection(),
    "401": Rejection(401, {"error": "invalid_token"}),
    "200 with the platform's code": Rejection(200),
}


def run_command(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "proxy", *words]
    return subprocess.run(  # noqa: S603 - the test's own words
        command,
        cwd=ROOT,
        env=environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


async def types_of_events(here: Scene) -> list[str]:
    return [event["type"] for event in await here.realm.events()]


@pytest.mark.parametrize("refusal", REFUSALS.values(), ids=REFUSALS.keys())
async def test_a_session_ended_by_an_administrator_costs_one_login_and_no_request(
    scene: OpenScene, refusal: Rejection
) -> None:
    async with scene(realm=LONG) as here:
        assert (await here.ask()).status == 200
        here.upstream.rejection = refusal
        here.upstream.dead_sessions.add(here.upstream.admitted[-1].claims["sid"])
        await here.realm.logout_user()
        answer = await here.ask(method="POST", body=b'{"uid": 7}')
        assert (answer.status, answer.headers.get("Proxy-Status")) == (200, None)
        refused, served = here.upstream.seen[-2:]
        assert (refused.refused, served.refused) == ("session ended", None)
        assert (refused.method, refused.path, refused.body) == (served.method, served.path, served.body)
        assert await here.realm.count("LOGIN") == 2
        assert [(await here.ask()).status for _ in range(5)] == [200] * 5
        assert await here.realm.count("LOGIN", "LOGIN_ERROR") == 2


async def test_a_pushed_not_before_costs_one_login_and_no_request(scene: OpenScene) -> None:
    async with scene(realm=LONG) as here:
        assert (await here.ask()).status == 200
        issued = here.upstream.admitted[-1].claims["iat"]
        await until(lambda: time.time() >= issued + 1, 2.0, "a second later than the token")
        here.upstream.not_before = await here.realm.push_not_before()
        assert (await here.ask()).status == 200
        assert [seen.refused for seen in here.upstream.seen] == [None, "issued before not-before", None]
        assert await here.realm.count("LOGIN") == 2
        assert [(await here.ask()).status for _ in range(5)] == [200] * 5
        assert await here.realm.count("LOGIN", "LOGIN_ERROR") == 2


async def test_two_hundred_requests_refused_at_once_cost_one_login(scene: OpenScene) -> None:
    async with scene(realm=LONG) as here:
        assert (await here.ask()).status == 200
        here.upstream.dead_sessions.add(here.upstream.admitted[-1].claims["sid"])
        await here.realm.logout_user()
        answers = await asyncio.gather(*(here.ask(f"/adm/v1/accounts/{number}") for number in range(200)))
        assert {answer.status for answer in answers} == {200}
        assert await here.realm.count("LOGIN") == 2
        assert await here.realm.count("REFRESH_TOKEN", "REFRESH_TOKEN_ERROR") <= 1


async def test_a_cold_start_under_a_thousand_requests_is_one_login(scene: OpenScene) -> None:
    async with scene(realm=LONG) as here:
        answers = await asyncio.gather(*(here.ask(f"/adm/v1/accounts/{number}") for number in range(1000)))
        assert {answer.status for answer in answers} == {200}
        assert await types_of_events(here) == ["LOGIN"]


async def test_a_missing_role_is_passed_on_and_refreshed_for_once(scene: OpenScene) -> None:
    async with scene(realm=LONG) as here:
        here.upstream.role = "superRole"
        for _ in range(5):
            answer = await here.ask()
            assert (answer.status, b"99999:403" in answer.body) == (403, True)
        assert await here.realm.count("LOGIN", "REFRESH_TOKEN") == 2


async def test_direct_access_grants_off_is_said_by_check_in_words(scene: OpenScene) -> None:
    async with scene(run=False) as here:
        await here.realm.patch_client(directAccessGrantsEnabled=False)
        done = await asyncio.to_thread(run_command, "check", "-c", str(here.write_config()))
        assert done.returncode == 3, done.stderr
        assert f"Direct Access Grants is off for client {CLIENT}" in done.stdout


async def test_check_of_a_good_site_logs_in_once_refreshes_once_and_leaves_nothing(scene: OpenScene) -> None:
    async with scene(run=False) as here:
        done = await asyncio.to_thread(run_command, "check", "-c", str(here.write_config()))
        assert done.returncode == 0, done.stdout + done.stderr
        assert await types_of_events(here) == ["LOGIN", "REFRESH_TOKEN", "LOGOUT"]
        assert await here.realm.sessions() == []


async def test_after_sigterm_the_session_is_gone(scene: OpenScene) -> None:
    async with scene() as here:
        assert (await here.ask()).status == 200
        assert len(await here.realm.sessions()) == 1
        assert await here.gateway.stop() == 0
        assert await here.realm.sessions() == []
        assert (await types_of_events(here))[-1] == "LOGOUT"


async def test_a_token_endpoint_behind_a_private_ca_is_reached_with_its_ca_file_only(scene: OpenScene) -> None:
    async with scene(run=False) as here:
        server = here.realm.server
        if server.ca is None:
            pytest.skip("the server in KEYCLOAK_URL has no TLS of ours")
        ca_file = here.folder / "ca.pem"
        server.ca.cert_pem.write_to_path(str(ca_file))
        trusted = here.write_config(token_url=here.realm.tls_token_url, tls={"ca_file": str(ca_file)})
        done = await asyncio.to_thread(run_command, "check", "-c", str(trusted))
        assert done.returncode == 0, done.stdout + done.stderr
        distrusted = here.write_config(token_url=here.realm.tls_token_url)
        done = await asyncio.to_thread(run_command, "check", "-c", str(distrusted))
        assert done.returncode == 3
        assert "certificate" in done.stdout


async def test_a_server_killed_and_started_again_fails_no_request_while_the_token_lives(
    mortal_server: OwnServer, tmp_path: Path
) -> None:
    async with open_scene(mortal_server, tmp_path, realm={"accessTokenLifespan": 15}) as here:
        assert (await here.ask()).status == 200
        async with here.traffic() as traffic:
            mortal_server.kill()
            expiry = here.upstream.admitted[-1].claims["exp"]
            # It is taken for dead a second early, and both sides count whole seconds.
            await until(lambda: time.time() > expiry - 2.5, 20.0, "the token's last seconds")
        assert traffic.failed == []
        await until(lambda: time.time() > expiry + 1, 5.0, "the token's end")
        answer = await here.ask()
        assert (answer.status, answer.headers["Content-Type"]) == (503, "application/problem+json")
        assert int(answer.headers["Retry-After"]) >= 1
        assert answer.seconds < 1.0
        mortal_server.launch()
        await until(lambda: asyncio.to_thread(mortal_server.answers), 90.0, "Keycloak is back")
        assert await until(here.served, 5.0, "served again") <= 5.0
        assert here.upstream.refused == []
