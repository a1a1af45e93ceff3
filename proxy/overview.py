"""What the admin port shows of a running gateway: readiness, status, and a refresh by hand."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Protocol

from proxy import __version__
from proxy.admin import Check
from proxy.config import Config, warnings
from proxy.errors import TokenUnavailableError
from proxy.gateway.service import Gateway
from proxy.metrics import Metrics
from proxy.tokens.keeper import Keeper


class Running(Protocol):
    """What there is to show: the server."""

    gateway: Gateway
    metrics: Metrics
    ready: bool

    @property
    def config(self) -> Config: ...
    @property
    def keepers(self) -> dict[str, Keeper]: ...


class Overview:
    """Reads state at hand, waits for nobody (but ``refresh``, which is asked to)."""

    def __init__(self, server: Running, *, started_at: datetime) -> None:
        self._server = server
        self._started_at = started_at.strftime("%Y-%m-%dT%H:%M:%SZ")

    def checks(self) -> Sequence[Check]:
        """Ready: not shutting down, and each identity that a route needs has a usable token."""
        server = self._server
        needed = sorted({route.identity for route in server.config.routes if route.identity is not None})
        checks = [Check("serving", server.ready, "" if server.ready else "starting or shutting down")]
        for name in needed:
            usable = server.keepers[name].usable()
            checks.append(Check(f"identity {name}", usable, "" if usable else _why(server.keepers[name].status())))
        return checks

    def status(self) -> Mapping[str, object]:
        """The document of ``/status``."""
        server = self._server
        return {
            "version": __version__,
            "started_at": self._started_at,
            "identities": {name: keeper.status() for name, keeper in server.keepers.items()},
            "routes": self._routes(),
            "store": {"kind": server.config.store.kind},
            "warnings": warnings(server.config),
        }

    def _routes(self) -> list[dict[str, object]]:
        return [
            {
                "path": config.path,
                "upstream": config.upstream,
                "identity": config.identity,
                "verify": config.tls.verify,
                "connections": {"idle": route.metrics.idle, "active": route.metrics.active},
                "requests": sum(route.metrics.requests.values()),
                "upstream_errors": dict(route.metrics.upstream_errors),
                "rejections": dict(route.metrics.rejections),
            }
            for route, config in zip(self._server.gateway.routes, self._server.config.routes, strict=True)
        ]

    def identities(self) -> Collection[str]:
        """Their names."""
        return self._server.keepers.keys()

    async def refresh(self, name: str) -> Mapping[str, object]:
        """Refresh now, ending a suspension."""
        keeper = self._server.keepers[name]
        counted = self._server.metrics.identity(name).refreshes
        before = sum(counted.values())
        try:
            await keeper.refresh_now()
        except TokenUnavailableError:
            if sum(counted.values()) == before:  # no exchange could be made, or none has ended in time
                raise
        status = keeper.status()
        last = status["last_refresh"]
        return {**last, "suspended_until": status["suspended_until"]} if isinstance(last, dict) else {}


def _why(status: Mapping[str, object]) -> str:
    last = status["last_refresh"]
    detail = last.get("detail") if isinstance(last, dict) else None
    until = status["suspended_until"]
    words = [f"login suspended until {until}" if until else f"no usable token ({status['state']})"]
    return ": ".join([*words, str(detail)] if detail else words)
