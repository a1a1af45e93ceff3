"""A gateway whose tokens outlive it, in files and in Redis, and the command that shows what is stored."""

import asyncio
import json
import re
from base64 import urlsafe_b64decode
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from proxy.sandbox import Sandbox, SandboxSettings
from tests.conftest import StartGateway
from tests.support.cli import command, written
from tests.support.gateway import Gateway, running_gateway, until
from tests.support.redis import RedisServer, need_redis
from tests.support.stores import key_file


@pytest.fixture(scope="module")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    need_redis()
    server = RedisServer(tmp_path_factory.mktemp("redis")).start()
    yield server
    server.stop()


@pytest.fixture
def store(tmp_path: Path) -> dict[str, Any]:
    """The section of the configuration: the file store, where all stores are alike."""
    return {"file": {"path": f"{tmp_path}/kept/tokens.json", "key_file": str(key_file(tmp_path))}}


@pytest.fixture(params=["file", "redis"])
def any_store(request: pytest.FixtureRequest, tmp_path: Path, store: dict[str, Any]) -> dict[str, Any]:
    if request.param == "file":
        return store
    server: RedisServer = request.getfixturevalue("redis_server")
    assert server.ask("FLUSHALL") == "+OK"
    (tmp_path / "url").write_text(f"{server.url}\n")
    return {"redis": {"url_file": str(tmp_path / "url"), "key_file": str(tmp_path / "keys")}}


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    async with Sandbox(SandboxSettings(access_life=3)) as sandbox:
        yield sandbox


def config(sandbox: Sandbox, store: object, **changes: Any) -> dict[str, Any]:
    opentv = {
        "system": "keycloak",
        "token_url": sandbox.token_url,
        "client_id": sandbox.client_id,
        "username": sandbox.username,
        "password": sandbox.password,
        "refresh": {"min_interval": "500ms"},
    }
    routes = [{"path": "/", "upstream": sandbox.url, "identity": "opentv"}]
    return {"identities": {"opentv": opentv | changes}, "routes": routes, "store": store}


async def served(gateway: Gateway) -> None:
    async with aiohttp.ClientSession() as http, http.get(f"{gateway.url}/adm/v1/accounts") as answer:
        assert answer.status == 200, (await answer.text(), gateway.words())


def grants(sandbox: Sandbox) -> list[str]:
    """Of every token request so far."""
    return [call.grant for call in sandbox.state.token_calls if call.operation == "token"]


async def test_a_restart_costs_no_session_and_logs_nobody_out(
    start: StartGateway, sandbox: Sandbox, any_store: dict[str, Any]
) -> None:
    first = await start(config(sandbox, any_store))
    await served(first)
    assert await first.stop() == 0
    second = await start(config(sandbox, any_store))
    await served(second)
    await second.kill()
    third = await start(config(sandbox, any_store))
    await served(third)
    assert grants(sandbox).count("password") == 1
    assert len(sandbox.state.sessions) == 1
    assert sandbox.state.counters["logout_requests"] == sandbox.state.counters["token_refusals"] == 0


async def test_a_start_long_after_the_access_token_died_refreshes_the_stored_session(
    start: StartGateway, sandbox: Sandbox, store: dict[str, Any]
) -> None:
    first = await start(config(sandbox, store))
    await served(first)
    await first.kill()
    before, killed_at = len(grants(sandbox)), sandbox.state.now()
    await until(lambda: sandbox.state.now() > killed_at + 3, 5, "the end of the access token")
    second = await start(config(sandbox, store))
    await served(second)
    assert set(grants(sandbox)[before:]) == {"refresh_token"}
    assert sandbox.state.counters["token_refusals"] == 0


async def test_a_stored_pair_of_another_user_is_not_used(
    start: StartGateway, sandbox: Sandbox, store: dict[str, Any]
) -> None:
    first = await start(config(sandbox, store))
    await served(first)
    await first.stop()
    second = await start(config(sandbox, store, scope="profile"))
    await served(second)
    assert grants(sandbox).count("password") == 2


