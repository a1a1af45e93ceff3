"""Every system at once, as config/examples/six-systems.yaml has them: six routes of one gateway, each with its own
token, before the sandbox."""

import asyncio
import contextlib
import json
import re
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml

from proxy.sandbox import Fault, Sandbox, SandboxSettings
from proxy.sandbox.settings import Client, User
from tests.support.cli import command, written
from tests.support.gateway import ROOT, Gateway, running_gateway, until

SIX = ("opentv", "platform", "ags", "veeam", "ssp", "other")
# Where each route leads and what the platform checks there: (path at the gateway, the header with the token).
ROUTES = {
    "opentv": ("/adm/v1/devices", "authorization"),
    "platform": ("/platform/adm/v1/devices", "authorization"),
    "ags": ("/ags-api/devices", "authorization"),
    "veeam": ("/veeam-api/devices", "authorization"),
    "ssp": ("/ssp-api/devices", "nv-authorizations"),
    "other": ("/other/adm/v1/devices", "authorization"),
}


@dataclass
class Site:
    sandbox: Sandbox
    config: dict[str, Any]
    folder: Path

    def token(self) -> str:
        """A token as something else keeps it fresh in a file."""
        return (self.folder / "token").read_text()

    async def renew_token(self) -> str:
        form = {"grant_type": "password", "client_id": "crm_client", "username": "crm_client_user"}
        form["password"] = self.sandbox.password
        async with (
            aiohttp.ClientSession() as http,
            http.post(self.sandbox.token_url, data=form) as reply,
        ):
            token = str((await reply.json())["access_token"])
        aside = self.folder / "token.new"
        aside.write_text(f"{token}\n")
        aside.rename(self.folder / "token")
        return token


@contextlib.asynccontextmanager
async def site(folder: Path, **settings: Any) -> AsyncIterator[Site]:
    """The example with the sandbox in place of its hosts and a folder in place of /run/secrets."""
    clients = (Client("crm_client"), Client("crm-gateway", secret="s3cr%t", service_account=True))
    users = (User("dave", "d4ve"), User("administrator", "4dmin"))
    async with Sandbox(SandboxSettings(clients=clients, users=users, required_role="", **settings)) as sandbox:
        secrets = {"opentv_password": sandbox.password, "client_secret": "s3cr%t", "dave": "d4ve", "veeam": "4dmin"}
        for name, value in secrets.items():
            (folder / name).write_text(f"{value}\n")
        (folder / "credentials.json").write_text(json.dumps(sandbox.ssp_credentials))
        text = (ROOT / "config/examples/six-systems.yaml").read_text()
        text = text.replace("/run/secrets", str(folder)).replace(
            "https://login.example.com/oauth2/token", sandbox.token_url
        )
        text = re.sub(r"https://(?:[a-z]+\.example\.com|10\.0\.0\.5)", sandbox.url, text)
        config = yaml.safe_load(re.sub(r",? *tls: \{ca_file: [^}]*\}", "", text))
        for identity in config["identities"].values():
            identity["timeout"] = 3
        here = Site(sandbox, config, folder)
        await here.renew_token()
        yield here


async def ask(gateway: Gateway, name: str) -> int:
    async with aiohttp.ClientSession() as http, http.get(gateway.url + ROUTES[name][0]) as reply:
        await reply.read()
        return reply.status


async def status(gateway: Gateway) -> dict[str, Any]:
    async with aiohttp.ClientSession() as http, http.get(f"{gateway.admin_url}/status") as reply:
        found: dict[str, Any] = (await reply.json())["identities"]
        return found


async def test_six_systems_serve_six_routes_of_one_gateway(tmp_path: Path) -> None:
    async with site(tmp_path) as here, running_gateway(here.config, tmp_path) as gateway:

        async def ready() -> bool:
            async with aiohttp.ClientSession() as http, http.get(f"{gateway.admin_url}/readyz") as reply:
                return reply.status == 200

        await until(ready, 10, "every identity has a token")
        assert {name: await ask(gateway, name) for name in SIX} == dict.fromkeys(SIX, 200)
        assert {state["state"] for state in (await status(gateway)).values()} == {"fresh"}
        counters = dict(here.sandbox.state.counters)
        assert (counters["ags_logins"], counters["veeam_logins"]) == (1, 1)
        assert await gateway.stop() == 0
        assert here.sandbox.state.counters["ags_logouts"] == 1
        text = "\n".join(gateway.log)
        assert not [word for word in ("eyJ", "s3cr%t", "d4ve", "4dmin", here.sandbox.password) if word in text]


