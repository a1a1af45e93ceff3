"""Two gateways on one store, and what may go wrong between them and it: holders that die or freeze at the worst moment,
answers that are lost, stores that are cut off, forget, or come back with something old. A sandbox is the provider, a
balancer in front of it the witness.

The first replica renews earlier than the second, so it is the one whom things happen to.
"""

import asyncio
import contextlib
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import trustme

from proxy.sandbox import Sandbox, SandboxSettings
from proxy.tokens.stores.base import DEAD_HOLDER
from tests.support.balancer import LOSSES, Balancer, Loss, balancer
from tests.support.cable import Cable, cable
from tests.support.fleet import LONG, POLL, Fleet, Load, fleet, tell
from tests.support.gateway import until
from tests.support.redis import RedisServer, need_redis
from tests.support.stores import key_file

pytestmark = pytest.mark.timeout(300)

LIFE = 4
"""Seconds that a token lives."""
REFRESH = ({"ahead": 0.5, "min_interval": "500ms"}, {"ahead": 0.3, "min_interval": "500ms"})
RATE = 10.0
PAIR, SAVED = "opentv-proxy:{opentv}:pair", "opentv-proxy:{opentv}:saved"


class Site:
    """sandbox: provider and platform. balancer: between the gateways and the provider's token endpoint, if any."""

    def __init__(self, sandbox: Sandbox, way: Balancer | None, fleet: Fleet, load: Load) -> None:
        self.sandbox = sandbox
        self._way = way
        self.fleet = fleet
        self.load = load
        self.first, *others = fleet.replicas
        self.second = others[0] if others else self.first

    @property
    def balancer(self) -> Balancer:
        assert self._way is not None
        return self._way

    @property
    def logins(self) -> int:
        return self.sandbox.state.counters["logins"]

    @property
    def reused(self) -> int:
        """How often a spent refresh token was presented."""
        return self.sandbox.state.counters["reused_refresh_tokens"]

    @property
    def most(self) -> int:
        """How often the refresh token was presented that was presented most often."""
        return max(self.balancer.presented().values(), default=0)

    async def renewed(self, seconds: float = LIFE + 4.0) -> float:
        """Wait until a new pair has come and all have it; the seconds that took."""
        before = await self.fleet.fingerprints()

        async def there() -> bool:
            await asyncio.sleep(POLL)
            found = await self.fleet.fingerprints()
            return len(set(found)) == 1 and found[0] not in before

        return await until(there, seconds, "all have a new token")

    async def second_renewed(self, old: str | None, seconds: float) -> float:
        """Wait until the second replica has another token; the seconds that took."""

        async def there() -> bool:
            await asyncio.sleep(POLL)
            return bool((await self.fleet.status(self.second))["fingerprint"] != old)

        return await until(there, seconds, "the second replica has another token")

    async def one_session(self, seconds: float) -> float:
        """Wait until the provider has one session, of which all have the same token; the seconds that took. A session
        that the provider itself ended, because of a reuse, does not count."""

        async def alone() -> bool:
            await asyncio.sleep(POLL)
            alive = [session for session in self.sandbox.state.sessions.values() if not session.detached]
            return len(alive) == 1 and len(set(await self.fleet.fingerprints())) == 1

        return await until(alone, seconds, "one session for all")

    def well(self) -> None:
        """Nobody was refused or locked, and no request failed."""
        words = Counter(f"{asked.replica.name} {asked.status} {asked.words}" for asked in self.load.failed)
        assert not words, words.most_common(5)
        assert self.sandbox.state.counters["lockouts"] == 0
        assert self.load.asked


@contextlib.asynccontextmanager
async def site(
    folder: Path,
    stores: Sequence[Mapping[str, Any] | str],
    settings: SandboxSettings | None = None,
    **identity: Any,
) -> AsyncIterator[Site]:
    """Gateways with these stores, asked at a steady rate from when all of them serve."""
    folder.mkdir(exist_ok=True)
    async with Sandbox(settings or SandboxSettings(access_life=LIFE)) as sandbox, balancer(sandbox.url) as way:
        token_url = way.before(sandbox.token_url)
        configs = [
            config(sandbox, store, token_url=token_url, refresh=refresh, **identity)
            for store, refresh in zip(stores, REFRESH, strict=False)
        ]
        async with fleet(configs, folder) as made:
            await made.ready()
            async with made.load(RATE) as load:
                yield Site(sandbox, way, made, load)