async def test_nothing_secret_is_in_the_log_or_the_metrics_of_a_gateway_that_stores(
    start: StartGateway, sandbox: Sandbox, any_store: dict[str, Any], tmp_path: Path
) -> None:
    gateway = await start(config(sandbox, any_store))
    await served(gateway)
    async with aiohttp.ClientSession() as http, http.get(f"{gateway.admin_url}/metrics") as answer:
        metrics = await answer.text()
    kind = next(iter(any_store))
    assert f'opentv_proxy_store_errors_total{{operation="save",store="{kind}"}} 0.0' in metrics
    await gateway.stop()
    shown = "\n".join([*gateway.log, *gateway.out, metrics])
    assert "eyJ" not in shown
    assert (tmp_path / "keys").read_text().strip() not in shown


async def test_a_gateway_whose_redis_comes_and_goes_serves_on(
    start: StartGateway, sandbox: Sandbox, tmp_path: Path
) -> None:
    need_redis()
    server = RedisServer(tmp_path / "redis", appendonly="yes").start()
    server.stop()
    store = {"redis": {"url": server.url, "key_file": str(key_file(tmp_path))}}
    try:
        gateway = await start(config(sandbox, store))
        await served(gateway)
        failures = [record for record in gateway.records if record["event"] == "store failed"]
        told = [(record["identity"], record["operation"], record["words"]) for record in failures]
        assert told
        assert len(set(told)) == len(told)
        async with aiohttp.ClientSession() as session, session.get(f"{gateway.admin_url}/status") as answer:
            shown = (await answer.json())["store"]
            assert (shown["last_error_at"] is not None, shown["last_error"]) == (True, told[-1][2])
        server.start()
        await until(lambda: any(":pair" in key for key in server.ask("KEYS", "*")), 10, "the pair in Redis")
        server.stop()
        before = len(grants(sandbox))
        await until(lambda: len(grants(sandbox)) > before + 1, 10, "renewals without a store")
        await served(gateway)
        # What Redis held may be another gateway's to refresh: without it, this one opened a session of its own.
        assert grants(sandbox).count("password") == 2
        server.start()
        await until(lambda: len(sandbox.state.sessions) == 1, 15, "the other session's end")
        await served(gateway)
        assert grants(sandbox).count("password") == 2
    finally:
        server.stop()


async def test_the_command_shows_fingerprints_and_times_and_forgets(
    start: StartGateway, sandbox: Sandbox, store: dict[str, Any], tmp_path: Path
) -> None:
    file = written(config(sandbox, store), tmp_path)
    ended = await command("store", "-c", file)
    assert (ended.code, ended.out, ended.err) == (0, f"store {next(iter(store))}: nothing is stored\n", "")
    gateway = await start(config(sandbox, store))
    await served(gateway)
    await gateway.stop()
    ended = await command("store", "-c", file)
    assert (ended.code, ended.err) == (0, "")
    when = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ, (in )?[\d.]+ (s|min)( ago)?"
    for line in (
        "identity     opentv",
        "fingerprint  [0-9a-f]{8}",
        f"obtained     {when}",
        f"expires      {when}",
        f"refresh      {when}",
        f"session      since {when}",
        "             its absolute end is not told",
    ):
        assert re.search(f"^{line}$", ended.out, re.MULTILINE), (line, ended.out)
    assert "eyJ" not in ended.out
    other = await command("store", "-c", written(config(sandbox, store, scope="profile"), tmp_path))
    assert "identity     opentv (of another configuration of it: not used)" in other.out

    wrong = await command("store", "-c", file, "--forget", "opentvv")
    assert (wrong.code, wrong.out) == (2, "")
    assert "did you mean opentv?" in wrong.err
    ended = await command("store", "-c", file, "--forget", "opentv")
    assert (ended.code, ended.out) == (0, "opentv: forgotten\n")
    assert "a running gateway logs in anew at its next renewal" in ended.err
    ended = await command("store", "-c", file, "--forget", "opentv")
    assert (ended.code, ended.out, ended.err) == (0, "opentv: nothing was stored\n", "")
    gateway = await start(config(sandbox, store))
    await served(gateway)
    assert grants(sandbox).count("password") == 2


