"""``opentv-proxy token NAME`` from outside."""

import json
import re
from pathlib import Path
from typing import Any

import aiohttp

from proxy.sandbox import Fault, Sandbox, SandboxSettings
from tests.support.cli import command, written
from tests.support.gateway import running_gateway


def configured(sandbox: Sandbox, folder: Path, **changes: Any) -> Path:
    opentv = {
        "system": "keycloak",
        "token_url": sandbox.token_url,
        "client_id": sandbox.client_id,
        "username": sandbox.username,
        "password": sandbox.password,
    }
    routes = [{"path": "/", "upstream": sandbox.url, "identity": "opentv"}]
    return written({"identities": {"opentv": opentv | changes}, "routes": routes}, folder)


def seeded(sandbox: Sandbox, folder: Path) -> Path:
    (folder / "seed").write_text(sandbox.refresh_token(client_id="ua-grant"))
    hpe = {
        "system": "keycloak",
        "token_url": sandbox.token_url,
        "client_id": "ua-grant",
        "grant": "refresh_token",
        "refresh_token_file": str(folder / "seed"),
    }
    routes = [{"path": "/", "upstream": sandbox.url, "identity": "hpe"}]
    return written({"identities": {"hpe": hpe}, "routes": routes}, folder)


async def test_it_shows_claims_and_lifetimes_and_logs_out_the_session_it_opened(tmp_path: Path) -> None:
    async with Sandbox() as sandbox:
        ended = await command("token", "opentv", "-c", configured(sandbox, tmp_path))
        counters = dict(sandbox.state.counters)
        assert sandbox.state.sessions == {}
    assert (ended.code, ended.err) == (0, "")
    assert "eyJ" not in ended.out
    assert counters["token_requests"] == counters["logouts"] == 1
    when = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"
    for line in (
        r"fingerprint  [0-9a-f]{8}",
        rf"issued       {when}, \d s ago",
        rf"expires      {when}, in (5|4\.9) min",
        rf"refresh      {when}, in (30|29\.9) min",
        r"roles        .*operatorRole.*",
    ):
        assert re.search(rf"^{line}$", ended.out, re.MULTILINE), (line, ended.out)
    claims = json.loads(ended.out[ended.out.index("{") :])
    assert claims["preferred_username"] == "crm_client_user"


async def test_raw_prints_the_token_alone_and_leaves_its_session_open(tmp_path: Path) -> None:
    async with Sandbox() as sandbox:
        ended = await command("token", "opentv", "-c", configured(sandbox, tmp_path), "--raw")
        assert sandbox.state.counters["token_requests"] == 1
        assert sandbox.state.counters["logout_requests"] == 0
    assert ended.code == 0
    assert re.fullmatch(r"eyJ[\w-]+\.[\w-]+\.[\w-]+\n", ended.out)
    assert "the session stays open" in ended.err
    assert "eyJ" not in ended.err


async def test_an_opaque_token_has_lifetimes_and_no_claims(tmp_path: Path) -> None:
    async with Sandbox(SandboxSettings(access_life=90)) as sandbox:
        sandbox.state.add_fault("token", Fault("set-fields", values={"access_token": "opaque-access-token"}))
        ended = await command("token", "opentv", "-c", configured(sandbox, tmp_path))
    assert ended.code == 0
    assert "the token is opaque" in ended.out
    assert re.search(r"^expires      .*, in (90|89) s$", ended.out, re.MULTILINE)
    assert "opaque-access-token" not in ended.out


async def test_an_unknown_name_ends_with_2_and_the_nearest_one(tmp_path: Path) -> None:
    async with Sandbox() as sandbox:
        ended = await command("token", "opentvv", "-c", configured(sandbox, tmp_path))
        assert sandbox.state.counters["token_requests"] == 0
    assert (ended.code, ended.out) == (2, "")
    assert ended.err == "opentv-proxy: no identity has the name 'opentvv'; did you mean opentv?\n"


async def test_a_refused_login_ends_with_1_and_words(tmp_path: Path) -> None:
    async with Sandbox() as sandbox:
        file = configured(sandbox, tmp_path, password="not the password")
        ended = await command("token", "opentv", "-c", file, "--raw")
        assert sandbox.state.counters["token_requests"] == 1
    assert (ended.code, ended.out) == (1, "")
    assert "refused the user name or the password" in ended.err
    assert "not the password" not in ended.err


async def test_a_seed_is_not_presented_unless_that_is_asked_for(tmp_path: Path) -> None:
    async with Sandbox() as sandbox:
        file = seeded(sandbox, tmp_path)
        ended = await command("token", "hpe", "-c", file)
        assert (ended.code, ended.out) == (1, "")
        assert "--spend-seed" in ended.err
        assert sandbox.state.counters["token_requests"] == 0
        ended = await command("token", "hpe", "-c", file, "--spend-seed")
        assert ended.code == 0
        assert f"the seed is spent: renew {tmp_path / 'seed'}" in ended.err
        assert sandbox.state.counters["logout_requests"] == 0
        assert (tmp_path / "seed").read_text() not in ended.out + ended.err


async def test_a_key_in_the_query_of_the_token_url_is_shown_nowhere(tmp_path: Path) -> None:
    """Not by /status, the page, the log, `config` or `check`."""
    idp = {"system": "keycloak", "token_url": "http://127.0.0.1:1/token?key=hunter2", "client_id": "crm"}
    site: dict[str, Any] = {"identities": {"idp": {**idp, "username": "alice", "password": "pw", "timeout": "1s"}}}
    site["routes"] = [{"path": "/", "upstream": "http://127.0.0.1:1", "identity": "idp"}]
    async with running_gateway(site, tmp_path) as gateway, aiohttp.ClientSession() as session:
        async with session.get(f"{gateway.admin_url}/status") as answer:
            status = await answer.text()
        async with session.get(gateway.admin_url, headers={"Accept": "text/html"}) as answer:
            page = await answer.text()
    checked = await command("check", "-c", gateway.config_file)
    shown = await command("config", "-c", gateway.config_file)
    assert json.loads(status)["identities"]["idp"]["endpoint"] == "http://127.0.0.1:1/token"
    assert "http://127.0.0.1:1/token?key=********" in shown.out
    assert "http://127.0.0.1:1/token" in checked.out
    for text in (status, page, gateway.words(), checked.out, checked.err, shown.out, shown.err):
        assert "hunter2" not in text
