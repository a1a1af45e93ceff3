"""A gateway process between raw sockets: a client of literal bytes, a scripted upstream, tokens from a sandbox."""

import contextlib
import json
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from proxy.sandbox import Sandbox
from tests.support.gateway import Gateway, running_gateway, until
from tests.support.rawclient import ask, dial
from tests.support.rawserver import Message, RawServer, Wire, raw_server

Routes = Callable[[str], list[dict[str, Any]]]


class Scene:
    """upstream: where every route leads, and what it was sent. gateway: the process."""

    def __init__(self, gateway: Gateway, upstream: RawServer) -> None:
        self.gateway, self.upstream = gateway, upstream

    async def dial(self) -> Wire:
        return await dial(self.gateway.url)

    async def ask(self, request: bytes) -> Message:
        """One request on a connection of its own."""
        return await ask(self.gateway.url, request)

    async def passed(self, request: bytes) -> Message:
        """What the upstream gets of a request that is answered with 200."""
        before = len(self.upstream.requests)
        answer = await self.ask(request)
        assert answer.status == 200, answer.raw
        return await self.upstream.request(before + 1)

    async def refused(self, request: bytes, status: int, kind: str) -> Message:
        """A request that the gateway answers itself, as it promises to, and that never reaches the upstream."""
        before = bytes(self.upstream.received)
        answer = await self.ask(request)
        assert answer.status == status, answer.raw
        is_problem(answer, kind, head_only=request.startswith(b"HEAD "))
        assert self.upstream.received == before
        return answer

    async def metrics(self) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
        """The admin port's samples: (name, sorted labels) → value."""
        answer = await ask(self.gateway.admin_url, b"GET /metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        return {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for family in text_string_to_metric_families(answer.body.decode())
            for sample in family.samples
        }

    async def metric(self, name: str, **labels: str) -> float:
        """One sample, 0 where it does not exist."""
        return (await self.metrics()).get((f"opentv_proxy_{name}", tuple(sorted(labels.items()))), 0.0)

    async def logged(self, **fields: Any) -> dict[str, Any]:
        """The access log's last line with these fields, once it is there."""
        found: list[dict[str, Any]] = []

        def there() -> bool:
            found[:] = [
                record
                for line in self.gateway.log
                if (record := json.loads(line)).get("logger") == "access" and fields.items() <= record.items()
            ]
            return bool(found)

        await until(there, 5.0, f"an access log line with {fields}")
        return found[-1]


def is_problem(answer: Message, kind: str, *, head_only: bool = False) -> dict[str, Any]:
    """An answer of the gateway's own, in the form that is promised; its body."""
    assert answer.values(b"content-type") == [b"application/problem+json"]
    (proxy_status,) = answer.values(b"proxy-status")
    assert proxy_status.startswith(b"opentv-proxy; error=")
    (correlation_id,) = answer.values(b"x-correlation-id")
    if head_only:
        assert answer.body == b""
        return {}
    body: dict[str, Any] = json.loads(answer.body)
    assert set(body) == {"type", "title", "status", "detail", "correlation_id"}
    assert body["type"] == f"urn:opentv-proxy:problem:{kind}", body
    assert body["status"] == answer.status
    assert body["correlation_id"].encode() == correlation_id
    return body


def identity(sandbox: Sandbox, **more: Any) -> dict[str, Any]:
    return {
        "system": "keycloak",
        "token_url": sandbox.token_url,
        "client_id": sandbox.client_id,
        "username": sandbox.username,
        "password": sandbox.password,
        **more,
    }


@contextlib.asynccontextmanager
async def scene(routes: Routes, folder: Path, settings: Mapping[str, Any] | None = None) -> AsyncIterator[Scene]:
    """routes: from the upstream's URL to the ``routes`` section. Identities: ``opentv``; ``nv``, which injects another
    header."""
    async with Sandbox() as sandbox, raw_server() as upstream:
        config = {
            "identities": {
                "opentv": identity(sandbox),
                "nv": identity(sandbox, inject={"header": "nv-authorizations", "scheme": ""}),
            },
            "routes": routes(upstream.url),
            **(settings or {}),
        }
        async with running_gateway(config, folder) as gateway:
            yield Scene(gateway, upstream)