async def test_the_command_changes_nothing_when_its_key_file_is_the_wrong_one(
    start: StartGateway, sandbox: Sandbox, any_store: dict[str, Any], tmp_path: Path
) -> None:
    gateway = await start(config(sandbox, any_store))
    await served(gateway)
    (tmp_path / "wrong").mkdir()
    ((kind, keys),) = any_store.items()
    wrong = {kind: keys | {"key_file": str(key_file(tmp_path / "wrong", 5))}}
    ended = await command("store", "-c", written(config(sandbox, wrong), tmp_path))
    assert (ended.code, ended.out) == (1, "")
    assert "which the key file does not hold" in ended.err
    assert not list(tmp_path.rglob("*.corrupt-*"))
    assert not [record for record in gateway.records if record["event"] == "store failed"]
    ended = await command("store", "-c", written(config(sandbox, any_store), tmp_path))
    assert ended.code == 0


async def test_the_command_says_what_memory_and_a_store_that_is_down_are(sandbox: Sandbox, tmp_path: Path) -> None:
    ended = await command("store", "-c", written(config(sandbox, "memory"), tmp_path))
    assert ended.code == 0
    assert "inside the running gateway" in ended.err
    down = {"redis": {"url": "redis://:s3cret@127.0.0.1:1", "key_file": str(key_file(tmp_path))}}
    ended = await command("store", "-c", written(config(sandbox, down), tmp_path))
    assert (ended.code, ended.out) == (1, "")
    assert "Redis at 127.0.0.1:1 cannot be used" in ended.err
    assert "s3cret" not in ended.err


async def test_keys_that_are_none_end_a_start_with_2_and_words(sandbox: Sandbox, tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("c2hvcnQ=\n")
    store = {"file": {"path": str(tmp_path / "tokens.json"), "key_file": str(tmp_path / "keys")}}
    ended = await command("run", "-c", written(config(sandbox, store), tmp_path))
    assert (ended.code, ended.out) == (2, "")
    assert "store.file.key_file: key 1 of" in ended.err
    assert "expected 32 random bytes in base64" in ended.err
    assert "c2hvcnQ" not in ended.err
    assert not (tmp_path / "tokens.json").exists()


async def test_the_status_says_what_is_wrong_with_a_key_file_as_long_as_it_is(tmp_path: Path) -> None:
    """Others may read it; it is gone, or holds no key, which the log tells as well, once."""
    keys = key_file(tmp_path)
    keys.chmod(0o644)
    site: dict[str, Any] = {"routes": [{"path": "/", "upstream": "http://127.0.0.1:1", "identity": None}]}
    site["store"] = {"file": {"path": f"{tmp_path}/tokens/", "key_file": str(keys)}}
    async with running_gateway(site, tmp_path) as gateway, aiohttp.ClientSession() as session:

        async def warned() -> list[str]:
            async with session.get(f"{gateway.admin_url}/status") as answer:
                return [words for words in (await answer.json())["warnings"] if str(keys) in words]

        async def says(part: str) -> bool:
            return [part in words for words in await warned()] == ([True] if part else [])

        assert [f"{keys} is open to others (mode 0644)" in words for words in await warned()] == [True]
        keys.chmod(0o600)
        assert await warned() == []
        keys.chmod(0o660)
        assert ["(mode 0660)" in words for words in await warned()] == [True]
        keys.unlink()
        await until(lambda: says("store.file.key_file: the secret file"), 5.0, "the status to miss the file")
        keys.write_text("garbage\n")
        keys.chmod(0o600)
        await until(lambda: says("expected 32 random bytes"), 5.0, "the status to see garbage")
        key_file(tmp_path)
        await until(lambda: says(""), 5.0, "the status to see a key again")
        told = [(line["event"], line["path"]) for line in gateway.records if "file " in line["event"]]
        assert told == [(f"file {what}", "store.file.key_file") for what in ("unusable", "unusable", "usable again")]


def test_what_is_stored_is_ciphertext_of_its_own_format(tmp_path: Path) -> None:
    """A fixed file of version 1 stays readable: what an update finds on the disk."""
    from tests.support.stores import PAIR, Workshop

    key_file(tmp_path)
    file = Path(__file__).parent / "store-v1.json"
    (tmp_path / "tokens.json").write_bytes(file.read_bytes())
    tree = json.loads(file.read_bytes())
    version, _, data = tree["pairs"]["opentv"].split(".")
    assert (tree["format"], version) == ("opentv-proxy-store/1", "opentv1")
    assert len(urlsafe_b64decode(data)) > 300
    workshop = Workshop({"file": {"path": str(tmp_path / "tokens.json"), "key_file": str(tmp_path / "keys")}})
    assert asyncio.run(workshop.store().load("opentv")) == PAIR
