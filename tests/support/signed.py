"""A gateway that signs, between a sandbox that issues tokens and a raw upstream that refuses some of them."""

import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import aiohttp

from proxy.sandbox import Sandbox, SandboxSettings
from tests.support.gateway import until
from tests.support.rawclient import ask
from tests.support.rawserver import OK, Message, Wire
from tests.support.relay import GET, Relay, relay

REFUSED = b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\nno"
Answer = bytes | Callable[[Wire], Awaitable[None]]


class Signed:
    """dead: the ``Authorization`` values that the upstream refuses. tokens: those that it saw, in order, once each."""

    def __init__(self, there: Relay, sandbox: Sandbox, http: aiohttp.ClientSession) -> None:
        self.relay = there
        self.raw = there.raw
        self.url = there.gateway.url
        self.sandbox = sandbox
        self.dead: set[bytes] = set()
        self._http = http

    async def begin(self, refused: Answer = REFUSED, good: Answer = OK, *, whole: bool = True) -> bytes:
        """A new test: a fresh token, with no spacing left over from the last one. Returns the token, which is dead.

        refused, good: how a dead token and any other is answered; whole: after the whole request, or its head alone.
        """
        self.sandbox.state.clear_faults()
        self.dead.clear()

        async def behave(wire: Wire) -> None:
            message = await wire.request() if whole else Message(await wire.head(), b"", b"", b"")
            dead = message.values(b"authorization")[0] in self.dead
            answer = refused if dead else good
            if not isinstance(answer, bytes):
                await answer(wire)
                return
            wire.send(answer)

        self.raw.begin()
        await self.renewed()
        await ask(self.url, GET)
        token = self.raw.requests[0].values(b"authorization")[0]
        self.dead.add(token)
        self.raw.begin(behave)
        return token

    async def renewed(self) -> None:
        """A refresh by hand: it also ends every pause."""
        url = f"{self.relay.gateway.admin_url}/identities/opentv/refresh"
        async with self._http.post(url) as response:
            assert response.status < 300, await response.text()

    @property
    def tokens(self) -> list[bytes]:
        return list(dict.fromkeys(each.values(b"authorization")[0] for each in self.raw.requests))

    async def refreshes(self) -> float:
        """How many refreshes a rejection has caused."""
        return await self.relay.metric("token_refreshes_total", trigger="rejected")

    async def refreshed(self, expected: float) -> None:
        """Wait until rejections have caused so many refreshes."""

        async def there() -> bool:
            return await self.refreshes() >= expected

        await until(there, 3.0, "the refresh")

    async def outcomes(self) -> Counter[str]:
        """``rejections_total`` of all routes, by outcome."""
        found: Counter[str] = Counter()
        for labels, value in await self.relay.samples("rejections_total"):
            found[labels["outcome"]] += int(value)
        return found

    @contextlib.asynccontextmanager
    async def costing(self, *, refreshes: int | None, **outcomes: int) -> AsyncIterator[None]:
        """What happens inside counts these rejections, and these refreshes for their sake (None: however many)."""
        before, begun = await self.outcomes(), await self.refreshes()
        yield
        after, done = await self.outcomes(), await self.refreshes()
        assert after - before == Counter(outcomes)
        assert refreshes is None or done - begun == refreshes


@contextlib.asynccontextmanager
async def signed(
    folder: Path, routes: Sequence[Mapping[str, Any]] = (), settings: SandboxSettings | None = None
) -> AsyncIterator[Signed]:
    """A running ``Signed``: the route ``/`` and these further ones, all signed as ``opentv``.

    ``upstream: sandbox`` means the sandbox's own operator API.
    """
    async with Sandbox(settings) as sandbox, aiohttp.ClientSession() as http:
        opentv = {
            "system": "keycloak",
            "token_url": sandbox.token_url,
            "client_id": sandbox.client_id,
            "username": sandbox.username,
            "password": sandbox.password,
        }
        every = [{"path": path, "identity": "opentv", **route} for path, route in _paths(routes).items()]
        for route in every:
            if route.get("upstream") == "sandbox":
                route["upstream"] = sandbox.api_url
        async with relay(folder, every, {"identities": {"opentv": opentv}}) as there:

            async def ready() -> bool:
                async with http.get(f"{there.gateway.admin_url}/readyz") as response:
                    return response.status == 200

            await until(ready, 10.0, "a first token")
            yield Signed(there, sandbox, http)


def _paths(routes: Sequence[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    return {"/": {}, **{str(route["path"]): route for route in routes}}