def config(sandbox: Sandbox, store: Mapping[str, Any] | str, **identity: Any) -> dict[str, Any]:
    opentv = {
        "system": "keycloak",
        "client_id": sandbox.client_id,
        "username": sandbox.username,
        "password": sandbox.password,
        **identity,
    }
    return {
        "identities": {"opentv": opentv},
        "routes": [{"path": "/", "upstream": sandbox.url, "identity": "opentv"}],
        "store": store,
        "log": {"level": "debug", "access": "errors"},
    }


@contextlib.asynccontextmanager
async def a_redis(folder: Path, **options: str) -> AsyncIterator[RedisServer]:
    need_redis()
    folder.mkdir(exist_ok=True)
    server = RedisServer(folder / "redis", **options)
    await asyncio.to_thread(server.start)
    try:
        yield server
    finally:
        await asyncio.to_thread(server.stop)


def in_redis(port: int, folder: Path) -> dict[str, Any]:
    return {"redis": {"url": f"redis://127.0.0.1:{port}/0", "key_file": str(key_file(folder))}}


def in_files(folder: Path) -> dict[str, Any]:
    return {"file": {"path": f"{folder}/kept/", "key_file": str(key_file(folder))}}


Back = Callable[[], object]
Away = Callable[[RedisServer, Cable], Back]


@contextlib.asynccontextmanager
async def sharing(folder: Path, kind: str) -> AsyncIterator[Sequence[Mapping[str, Any] | str]]:
    """Two sections for one store; one for a gateway that keeps its tokens in memory."""
    folder.mkdir(exist_ok=True)
    if kind == "memory":
        yield ["memory"]
    elif kind == "file":
        yield [in_files(folder)] * 2
    else:
        async with a_redis(folder) as server:
            yield [in_redis(server.port, folder)] * 2


async def together(**scenes: Awaitable[None]) -> None:
    """All of them at the same time: each waits more than it works. A failure names its scene."""

    async def named(name: str, scene: Awaitable[None]) -> None:
        try:
            await scene
        except Exception as exc:
            exc.add_note(f"in the scene: {name}")
            raise

    async with asyncio.TaskGroup() as group:
        for name, scene in scenes.items():
            group.create_task(named(name, scene))


# -- all is well --------------------------------------------------------------------------------------------------


