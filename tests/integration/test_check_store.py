"""What ``check`` says of the token store and of a seed; it leaves both, and a gateway that uses them, as they are."""

import asyncio
import dataclasses
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from proxy.checks.finding import Finding
from proxy.checks.store import opened
from proxy.config import parse_config
from proxy.sandbox import Sandbox, SandboxSettings
from tests.support.checks import Config, Told, document, documented, keycloak
from tests.support.gateway import running_gateway, until
from tests.support.redis import RedisServer, need_redis
from tests.support.stores import PAIR, Workshop, key_file, key_line

PASSWORD = "crm-4711"
UNREADABLE = '{"format": "opentv-proxy-store/1", "pairs": {"opentv": "opentv1.00000000.AAAA"}}'
DAMAGED = '{"format": "opentv-proxy-store/1", "pairs"'


def site(sandbox: Sandbox, store: object, **changes: Any) -> Config:
    route = {"path": "/", "upstream": sandbox.url, "identity": "opentv"}
    return {"identities": {"opentv": keycloak(sandbox) | changes}, "routes": [route], "store": store}


@pytest.fixture(scope="module")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    need_redis()
    server = RedisServer(tmp_path_factory.mktemp("redis")).start()
    server.ask("ACL", "SETUSER", "crm", "on", f">{PASSWORD}", "~*", "+@read", "+@connection")
    yield server
    server.stop()


def in_file(folder: Path, content: str | None = None, mode: int = 0o600) -> Config:
    keys = key_file(folder)
    keys.chmod(mode)
    if content is not None:
        (folder / "tokens").mkdir()
        (folder / "tokens/opentv.json").write_text(content)
    return {"file": {"path": f"{folder}/tokens/", "key_file": str(keys)}}


def no_folder(folder: Path) -> Config:
    (folder / "tokens").write_text("a file")
    return in_file(folder)


def in_redis(folder: Path, url: str) -> Config:
    return {"redis": {"url": url, "key_file": str(key_file(folder))}}


# Without a Redis: each of these is one run.
FILES: dict[str, Callable[[Path], Config]] = {
    "file: nothing is stored yet": in_file,
    "file: others may read the key file": lambda folder: in_file(folder, mode=0o644),
    "file: a file where the folder should be": no_folder,
    "file: sealed with another key": lambda folder: in_file(folder, UNREADABLE),
    "file: damaged": lambda folder: in_file(folder, DAMAGED),
    "redis: nothing listens": lambda folder: in_redis(folder, "redis://127.0.0.1:1/0"),
}
REDIS: dict[str, str] = {
    "redis: it can be used": "redis://127.0.0.1:PORT/0",
    "redis: a wrong password": "redis://crm:wrong-4711@127.0.0.1:PORT/0",
    "redis: a user without the right": f"redis://crm:{PASSWORD}@127.0.0.1:PORT/0",
}
SEEDS: dict[str, Callable[[Sandbox, Sandbox], str]] = {
    "the seed is good": lambda here, _: here.refresh_token(client_id="ua-grant", offline=True),
    "the seed has expired": lambda here, _: expired(here),
    "the seed is of another client": lambda here, _: here.refresh_token(client_id="crm_client"),
    "the seed is of another address": lambda _, other: other.refresh_token(client_id="ua-grant"),
    "the seed is opaque": lambda *_: "opaque-seed-4711",
    "the seed is an access token": lambda *_: "e30.eyJ0eXAiOiJCZWFyZXIifQ.e30",
}
SITUATIONS = (*FILES, *REDIS, *SEEDS, "the seed is spent, and its session is stored")


def expired(sandbox: Sandbox) -> str:
    """A seed of long ago."""
    sandbox.state.clock_shift = -40 * 86400
    seed = sandbox.refresh_token(client_id="ua-grant")
    sandbox.state.clock_shift = 0
    return seed


def seeded(sandbox: Sandbox, seed: str, store: object = "memory") -> Config:
    config = site(sandbox, store)
    identity = {"system": "keycloak", "token_url": sandbox.token_url, "client_id": "ua-grant"}
    config["identities"]["opentv"] = {**identity, "grant": "refresh_token", "refresh_token": seed}
    return config


async def said(config: Config, folder: Path, situation: str) -> Told:
    """What a run says that ends as the words of this situation let expect."""
    code = 3 if documented()[situation].severity == "problem" else 0
    return Told((await document(config, folder, code))["findings"], (0, 0, 0))


async def all_of(configs: dict[str, Config], factory: pytest.TempPathFactory) -> dict[str, Told]:
    """Two runs at a time, which is what the machines that run the tests have processors for."""
    two = asyncio.Semaphore(2)

    async def one(situation: str) -> Told:
        async with two:
            return await said(configs[situation], factory.mktemp("check"), situation)

    return dict(zip(configs, await asyncio.gather(*map(one, configs)), strict=True))


