"""Two gateways on one store, in front of a real Keycloak: they keep one session between them, whatever happens to one
of them or to the store. Keycloak's event list and a balancer in front of it are the witnesses.
"""

import asyncio
import contextlib
import random
import socket
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.test_leaks import Secrets
from tests.support.balancer import Balancer, balancer
from tests.support.fleet import LONG, Fleet, Load, fleet, tell
from tests.support.gateway import until
from tests.support.keycloak import CLIENT, USER, USER_PASSWORD, Realm
from tests.support.redis import RedisServer, need_redis
from tests.support.stores import key_file
from tests.support.verifying_upstream import VerifyingUpstream

pytestmark = pytest.mark.timeout(600)  # the first test on a machine pays for the download and the build

RATE = 100.0
"""Requests a second to each replica."""


class Site:
    """realm, upstream and balancer to be edited or asked by the test; fleet: two gateways, not started yet."""

    def __init__(self, realm: Realm, upstream: VerifyingUpstream, way: Balancer, fleet: Fleet) -> None:
        self.realm = realm
        self.upstream = upstream
        self.balancer = way
        self.fleet = fleet

    async def errors(self) -> list[str]:
        """What Keycloak refused: the events' types."""
        return [event["type"] for event in await self.realm.events() if event["type"].endswith("ERROR")]

    async def one_session(self) -> bool:
        return len(await self.realm.sessions()) == 1

    async def apart(self) -> bool:
        """Whether no two replicas have the same token."""
        found = await self.fleet.fingerprints()
        return len(set(found)) == len(found)


OpenSite = Callable[..., AbstractAsyncContextManager[Site]]


@pytest.fixture
def site(realm: Realm, upstream: VerifyingUpstream, tmp_path: Path) -> OpenSite:
    @contextlib.asynccontextmanager
    async def open_site(store: Mapping[str, Any], **config: Any) -> AsyncIterator[Site]:
        async with balancer(realm.token_url) as way:
            opentv = {
                "system": "keycloak",
                "token_url": way.before(realm.token_url),
                "client_id": CLIENT,
                "username": USER,
                "password": USER_PASSWORD,
                "refresh": {"min_interval": "1s"},
            }
            whole = {
                "identities": {"opentv": opentv},
                "routes": [{"path": "/", "upstream": upstream.url, "identity": "opentv"}],
                "store": store,
                "log": {"level": "debug", "access": "errors"},
                "shutdown": {"drain": "2s"},  # a fifth of it passes when somebody asked whether it is ready
                **config,
            }
            async with fleet([whole, whole], tmp_path, start=False) as made:
                yield Site(realm, upstream, way, made)

    return open_site


@pytest.fixture
def redis_server(tmp_path: Path) -> Iterator[RedisServer]:
    """One that keeps what it has over a restart."""
    need_redis()
    server = RedisServer(tmp_path / "redis", appendonly="yes", appendfsync="always").start()
    yield server
    server.stop()


@pytest.fixture
def redis_store(redis_server: RedisServer, tmp_path: Path) -> dict[str, Any]:
    return {"redis": {"url": redis_server.url, "key_file": str(key_file(tmp_path))}}


@pytest.fixture
def file_store(tmp_path: Path) -> dict[str, Any]:
    return {"file": {"path": f"{tmp_path}/kept/", "key_file": str(key_file(tmp_path))}}


def lose_everything(server: RedisServer) -> None:
    """As a Redis that keeps nothing on disk ends and comes back."""
    server.kill()
    for file in server.folder.rglob("*.aof*"):
        if file.is_file():
            file.unlink()
    server.start()


async def assert_nothing_leaked(here: Site, server: RedisServer, folder: Path) -> int:
    """No secret in what Redis holds and wrote, in the store's files, in logs, metrics, /status and argv; the number of
    secrets looked for."""
    known = Secrets()
    known.add("password", USER_PASSWORD)
    known.add("store's key", (folder / "keys").read_text().strip())
    for name, token in here.balancer.tokens.items():
        known.add(name, token)
    texts = {f"Redis {key}": value.decode("latin-1") for key, value in server.values().items()}
    texts |= {f"file {file.name}": file.read_text("latin-1") for file in server.folder.rglob("*") if file.is_file()}
    for replica in here.fleet.replicas:
        texts[f"{replica.name}, output"] = replica.said()
        texts[f"{replica.name}, argv"] = replica.argv()
        for path in ("/metrics", "/status", "/readyz?verbose", "/"):
            texts[f"{replica.name}, {path}"] = await here.fleet.admin(replica, path)
    assert any(key.endswith(":pair") for key in texts)
    known.assert_none_in(texts)
    return len(known.known)


async def through_kill_freeze_and_restart(here: Site, server: RedisServer, calm: float) -> None:
    """What happens to the second replica and to Redis; the first one is to notice nothing. calm: seconds between.

    All of it while nobody renews: what a holder in the middle of an exchange costs, and an outage, is other tests'.
    """
    survivor, victim = here.fleet.replicas
    await here.fleet.renew(survivor)
    await asyncio.sleep(random.uniform(0.0, 2.0))  # noqa: S311 - a moment, not a secret
    await victim.kill()
    await asyncio.sleep(calm)
    await victim.start()
    await asyncio.sleep(calm)
    await here.fleet.renew(survivor)
    await asyncio.sleep(random.uniform(0.0, 2.0))  # noqa: S311 - a moment, not a secret
    victim.freeze()
    await asyncio.sleep(10.0)
    victim.thaw()
    await asyncio.sleep(calm)
    await here.fleet.renew(survivor)
    server.stop()
    await asyncio.sleep(1.0)
    server.start()
    await asyncio.sleep(calm)
    await here.fleet.renew(survivor)
    assert survivor.away == []


