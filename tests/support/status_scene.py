"""One gateway process with an identity in each state, to be looked at on its status page."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import aiohttp

from proxy.sandbox import Fault, Sandbox, SandboxSettings
from tests.support.gateway import Gateway, running_gateway, until

# A provider's words, or those of somebody who can make it say them.
HOSTILE: Final = '<script>document.title="taken over"</script><img src=x onerror=document.title="taken-over">'
STATES: Final = {"crm": "fresh", "billing": "stale", "legacy": "suspended", "archive": "expired"}


@dataclass
class StatusScene:
    """gateway: the process. well: the provider of ``crm`` and ``legacy``. lame: of ``billing``, it gave one token
    and has only HOSTILE words since. gone: of ``archive``, it gave a short one and closes every connection since."""

    gateway: Gateway
    well: Sandbox
    lame: Sandbox
    gone: Sandbox
    refusal: Fault
    http: aiohttp.ClientSession

    @property
    def url(self) -> str:
        """The status page's."""
        return f"{self.gateway.admin_url}/"

    async def status(self) -> Any:
        """The document."""
        async with self.http.get(f"{self.gateway.admin_url}/status") as answer:
            return await answer.json()

    async def spoil(self) -> None:
        """``billing`` and ``archive`` get no more tokens. Returns when every identity is in its state."""
        self.lame.state.add_fault("token", self.refusal)
        self.gone.state.add_fault("token", Fault("close", times=None))

        async def settled() -> bool:
            identities = (await self.status())["identities"]
            return {name: identity["state"] for name, identity in identities.items()} == STATES

        await until(settled, 20, f"the states {STATES}")

    async def ask(self, path: str) -> int:
        """A request of the CRM."""
        async with self.http.get(f"{self.gateway.url}{path}") as answer:
            return answer.status


def _identity(sandbox: Sandbox, **more: Any) -> dict[str, Any]:
    return {
        "system": "keycloak",
        "token_url": sandbox.token_url,
        "client_id": sandbox.client_id,
        "username": sandbox.username,
        "password": sandbox.password,
        "logout": False,
        **more,
    }


def _config(well: Sandbox, lame: Sandbox, gone: Sandbox) -> dict[str, Any]:
    early = {"ahead": 0.99, "ahead_max": "10m", "min_interval": "1s", "jitter": 0}
    identities = {
        "crm": _identity(well),
        "billing": _identity(lame, refresh=early),
        "legacy": _identity(well, password="wrong"),
        "archive": _identity(gone, timeout="2s"),
    }
    paths = {"/": "crm", "/billing": "billing", "/legacy": "legacy", "/archive": "archive"}
    routes: list[dict[str, Any]] = [
        {"path": path, "upstream": well.url, "identity": name} for path, name in paths.items()
    ]
    routes[1] = {**routes[1], "tls": {"verify": False}}
    return {"identities": identities, "routes": routes}


@contextlib.asynccontextmanager
async def status_scene(folder: Path, words: str = HOSTILE) -> AsyncIterator[StatusScene]:
    """Ready when every identity is in its state and some requests were answered. words: of the lame provider."""
    async with contextlib.AsyncExitStack() as stack:
        well = await stack.enter_async_context(Sandbox())
        lame = await stack.enter_async_context(Sandbox())
        gone = await stack.enter_async_context(Sandbox(SandboxSettings(access_life=2, refresh_life=2)))
        http = await stack.enter_async_context(aiohttp.ClientSession())
        gateway = await stack.enter_async_context(running_gateway(_config(well, lame, gone), folder))
        refusal = Fault("reject", times=None, status=400, error="server_error", description=words)
        scene = StatusScene(gateway, well, lame, gone, refusal, http)

        def first_tokens() -> bool:
            return all(sandbox.state.counters["logins"] > 0 for sandbox in (lame, gone))

        await until(first_tokens, 10, "the only tokens that billing and archive get")
        await scene.spoil()
        await asyncio.gather(*(scene.ask(f"/adm/v1/accounts/{number}") for number in range(40)))
        await asyncio.gather(scene.ask("/legacy"), scene.ask("/archive"))
        yield scene