async def test_what_one_obtained_the_other_has_within_a_second(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    async def scene(kind: str) -> None:
        long = SandboxSettings(access_life=600)
        async with sharing(tmp_path / kind, kind) as stores, site(tmp_path / kind, stores, long) as here:
            lags = [await here.fleet.renew(here.first) for _ in range(100 if LONG else 5)]
            here.well()
            assert max(lags) < 1.0, lags
            assert (here.logins, here.most, here.reused) == (1, 1, 0)
            tell(request, store=kind, rotations=len(lags), adopted_after_at_most=round(max(lags), 3))

    await together(redis=scene("redis"), file=scene("file"))


async def test_a_token_that_is_refused_everywhere_is_refreshed_once(tmp_path: Path) -> None:
    async def scene(kind: str) -> None:
        long = SandboxSettings(access_life=60)
        async with sharing(tmp_path / kind, kind) as stores, site(tmp_path / kind, stores, long) as here:
            for number in (1, 2):
                here.sandbox.state.revoke_access_tokens()
                answers = await asyncio.gather(*(here.fleet.ask(each) for each in [here.first, here.second] * 50))
                assert set(answers) == {200}
                await here.fleet.agreed(1.0)
                assert here.sandbox.state.counters["refreshes"] == number
            here.well()
            assert (here.logins, here.reused) == (1, 0)

    await together(redis=scene("redis"), file=scene("file"))


# -- holders ------------------------------------------------------------------------------------------------------


async def test_a_holder_that_dies_or_freezes_in_an_exchange_costs_at_most_one_login_and_no_request(
    request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    async def scene(name: str, kind: str, seconds: float) -> None:
        """seconds: within which the other has a new token."""
        folder = tmp_path / name
        async with sharing(folder, kind) as stores, site(folder, stores) as here:
            released = await refresh_under_way(here)
            (old,) = set(await here.fleet.fingerprints())
            if name == "frozen":
                here.first.freeze()
                released.set()  # what it will find when it wakes up
            else:
                await here.first.kill()
            took = await here.second_renewed(old, seconds)
            if name == "frozen":
                here.first.thaw()
            else:
                released.set()
                await here.first.start()
            await here.fleet.agreed(5.0)
            logins = here.logins
            await here.one_session(10.0)
            await here.fleet.renew(here.second)
            here.well()
            assert here.logins == logins <= 2
            assert here.most <= 2
            assert here.reused <= 1
            tell(
                request, scene=f"{name}, {kind}", other_renews_after=round(took, 2), presented=here.most, logins=logins
            )

    await together(
        killed_redis=scene("killed", "redis", DEAD_HOLDER + 2.0),
        frozen_redis=scene("frozen", "redis", DEAD_HOLDER + 2.0),
        killed_file=scene("killed on one host", "file", 2.0),
        frozen_before=frozen_in_a_handshake(tmp_path / "handshake"),
    )


async def refresh_under_way(here: Site) -> asyncio.Event:
    """Wait until the first replica has presented the refresh token; the event that lets the answer go."""
    await here.fleet.agreed(5.0)
    released = here.balancer.hold()
    before = len(here.balancer.grants("refresh_token"))
    await until(
        lambda: sum(bool(call.status) for call in here.balancer.grants("refresh_token")) > before,
        2 * LIFE,
        "the refresh whose answer is held",
    )
    return released


async def frozen_in_a_handshake(folder: Path) -> None:
    """The last moment before the refresh token leaves: what is presented when it thaws, nobody else presented."""
    folder.mkdir()
    sandbox, context, trust = over_tls(folder)
    await sandbox.start(ssl_context=context)
    try:
        async with cable(sandbox.port) as way, sharing(folder, "redis") as stores:
            token_url = sandbox.token_url.replace(str(sandbox.port), str(way.port))
            configs = [config(sandbox, stores[0], token_url=token_url, refresh=refresh, **trust) for refresh in REFRESH]
            for each in configs:
                each["routes"][0] |= trust
            async with fleet(configs, folder) as made:
                await made.ready()
                async with made.load(RATE) as load:
                    here = Site(sandbox, None, made, load)
                    (old,) = set(await here.fleet.fingerprints())
                    opened = way.opened
                    way.hold()
                    await until(lambda: way.opened > opened, LIFE, "a connection for the refresh")
                    await asyncio.sleep(0.2)  # until its first words are on their way
                    here.first.freeze()
                    way.mend(held=False)
                    await here.second_renewed(old, DEAD_HOLDER + 2.0)
                    way.mend()
                    here.first.thaw()
                    await here.fleet.agreed(3.0)
                    await here.one_session(10.0)
                    calls = [call for call in sandbox.state.token_calls if call.grant == "refresh_token"]
                    assert max(Counter(call.form["refresh_token"] for call in calls).values()) == 1
                    assert here.logins <= 2
                    here.well()
    finally:
        await sandbox.stop()


def over_tls(folder: Path) -> tuple[Sandbox, ssl.SSLContext, dict[str, Any]]:
    """A sandbox that is not started yet, what to start it with, and the ``tls`` of whoever trusts it."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    return Sandbox(SandboxSettings(access_life=LIFE)), context, {"tls": {"ca_file": str(folder / "ca.pem")}}


# -- answers that are lost ----------------------------------------------------------------------------------------


async def test_a_lost_answer_costs_at_most_one_further_use_and_one_login(
    request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """For one gateway alone, and for two on one store: then the further use may be either's."""

    async def scene(loss: Loss, kind: str) -> None:
        folder = tmp_path / f"{loss}-{kind}"
        long = SandboxSettings(access_life=8)  # the silence of one answer, and the pause after it, are a part of it
        timeout = "1500ms" if loss == "silence" else "10s"
        async with sharing(folder, kind) as stores, site(folder, stores, long, timeout=timeout) as here:
            await here.fleet.agreed(5.0)
            here.balancer.losses.append(loss)
            await until(lambda: not here.balancer.losses, 10.0, "the lost answer")
            (lost,) = [call for call in here.balancer.grants("refresh_token") if not call.passed]
            await until(lambda: here.logins == 2, 8.0, "the login")
            await until(lambda: len(here.balancer.presented()) > 1, 8.0, "the next refresh")
            await here.fleet.agreed(2.0)
            here.well()
            presented = here.balancer.presented()
            uses = presented.pop(lost.refresh_token)
            assert uses <= 2
            assert set(presented.values()) == {1}
            assert here.logins == 2
            assert here.reused <= 1
            tell(request, lost=loss, store=kind, uses=uses, logins=here.logins)

    scenes = [("memory", loss) for loss in LOSSES] + [("redis", loss) for loss in LOSSES]
    scenes += [("file", loss) for loss in (LOSSES if LONG else LOSSES[:1])]
    await together(**{f"{loss} {kind}": scene(loss, kind) for kind, loss in scenes})


# -- stores that go and come --------------------------------------------------------------------------------------


def cut(_server: RedisServer, way: Cable) -> Back:
    way.cut()
    return way.mend


def deaf(_server: RedisServer, way: Cable) -> Back:
    way.hold()
    return way.mend


def frozen(server: RedisServer, _way: Cable) -> Back:
    server.freeze()
    return server.thaw


def forgetful(server: RedisServer, _way: Cable) -> Back:
    server.stop()
    return server.start


async def test_a_store_that_goes_or_forgets_costs_no_request_and_ends_in_one_session(
    request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """One replica is cut off or hears nothing; Redis hears nobody, or comes back with nothing. Whoever cannot reach the
    store presents nothing that is shared. And a Redis that has lost the newest pair, or all, as after a fail-over."""

    async def gone(away: Away, alone: int, *, ghost: bool = False) -> None:
        """away: makes the store go, and gives what brings it back. alone: how many then have a session of their own.
        ghost: a command that was held up may take the lock when nobody waits for it any more, which costs a login."""
        folder = tmp_path / away.__name__
        async with a_redis(folder) as server, cable(server.port) as way:
            stores = [in_redis(way.port, folder), in_redis(server.port, folder)]
            async with site(folder, stores) as here:
                await here.fleet.agreed(5.0)
                back = away(server, way)
                await until(lambda: here.logins == 1 + alone, 2 * LIFE, "sessions of their own")
                await asyncio.sleep(LIFE + 1.0)
                assert len(set(await here.fleet.fingerprints())) == 2
                assert here.logins == 1 + alone
                back()
                took = await here.one_session(DEAD_HOLDER + 8.0 if ghost else 8.0)
                await here.fleet.renew(here.second)
                here.well()
                assert (here.most, here.reused) == (1, 0)
                assert here.logins <= 1 + alone + ghost
                tell(request, away=away.__name__, one_session_after=round(took, 2))

    async def lost(name: str) -> None:
        folder = tmp_path / name
        async with a_redis(folder) as server, site(folder, [in_redis(server.port, folder)] * 2) as here:
            await here.fleet.agreed(5.0)
            old = server.ask("GET", PAIR).decode()
            await here.fleet.renew(here.first)
            if name == "the newest":
                server.ask("SET", PAIR, old)
                server.ask("PUBLISH", SAVED, "")
            else:
                server.ask("FLUSHALL")
            await here.renewed()
            await here.fleet.renew(here.second)
            await here.one_session(8.0)
            here.well()
            assert here.logins <= 2
            assert (here.most, here.reused) == (1, 0)
            tell(request, lost=name, logins=here.logins)

    scenes = {"cut": gone(cut, 1), "forgetful": gone(forgetful, 2)}
    if LONG:
        scenes |= {"deaf": gone(deaf, 1, ghost=True), "frozen": gone(frozen, 2, ghost=True)}
    await together(**scenes, newest=lost("the newest"), all=lost("all"))