async def at_once(configs: dict[str, Config], folder: Path) -> dict[str, Told]:
    """One run with the identity of each."""
    names = {name: f"i{number}" for number, name in enumerate(configs)}
    whole = dict(next(iter(configs.values())))
    whole["identities"] = {names[name]: config["identities"]["opentv"] for name, config in configs.items()}
    whole["routes"] = [{**whole["routes"][0], "identity": None}]
    lines = (await document(whole, folder, 3))["findings"]
    return {
        name: Told([line for line in lines if line["subject"] == f"identity {short}"], (0, 0, 0))
        for name, short in names.items()
    }


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Told]:
    async def run() -> dict[str, Told]:
        async with Sandbox() as here, Sandbox(SandboxSettings(refresh_life=60)) as other:
            configs = {name: site(here, make(tmp_path_factory.mktemp("store"))) for name, make in FILES.items()}
            seeds = {name: seeded(here, make(here, other)) for name, make in SEEDS.items()}
            return await all_of(configs, tmp_path_factory) | await at_once(seeds, tmp_path_factory.mktemp("seeds"))

    return asyncio.run(run())


@pytest.mark.parametrize("situation", [*FILES, *SEEDS])
def test_a_store_or_a_seed_that_cannot_be_used_is_told_in_words_to_act_on(
    situation: str, runs: dict[str, Told]
) -> None:
    assert runs[situation].says(documented()[situation]), runs[situation]


def test_a_seed_is_read_and_never_presented(runs: dict[str, Told]) -> None:
    for situation in SEEDS:
        findings = [line["finding"] for line in runs[situation].lines]
        assert "no login, no refresh: the seed refresh token is not presented, only read" in findings
        assert not [finding for finding in findings if "logged in" in finding or "refreshed" in finding]


@pytest.mark.parametrize("situation", REDIS)
async def test_a_redis_is_asked_whether_it_takes_a_command(
    situation: str, redis_server: RedisServer, tmp_path: Path
) -> None:
    url = REDIS[situation].replace("PORT", str(redis_server.port))
    async with Sandbox() as sandbox:
        config = site(sandbox, in_redis(tmp_path, url))
        one = await said(config, tmp_path, situation)
    assert one.says(documented()[situation]), one
    assert not [word for word in (PASSWORD, "wrong-4711") if word in str(one)]
    assert redis_server.values() == {}


@pytest.fixture
def passable() -> Iterator[Path]:
    """A folder that any user may look into."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def test_a_folder_that_this_user_may_not_write_is_a_problem(passable: Path) -> None:
    place = passable / "tokens"
    place.mkdir()
    place.chmod(0o555)
    config = parse_config({"store": in_file(passable), "routes": [{"path": "/", "upstream": "http://a"}]})
    told: list[Finding] = []
    root = os.geteuid() == 0
    if root:
        (passable / "keys").chmod(0o644)
        os.seteuid(65534)  # whom no permission is waived for
    try:
        opened(config, told.append)
    finally:
        if root:
            os.seteuid(0)
        place.chmod(0o755)
    assert [one.finding for one in told if one.severity == "problem"] == [f"{place} cannot be written"]


async def test_a_gateway_that_shares_the_store_keeps_its_session(tmp_path: Path) -> None:
    """The store is the same byte for byte, the sandbox has seen one session more and one less."""
    async with Sandbox() as sandbox:
        config = site(sandbox, in_file(tmp_path))
        (tmp_path / "gateway").mkdir()
        async with running_gateway(config, tmp_path / "gateway") as gateway:
            file = tmp_path / "tokens/opentv.json"
            await until(file.exists, 10, "a stored pair")
            before, files = file.read_bytes(), sorted((tmp_path / "tokens").iterdir())
            sessions = set(sandbox.state.sessions)
            begun = len(sandbox.state.token_calls)
            one = await said(config, tmp_path, "file: nothing is stored yet")
            made = [call.grant or call.operation for call in list(sandbox.state.token_calls)[begun:]]
            assert made == ["password", "refresh_token", "logout"]
            assert (file.read_bytes(), sorted((tmp_path / "tokens").iterdir())) == (before, files)
            assert set(sandbox.state.sessions) == sessions
            assert sandbox.state.counters["reused_refresh_tokens"] == 0
            assert not [record for record in gateway.records if record["event"] == "store failed"]
    held = [line for line in one.lines if line["subject"] == "store"]
    assert held[0]["evidence"].startswith("opentv: token ")


async def test_a_spent_seed_is_no_problem_where_its_session_is_stored(tmp_path: Path) -> None:
    situation = "the seed is spent, and its session is stored"
    async with Sandbox() as sandbox:
        seed = sandbox.refresh_token(client_id="ua-grant")
        config = seeded(sandbox, seed, in_file(tmp_path))
        (tmp_path / "gateway").mkdir()
        async with running_gateway(config, tmp_path / "gateway"):
            await until((tmp_path / "tokens/opentv.json").exists, 10, "a stored pair")
        calls = len(sandbox.state.token_calls)
        one = await said(config, tmp_path, situation)
        assert len(sandbox.state.token_calls) == calls
    assert one.says(documented()[situation]), one


async def test_what_is_stored_for_another_user_is_said_and_left(tmp_path: Path) -> None:
    store = in_file(tmp_path)
    workshop = Workshop(store)
    await workshop.store().save("opentv", dataclasses.replace(PAIR, obtained=time.time()))
    await workshop.close()
    async with Sandbox() as sandbox:
        ended = await document(site(sandbox, store), tmp_path, 0)
    assert "of another endpoint, client or user" in json.dumps(ended)
    assert PAIR.access not in json.dumps(ended)
    assert key_line() not in json.dumps(ended)
