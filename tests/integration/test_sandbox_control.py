"""The sandbox's control API from outside, its document, and running it as the command does."""

import asyncio
import json
import re
import shlex
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from proxy.sandbox import Sandbox, SandboxSettings, run_sandbox
from tests.support.sandbox import START, START_DATE, Answer, Platform, running

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "sandbox.md"


@pytest.fixture
async def platform() -> AsyncIterator[Platform]:
    async with running() as platform:
        yield platform


async def control(platform: Platform, method: str, path: str = "", body: object = None) -> Answer:
    return await platform.ask(method, f"/_sandbox{path}", data=None if body is None else json.dumps(body))


async def test_the_overview_counts_and_lists_and_holds_no_secret(platform: Platform) -> None:
    pair = await platform.login()
    await platform.refresh(pair["refresh_token"])
    await platform.call(pair["access_token"])
    await platform.call("bad")
    seen = await control(platform, "GET")
    assert (seen["now"], seen["sessions"]) == (START, 1)
    wanted = {"logins": 1, "refreshes": 1, "token_requests": 2, "api_requests": 2, "api_rejections": 1}
    assert {name: seen["counters"][name] for name in wanted} == wanted
    assert [event["kind"] for event in seen["events"]] == ["login", "refresh", "api_rejected"]
    requests = await control(platform, "GET", "/requests")
    assert [request["grant"] for request in requests["token_requests"]] == ["password", "refresh_token"]
    assert requests["token_requests"][0]["fields"] == ["grant_type", "client_id", "username", "password"]
    shown = json.dumps(seen.body) + json.dumps(requests.body) + repr(platform.state.token_calls)
    for secret in (platform.sandbox.password, pair["access_token"], pair["refresh_token"]):
        assert secret not in shown


async def test_faults_are_added_replaced_listed_and_cleared(platform: Platform) -> None:
    await control(platform, "POST", "/faults/token", {"kind": "html"})
    await control(platform, "POST", "/faults/token", [{"kind": "reject", "times": None}, {"kind": "close"}])
    listed = await control(platform, "GET", "/faults/token")
    assert [fault["kind"] for fault in listed["faults"]] == ["html", "reject", "close"]
    await control(platform, "PUT", "/faults/token", {"kind": "rate-limit"})
    assert (await platform.login()).status == 429
    await control(platform, "POST", "/faults/api", {"kind": "reject", "times": None})
    await control(platform, "DELETE", "/faults")
    assert (await platform.call((await platform.login())["access_token"])).status == 200


@pytest.mark.parametrize(
    ("path", "body", "words"),
    [
        ("/faults/token", {}, "expected an object with at least `kind`"),
        ("/faults/token", {"kind": "earthquake"}, "kind: expected one of delay, late, reject"),
        ("/faults/token", {"kind": "reject", "time": 1}, "unknown field 'time'"),
        ("/faults/token", {"kind": "reject", "times": 0}, "times: expected a whole number above 0"),
        ("/faults/token", {"kind": "reply", "headers": {"a": "b\r\nc"}}, "headers: expected an object of strings"),
        ("/settings", {"access_life": -1}, "access_life: expected a whole number from 0"),
        ("/settings", {"access_life": True}, "access_life: expected a whole number from 0"),
        ("/settings", {"reject": "418"}, "reject: expected one of 401, 403, 200"),
        ("/settings", {"password": "x"}, "unknown field 'password'"),
        ("/users/crm_client_user", {"roles": "operatorRole"}, "roles: expected a list of strings"),
        ("/users/crm_client_user", [], "expected a JSON object"),
        ("/users/crm_client_user", {"password": None}, "password: expected a string"),
        ("/clients/crm_client", {"secret": 7}, "secret: expected a string or null"),
    ],
)
async def test_a_wrong_request_changes_nothing_and_says_what_was_expected(
    platform: Platform, path: str, body: object, words: str
) -> None:
    before = (await control(platform, "GET")).body
    answer = await control(platform, "PUT", path, body)
    assert answer.status == 400
    assert words in answer["error"]
    assert (await control(platform, "GET")).body == before


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("PUT", "/users/nobody", 404),
        ("PUT", "/nothing", 404),
        ("GET", "/faults/moon", 404),
        ("PATCH", "/faults/api", 405),
        ("POST", "/nothing", 404),
    ],
)
async def test_what_is_not_there_is_said_to_be_missing(platform: Platform, method: str, path: str, status: int) -> None:
    assert (await control(platform, method, path, {})).status == status


async def test_a_body_that_is_no_json_is_refused(platform: Platform) -> None:
    assert (await platform.ask("POST", "/_sandbox/clock", data="{")).status == 400


async def test_sessions_and_access_tokens_can_be_revoked(platform: Platform) -> None:
    pair = await platform.login()
    assert (await control(platform, "POST", "/revoke-access-tokens")).body == {"tokens": 1}
    assert (await platform.call(pair["access_token"])).status == 403
    renewed = await platform.refresh(pair["refresh_token"])
    assert (await control(platform, "POST", "/revoke-sessions")).body == {"sessions": 1}
    ended = await platform.refresh(renewed["refresh_token"])
    assert ended.refusal == (400, "invalid_grant", "Session not active")