async def test_each_system_renews_its_short_tokens_without_a_failed_request(tmp_path: Path) -> None:
    async with site(tmp_path, access_life=4) as here:
        here.sandbox.state.settings.ags.access_life = here.sandbox.state.settings.veeam.access_life = 4
        here.config["identities"]["ssp"]["lifetime"] = 5
        for identity in here.config["identities"].values():
            identity["refresh"] = {"min_interval": "500ms", "ahead": 0.5}
        async with running_gateway(here.config, tmp_path) as gateway:
            seen: dict[str, set[int]] = {name: set() for name in SIX}

            async def keep_fresh() -> None:
                while True:
                    await here.renew_token()
                    await asyncio.sleep(1)

            keeping = asyncio.create_task(keep_fresh())
            for _ in range(60):
                for name in SIX:
                    seen[name].add(await ask(gateway, name))
                await asyncio.sleep(0.15)
            keeping.cancel()
            assert seen == {name: {200} for name in SIX}
            told = await status(gateway)
            assert all(len(told[name]["history"]) >= 3 for name in SIX)
            counters = here.sandbox.state.counters
            assert (counters["ags_logins"], counters["veeam_logins"]) == (1, 1)
            assert min(counters["ags_refreshes"], counters["veeam_refreshes"]) >= 2


@pytest.mark.parametrize("name", ["opentv", "ags", "veeam"])
@pytest.mark.parametrize("kind", ["rotate-then-reset", "half-json", "null-fields", "html", "rate-limit", "big-body"])
async def test_a_rejected_token_is_made_good_though_the_refresh_goes_wrong(
    tmp_path: Path, name: str, kind: str
) -> None:
    """At most one further use of the old refresh token, then one login (B7, B9); 429 waits as it was told (B10)."""
    endpoint, grant = {
        "opentv": ("token", "refresh_token"),
        "ags": ("ags", "refresh"),
        "veeam": ("veeam", "Refresh_token"),
    }[name]
    async with site(tmp_path) as here:
        here.config["identities"] = {name: here.config["identities"][name]}
        here.config["routes"] = [route for route in here.config["routes"] if route["identity"] == name]
        async with running_gateway(here.config, tmp_path) as gateway:
            assert await ask(gateway, name) == 200
            state = here.sandbox.state
            state.add_fault(endpoint, Fault(kind, grant=grant, retry_after="2"))  # type: ignore[arg-type] # (literals)
            calls = len(state.token_calls)
            state.revoke_access_tokens()

            async def served() -> bool:
                return await ask(gateway, name) == 200

            await until(served, 15, "served again")
            made = [call.grant for call in state.token_calls][calls:]
            assert made.count(grant) <= 2
            assert len(made) <= 3


async def test_an_ags_that_forgot_session_and_device_costs_the_client_nothing(tmp_path: Path) -> None:
    async with site(tmp_path) as here:
        here.config["identities"] = {"ags": here.config["identities"]["ags"]}
        here.config["routes"] = [route for route in here.config["routes"] if route["identity"] == "ags"]
        async with running_gateway(here.config, tmp_path) as gateway:
            assert await ask(gateway, "ags") == 200
            here.sandbox.state.reset()
            assert await ask(gateway, "ags") == 200
            assert [call.grant for call in here.sandbox.state.token_calls] == ["refresh", "signOn", "signOn"]


async def test_a_token_file_that_is_missing_is_waited_for_and_a_rejected_one_until_it_changes(tmp_path: Path) -> None:
    async with site(tmp_path) as here:
        token = here.folder / "token"
        token.unlink()
        here.config["routes"] = here.config["routes"][-1:]
        here.config["identities"] = {"other": here.config["identities"]["other"] | {"timeout": 2}}
        async with running_gateway(here.config, tmp_path) as gateway:
            async with aiohttp.ClientSession() as http:
                async with http.get(f"{gateway.admin_url}/readyz?verbose") as reply:
                    assert reply.status == 503
                    assert f"{token} does not exist" in await reply.text()
                async with http.get(gateway.url + "/other/x") as reply:
                    problem = await reply.json(content_type=None)
            assert (reply.status, problem["status"]) == (503, 503)
            assert f"{token} does not exist" in problem["detail"]
            first = await here.renew_token()

            async def served() -> bool:
                return await ask(gateway, "other") == 200

            assert await until(served, 5, "served") < 5
            here.sandbox.state.revoke_access_tokens()
            waiting = asyncio.create_task(ask(gateway, "other"))
            await asyncio.sleep(0.5)
            assert not waiting.done()
            assert await here.renew_token() != first
            assert await waiting == 200


