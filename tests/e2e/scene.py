"""The whole scene: a realm of its own, an upstream that verifies against it, and the gateway process between them."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import yaml

from tests.support.gateway import Gateway, running_gateway
from tests.support.keycloak import CLIENT, USER, USER_PASSWORD, Administrator, KeycloakServer, OwnServer, Realm
from tests.support.verifying_upstream import VerifyingUpstream


@dataclass(frozen=True)
class Answer:
    """One answer of the gateway, read whole. seconds: how long the CRM waited for it."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    seconds: float


@dataclass
class Traffic:
    """What a CRM's requests came to. failed: every answer that was not 200."""

    statuses: Counter[int]
    failed: list[Answer]


class Scene:
    """realm and upstream to be edited by the test; gateway to be asked. password_file: the secret it logs in with."""

    def __init__(self, realm: Realm, upstream: VerifyingUpstream, folder: Path, http: aiohttp.ClientSession) -> None:
        self.realm = realm
        self.upstream = upstream
        self.folder = folder
        self.password_file = folder / "password"
        self.gateway: Gateway
        self._http = http

    def config(self, **identity: object) -> dict[str, Any]:
        """A site's proxy.yaml with ``identity`` laid over what a site would write; a value of None removes a key."""
        plain = {
            "system": "keycloak",
            "token_url": self.realm.token_url,
            "client_id": CLIENT,
            "username": USER,
            "password_file": str(self.password_file),
        }
        opentv = {name: value for name, value in (plain | identity).items() if value is not None}
        routes = [{"path": "/", "upstream": self.upstream.url, "identity": "opentv"}]
        return {"identities": {"opentv": opentv}, "routes": routes}

    def write_config(self, **identity: object) -> Path:
        """``config`` as a file, for the commands that are not ``run``."""
        file = self.folder / "command.yaml"
        ports = {"listen": "127.0.0.1:0", "admin": "127.0.0.1:0"}
        file.write_text(yaml.safe_dump(ports | self.config(**identity)))
        return file

    async def ask(self, path: str = "/adm/v1/accounts", *, method: str = "GET", body: bytes | None = None) -> Answer:
        begun = asyncio.get_running_loop().time()
        async with self._http.request(method, f"{self.gateway.url}{path}", data=body) as response:
            whole = await response.read()
            seconds = asyncio.get_running_loop().time() - begun
            return Answer(response.status, response.headers.copy(), whole, seconds)

    async def status(self) -> dict[str, Any]:
        """What ``/status`` tells of the identity."""
        async with self._http.get(f"{self.gateway.admin_url}/status") as response:
            found: dict[str, Any] = (await response.json())["identities"]["opentv"]
            return found

    async def served(self) -> bool:
        return (await self.ask()).status == 200

    @contextlib.asynccontextmanager
    async def traffic(self, *, workers: int = 3, pause: float = 0.05) -> AsyncIterator[Traffic]:
        """A CRM that keeps reading and writing, for as long as the block runs."""
        seen = Traffic(Counter(), [])
        stop = asyncio.Event()

        async def work(number: int) -> None:
            while not stop.is_set():
                answer = await self.ask(f"/adm/v1/accounts/{number}", method="PUT", body=b'{"number": 1}')
                seen.statuses[answer.status] += 1
                if answer.status != 200:
                    seen.failed.append(answer)
                await asyncio.sleep(pause)

        async with asyncio.TaskGroup() as group:
            for number in range(workers):
                group.create_task(work(number))
            try:
                yield seen
            finally:
                stop.set()


OpenScene = Callable[..., contextlib.AbstractAsyncContextManager[Scene]]


@contextlib.asynccontextmanager
async def open_scene(
    server: KeycloakServer,
    folder: Path,
    *,
    realm: Mapping[str, object] | None = None,
    identity: Mapping[str, object] | None = None,
    password: str = USER_PASSWORD,
    prepare: Callable[[Scene], Awaitable[None]] | None = None,
    run: bool = True,
) -> AsyncIterator[Scene]:
    """A scene on ``server``. realm, identity: laid over the usual ones. prepare: runs before the gateway starts."""
    folder.mkdir(exist_ok=True)
    async with contextlib.AsyncExitStack() as stack:
        admin = await stack.enter_async_context(Administrator(server))
        made = await admin.create_realm(**(realm or {}))
        if not isinstance(server, OwnServer):
            stack.push_async_callback(made.delete)  # someone's server is left as it was found
        upstream = await stack.enter_async_context(VerifyingUpstream(made.certs_url))
        connector = aiohttp.TCPConnector(limit=0)
        http = await stack.enter_async_context(aiohttp.ClientSession(connector=connector))
        scene = Scene(made, upstream, folder, http)
        scene.password_file.write_text(f"{password}\n")
        if prepare is not None:
            await prepare(scene)
        if run:
            gateway = running_gateway(scene.config(**(identity or {})), folder)
            scene.gateway = await stack.enter_async_context(gateway)
        try:
            yield scene
        except BaseException as exc:
            if run:
                exc.add_note(f"The gateway said:\n{scene.gateway.words()}\n")
                exc.add_note(f"The upstream refused: {[seen.refused for seen in upstream.refused[:20]]}")
            raise