async def test_not_before_is_pushed_to_now_or_to_a_given_time(platform: Platform) -> None:
    assert (await control(platform, "POST", "/not-before")).body == {"not_before": int(START)}
    assert (await control(platform, "POST", "/not-before", {"at": 17})).body == {"not_before": 17}
    assert (await platform.login())["not-before-policy"] == 17


async def test_the_platforms_clock_can_be_shifted(platform: Platform) -> None:
    assert (await control(platform, "POST", "/clock", {"shift_s": 600})).body["now"] == START + 600
    assert (await platform.login()).headers["Date"] != START_DATE
    assert (await control(platform, "POST", "/clock", {"shift_s": "ten"})).status == 400


async def test_the_users_password_and_roles_can_be_changed(platform: Platform) -> None:
    form = platform.password_form()
    answer = await control(platform, "PUT", "/users/crm_client_user", {"password": "new", "roles": []})
    assert (answer.status, "password" in answer.body) == (200, False)
    assert (await platform.token(form)).status == 401
    token = (await platform.login(password="new"))["access_token"]
    assert (await platform.call(token))["result"] == "Operation is not permitted"


async def test_direct_access_grants_can_be_turned_off_and_a_realm_too(platform: Platform) -> None:
    await control(platform, "PUT", "/clients/crm_client", {"direct_access_grants": False})
    assert (await platform.login())["error_description"] == "Client not allowed for direct access grants"
    await control(platform, "PUT", "/realms/nagra", {"enabled": False})
    assert (await platform.login())["error_description"] == "Realm not enabled"


async def test_lifetimes_and_the_style_of_rejection_can_be_changed(platform: Platform) -> None:
    answer = await control(platform, "PUT", "/settings", {"access_life": 7, "reject": "401", "login_time": 1})
    assert (answer["access_life"], answer["login_time"]) == (7, 1.0)
    assert (await platform.login())["expires_in"] == 7
    assert (await platform.call("bad")).status == 401


async def test_a_seed_refresh_token_can_be_asked_for(platform: Platform) -> None:
    seed = await control(platform, "POST", "/refresh-token", {"client_id": "ua-grant", "realm": "UA", "offline": True})
    form = {"grant_type": "refresh_token", "client_id": "ua-grant", "refresh_token": seed["refresh_token"]}
    assert (await platform.token(form, realm="UA"))["refresh_expires_in"] == 0
    assert (await control(platform, "POST", "/refresh-token", {"realm": "moon"})).status == 400


async def test_reset_brings_the_first_password_back_and_forgets_the_rest(platform: Platform) -> None:
    form = platform.password_form()
    await control(platform, "PUT", "/users/crm_client_user", {"password": "new"})
    await control(platform, "POST", "/faults/token", {"kind": "close", "times": None})
    await control(platform, "POST", "/reset")
    assert (await platform.token(form)).status == 200
    assert (await control(platform, "GET"))["counters"]["logins"] == 1


async def test_the_command_serves_until_it_is_told_to_stop() -> None:
    ready, stop = asyncio.Event(), asyncio.Event()
    started: list[Sandbox] = []

    def on_ready(sandbox: Sandbox) -> None:
        started.append(sandbox)
        ready.set()

    task = asyncio.create_task(run_sandbox("127.0.0.1", 0, SandboxSettings(), on_ready, stop))
    await ready.wait()
    port = started[0].port
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.close()
    stop.set()
    await task
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", port)


async def test_an_open_event_stream_does_not_hold_up_the_stop() -> None:
    async with running() as platform:
        token = (await platform.login())["access_token"]
        platform.sleeps.wake.clear()
        url = f"{platform.sandbox.url}/events"
        async with platform.http.get(url, headers={"Authorization": f"Bearer {token}"}) as reply:
            assert (await reply.content.readline()) == b"id: 1\n"
            await asyncio.wait_for(platform.sandbox.stop(), 5)


def shell_blocks() -> list[str]:
    return re.findall(r"```sh\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)


def commands() -> list[str]:
    lines = "\n".join(shell_blocks()).replace("\\\n", " ").split("\n")
    return [line for line in lines if line.startswith(("curl ", "TOKEN="))]


async def run(command: str, environment: dict[str, str]) -> str:
    shell = await asyncio.create_subprocess_exec("bash", "-c", command, stdout=asyncio.subprocess.PIPE, env=environment)
    out, _ = await shell.communicate()
    assert shell.returncode == 0, command
    return out.decode()


async def test_the_documents_curl_lines_work(tmp_path: Path) -> None:
    async with Sandbox() as sandbox:
        environment = {"PATH": "/usr/bin:/bin", "URL": sandbox.url, "PASSWORD": sandbox.password}
        results: dict[str, Any] = {}
        for command in commands():
            if command.startswith("TOKEN="):
                environment["TOKEN"] = (await run(f'{command}; printf %s "$TOKEN"', environment)).strip()
                assert environment["TOKEN"].count(".") == 2
            else:
                results[command] = await run(command, {**environment, "HOME": str(tmp_path)})
                assert "error" not in json.loads(results[command]), shlex.quote(command)
        assert len(results) >= 8
