"""A gateway process in front of a raw upstream: what comes back through it, byte for byte."""

import contextlib
import json
import socket
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from tests.support.gateway import Gateway, running_gateway, until
from tests.support.rawclient import ask
from tests.support.rawserver import Behaviour, Message, RawServer, answering, raw_server

GET = b"GET / HTTP/1.1\r\nHost: gw\r\n\r\n"


class Relay:
    """raw: the upstream of its routes. gateway: the process between."""

    def __init__(self, raw: RawServer, gateway: Gateway, http: aiohttp.ClientSession) -> None:
        self.raw = raw
        self.gateway = gateway
        self._http = http

    async def answer(self, response: bytes | Behaviour, request: bytes = GET) -> Message:
        """What a client gets for ``request`` when the upstream answers with these bytes, or behaves like that."""
        self.raw.begin(answering(response) if isinstance(response, bytes) else response)
        return await ask(self.gateway.url, request)

    async def metric(self, name: str, **labels: str) -> float:
        """The sum of the samples of this name that have (at least) these labels."""
        samples = await self.samples(name)
        return sum(value for found, value in samples if labels.items() <= found.items())

    async def samples(self, name: str) -> list[tuple[dict[str, str], float]]:
        """Labels and value of every sample of this name."""
        async with self._http.get(f"{self.gateway.admin_url}/metrics") as response:
            text = await response.text()
        # Only the lines of this name: parsing all of them takes longer than most tests.
        lines = [line for line in text.splitlines() if line.startswith(f"opentv_proxy_{name}")]
        families = text_string_to_metric_families("\n".join([*lines, ""]))
        return [(sample.labels, sample.value) for family in families for sample in family.samples]

    async def errors(self, reason: str, route: str = "/") -> float:
        return await self.metric("upstream_errors_total", route=route, reason=reason)

    async def counted(self, expected: float, name: str, **labels: str) -> None:
        """Wait until a metric has a value."""

        async def there() -> bool:
            return await self.metric(name, **labels) == expected

        await until(there, 3.0, f"{name} {labels} being {expected}")

    def resident(self) -> int:
        """The most memory that the gateway's process ever had in use since ``forget_peak``, in bytes."""
        return memory(self.gateway.pid, "VmHWM")

    def forget_peak(self) -> int:
        """Begin to measure ``resident`` anew; what it has in use now."""
        Path(f"/proc/{self.gateway.pid}/clear_refs").write_text("5")
        return memory(self.gateway.pid, "VmRSS")


def memory(pid: int, name: str) -> int:
    """Bytes, by /proc."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


def problem(found: Message) -> dict[str, Any]:
    """The gateway's own answer, checked to be one."""
    assert found.values(b"content-type") == [b"application/problem+json"], found.raw
    assert found.values(b"proxy-status")[0].startswith(b"opentv-proxy; error=")
    body: dict[str, Any] = json.loads(found.body)
    assert body["status"] == found.status
    return body


def closed_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.asynccontextmanager
async def relay(
    folder: Path, routes: Sequence[Mapping[str, Any]] = (), config: Mapping[str, Any] | None = None
) -> AsyncIterator[Relay]:
    """A running ``Relay``: an unsigned route ``/`` and these further ones, to the raw upstream unless they name one."""
    async with raw_server() as raw:
        root = [] if any(route["path"] == "/" for route in routes) else [{"path": "/"}]
        every = [{"upstream": raw.url, "identity": None, **route, **_below(raw, route)} for route in [*root, *routes]]
        async with (
            running_gateway({"routes": every, **(config or {})}, folder) as gateway,
            aiohttp.ClientSession() as http,
        ):
            yield Relay(raw, gateway, http)


def _below(raw: RawServer, route: Mapping[str, Any]) -> dict[str, str]:
    """``upstream: /base`` means the raw one, below that path."""
    upstream = str(route.get("upstream", ""))
    return {"upstream": raw.url + upstream} if upstream.startswith("/") else {}
