"""The keeper as it is built for production, before the sandbox: real sockets, real clocks, short lives."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from proxy.config import KeycloakIdentity
from proxy.errors import TokenUnavailableError
from proxy.metrics import Metrics
from proxy.sandbox import Fault, Sandbox, SandboxSettings
from proxy.tokens.factory import build_keeper
from proxy.tokens.keeper import Keeper
from proxy.tokens.source import Credential
from proxy.tokens.stores.memory import MemoryStore
from tests.support.gateway import until
from tests.support.tokens import Journal

Build = Callable[..., Keeper]


@contextlib.asynccontextmanager
async def scene(settings: SandboxSettings | None = None, **changes: Any) -> AsyncIterator[tuple[Sandbox, Keeper]]:
    """A sandbox and a keeper that has begun to keep a token of it."""
    async with Sandbox(settings) as sandbox:
        values = {
            "system": "keycloak",
            "token_url": sandbox.token_url,
            "client_id": sandbox.client_id,
            "username": sandbox.username,
            "password": sandbox.password,
            "timeout": "2s",
        }
        identity = KeycloakIdentity.model_validate(values | changes)
        keeper = build_keeper("opentv", identity, store=MemoryStore(), metrics=Metrics("test"), log=Journal())
        await keeper.start()
        yield sandbox, keeper
        await keeper.close()


async def replacement(keeper: Keeper, credential: Credential) -> Credential | None:
    outcome = keeper.rejected(credential)
    return outcome if outcome is None or isinstance(outcome, Credential) else await outcome


async def test_a_thousand_cold_requests_are_one_login_and_closing_leaves_no_session() -> None:
    async with scene() as (sandbox, keeper):
        credentials = await asyncio.gather(*(keeper.obtain() for _ in range(1000)))
        assert len({credential.fingerprint for credential in credentials}) == 1
        assert sandbox.state.counters["token_requests"] == 1
        assert len(sandbox.state.sessions) == 1
    assert sandbox.state.counters["logouts"] == 1
    assert len(sandbox.state.sessions) == 0


async def test_short_tokens_are_rotated_without_a_gap() -> None:
    settings = SandboxSettings(access_life=3)
    async with scene(settings, refresh={"min_interval": "500ms"}) as (sandbox, keeper):
        await keeper.obtain()
        looks: list[bool] = []

        def rotated() -> bool:
            looks.append(keeper.usable())
            return sandbox.state.counters["refreshes"] >= 3

        await until(rotated, 20, "three rotations")
        assert all(looks)
        assert sandbox.state.counters["logins"] == 1
        assert sandbox.state.counters["token_refusals"] == 0


async def test_two_hundred_rejections_are_one_refresh() -> None:
    async with scene() as (sandbox, keeper):
        old = await keeper.obtain()
        new = await asyncio.gather(*(replacement(keeper, old) for _ in range(200)))
        assert {id(credential) for credential in new} == {id(keeper.current())}
        assert sandbox.state.counters["refreshes"] == 1


async def test_a_rotation_whose_answer_is_lost_is_cured_by_one_login_within_the_same_wait() -> None:
    async with scene() as (sandbox, keeper):
        old = await keeper.obtain()
        sandbox.state.faults["token"].append(Fault("rotate-then-reset"))
        new = await replacement(keeper, old)
        assert new is not None
        assert new.fingerprint != old.fingerprint
        grants = [call.grant for call in sandbox.state.token_calls]
        assert grants == ["password", "refresh_token", "refresh_token", "password"]


async def test_a_stopped_provider_costs_nothing_while_the_token_lives_and_is_found_again_within_5_s() -> None:
    async with scene(SandboxSettings(access_life=3)) as (sandbox, keeper):
        await keeper.obtain()
        port = sandbox.port
        await sandbox.stop()
        await until(lambda: keeper.current() is None, 5, "the token's end")
        await until(lambda: keeper.status()["consecutive_failures"] != 0, 3, "a failed renewal")
        for _ in range(20):
            with pytest.raises(TokenUnavailableError, match="connection"):
                await keeper.obtain()
        await sandbox.start(port=port)
        assert await until(keeper.usable, 5, "back within 5 s") < 5


async def test_sessions_with_an_absolute_end_are_replaced_before_it() -> None:
    settings = SandboxSettings(access_life=3, refresh_life=4, session_max=7)
    async with scene(settings, refresh={"min_interval": "500ms"}) as (sandbox, keeper):
        await keeper.obtain()
        looks: list[bool] = []

        def replaced() -> bool:
            looks.append(keeper.usable())
            return sandbox.state.counters["logins"] >= 2

        await until(replaced, 20, "a second login")
        assert all(looks)
        assert sandbox.state.counters["token_refusals"] == 0