async def test_a_fleet_under_load_survives_a_kill_a_freeze_and_its_redis(
    request: pytest.FixtureRequest,
    site: OpenSite,
    redis_server: RedisServer,
    redis_store: dict[str, Any],
    tmp_path: Path,
) -> None:
    """At the end Redis comes back with nothing: that may cost a login, and nothing else."""
    async with site(redis_store) as here:
        await here.fleet.start()
        await here.fleet.ready()
        began = time.monotonic()
        async with here.fleet.load(RATE) as load:
            await through_kill_freeze_and_restart(here, redis_server, 11.0 if LONG else 0.5)
            assert await here.realm.count("LOGIN") == 1
            lose_everything(redis_server)
            await here.fleet.renew(here.fleet.replicas[0])
            await until(here.one_session, 10.0, "one session")
            took = time.monotonic() - began
        assert_served(load)
        assert await here.errors() == []
        assert max(here.balancer.presented().values()) == 1
        assert here.upstream.refused == []
        logins = await here.realm.count("LOGIN")
        assert logins <= 2
        secrets = await assert_nothing_leaked(here, redis_server, tmp_path)
        for replica in here.fleet.replicas:
            assert await replica.stop() == 0
        assert len(await here.realm.sessions()) == 1
        tell(
            request,
            seconds=round(took),
            requests=[len(load.of(replica)) for replica in here.fleet.replicas],
            slowest=[round(load.slowest(replica), 2) for replica in here.fleet.replicas],
            refreshes=await here.realm.count("REFRESH_TOKEN"),
            logins=logins,
            secrets=secrets,
        )


def assert_served(load: Load) -> None:
    words = Counter(f"{asked.replica.name} {asked.status} {asked.words}" for asked in load.failed)
    assert not words, words.most_common(5)
    assert len(load.asked) > 100


def shared_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.parametrize("kind", ["redis", "file"])
async def test_replicas_that_start_together_or_are_revoked_together_log_in_once(
    request: pytest.FixtureRequest, site: OpenSite, kind: str
) -> None:
    """Those with the file store are two processes on one port."""
    store = request.getfixturevalue(f"{kind}_store")
    listen = {"address": f"127.0.0.1:{shared_port()}", "reuse_port": True}
    async with site(store, **({"listen": listen} if kind == "file" else {})) as here:
        await here.realm.patch(accessTokenLifespan=300)
        await here.fleet.start()
        first, second = here.fleet.replicas
        answers = await asyncio.gather(*(here.fleet.ask(replica) for replica in [first, second] * 100))
        assert set(answers) == {200}
        assert await here.fleet.agreed(1.0) < 1.0
        assert [event["type"] for event in await here.realm.events()] == ["LOGIN"]

        here.upstream.dead_sessions.add(here.upstream.admitted[-1].claims["sid"])
        await here.realm.logout_user()
        answers = await asyncio.gather(*(here.fleet.ask(replica) for replica in [first, second] * 100))
        assert set(answers) == {200}
        await here.fleet.agreed(1.0)
        assert await here.realm.count("LOGIN") == 2
        assert await here.realm.count("REFRESH_TOKEN", "REFRESH_TOKEN_ERROR") <= 1
        assert await here.realm.count("LOGIN_ERROR", "USER_DISABLED_BY_TEMPORARY_LOCKOUT") == 0
        assert not await here.realm.locked()
        assert await here.one_session()
        assert await first.stop() == 0
        assert await here.fleet.ask(second) == 200
        assert await second.stop() == 0
        assert await here.realm.count("LOGOUT") == 0
        assert await here.one_session()


async def test_with_redis_down_each_has_a_session_of_its_own_and_with_it_back_there_is_one(
    request: pytest.FixtureRequest,
    site: OpenSite,
    redis_server: RedisServer,
    redis_store: dict[str, Any],
    tmp_path: Path,
) -> None:
    async with site(redis_store) as here:
        await here.fleet.start()
        await here.fleet.ready()
        await here.fleet.agreed(2.0)
        async with here.fleet.load(RATE if LONG else RATE / 4) as load:
            redis_server.stop()
            shared = set(here.balancer.tokens.values())
            before = here.balancer.presented()
            await until(here.apart, 10.0, "a session each")
            await asyncio.sleep(30.0 if LONG else 3.0)  # longer than the former token lives, in any case
            assert await here.apart()
            assert not shared & (here.balancer.presented() - before).keys()
            assert await here.realm.count("LOGIN") == 3
            redis_server.start()
            agreed = await here.fleet.agreed(3.0)
            alone = await until(here.one_session, 10.0, "one session")
            await here.fleet.renew(here.fleet.replicas[1])
        assert_served(load)
        # Without the store's lock both may log in at the same moment, and Keycloak lets one in at a time.
        met = await here.errors()
        assert met in ([], ["LOGIN_ERROR"])
        assert max(here.balancer.presented().values()) == 1
        assert here.upstream.refused == []
        assert await here.realm.count("LOGIN") == 3
        assert await here.one_session()
        secrets = await assert_nothing_leaked(here, redis_server, tmp_path)
        tell(
            request,
            requests=len(load.asked),
            met=len(met),
            agreed_after=round(agreed, 2),
            one_session_after=round(agreed + alone, 2),
            secrets=secrets,
        )