async def test_a_token_file_that_a_rejection_leaves_as_it_is_costs_one_request_a_wait_and_is_no_failure(
    tmp_path: Path,
) -> None:
    async with site(tmp_path) as here:
        here.config["routes"] = here.config["routes"][-1:]
        here.config["identities"] = {"other": here.config["identities"]["other"] | {"timeout": 2}}
        async with running_gateway(here.config, tmp_path) as gateway:
            assert await ask(gateway, "other") == 200
            here.sandbox.state.revoke_access_tokens()
            took = []
            for _ in range(4):
                began = time.monotonic()
                assert await ask(gateway, "other") == 403
                took.append(time.monotonic() - began)
            assert took[0] > 1.2 > max(took[1:])
            shown = (await status(gateway))["other"]
            assert (shown["state"], shown["consecutive_failures"]) == ("fresh", 0)
            assert [line for line in gateway.records if line["level"] == "warning"] == []


@pytest.mark.parametrize("name", SIX)
async def test_check_and_token_work_for_each_system(tmp_path: Path, name: str) -> None:
    async with site(tmp_path) as here:
        here.config["identities"] = {name: here.config["identities"][name]}
        here.config["routes"] = [route for route in here.config["routes"] if route["identity"] == name]
        file = written(here.config, tmp_path)
        checked = await command("check", "-c", file)
        assert checked.code == 0, checked.out
        if name == "ags":
            assert "sso-1 (username, password); Customer Auth Service (username, password)" in checked.out
        shown = await command("token", name, "-c", file)
        assert shown.code == 0, shown.err
        assert re.search(r"^fingerprint  [0-9a-f]{8}$", shown.out, re.MULTILINE)
        for words in (checked.out, shown.out):
            assert not [word for word in ("eyJ", "s3cr%t", "d4ve", "4dmin", here.sandbox.password) if word in words]
        raw = await command("token", name, "-c", file, "--raw")
        assert raw.code == 0
        if name == "other":
            assert raw.out.strip() == here.token().strip()
        assert {"ags": 2, "opentv": 2}.get(name, 0) == sum(
            here.sandbox.state.counters[counter] for counter in ("ags_logouts", "logouts")
        )


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"auth_service_id": "sso-7"}, 'there is no sign-on service "sso-7"'),
        ({"sign_on": [{"name": "username", "value": "dave"}]}, "the sign-on lacks mandatory parameters: password"),
        ({"sign_on": [{"name": "username", "value": "dave"}, {"name": "password", "value": "x"}]}, "refused the login"),
    ],
)
async def test_check_says_what_is_wrong_with_a_sign_on(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    async with site(tmp_path) as here:
        here.config["identities"] = {"ags": here.config["identities"]["ags"] | changes}
        here.config["routes"] = [route for route in here.config["routes"] if route["identity"] == "ags"]
        checked = await command("check", "-c", written(here.config, tmp_path))
        assert checked.code == 3
        assert words in checked.out
        assert here.sandbox.state.counters["ags_requests_signOn"] <= 1


@pytest.mark.parametrize(
    ("name", "setting", "words"),
    [("ags", {"accounts": ("home", "holiday")}, "several accounts match"), ("veeam", {"mfa": True}, "multi-factor")],
)
async def test_what_a_person_must_decide_is_said_and_not_tried_again_and_again(
    tmp_path: Path, name: str, setting: dict[str, Any], words: str
) -> None:
    async with site(tmp_path) as here:
        vars(getattr(here.sandbox.state.settings, name)).update(setting)
        here.config["identities"] = {name: here.config["identities"][name]}
        here.config["routes"] = [route for route in here.config["routes"] if route["identity"] == name]
        calls = len(here.sandbox.state.token_calls)
        async with running_gateway(here.config, tmp_path) as gateway, aiohttp.ClientSession() as http:
            for _ in range(5):
                async with http.get(gateway.url + ROUTES[name][0]) as reply:
                    assert reply.status == 503
                    assert words in (await reply.json(content_type=None))["detail"]
        assert len(here.sandbox.state.token_calls) - calls == 1
