"""What the admin port shows of a running gateway: readiness, status, and a refresh by hand."""

import asyncio
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Final, Protocol

from proxy import __version__
from proxy.admin import Check
from proxy.config import Config, ConfigFiles, RemoteIdentity, Route, warnings
from proxy.config.safety import open_key_file
from proxy.config.web import without_query
from proxy.errors import Fault, TokenUnavailableError
from proxy.gateway.service import Gateway
from proxy.metrics import NO_ROUTE, Metrics, RouteMetrics
from proxy.recent import Recent
from proxy.redact import scrub
from proxy.tokens.keeper import Keeper
from proxy.tokens.pair import rfc3339

_SAMPLES: Final = 5.0  # seconds between two readings of the counters
_SKEW: Final = 10.0  # seconds; more than this and tokens may look expired, or issued in the future

Counts = dict[tuple[str, str], float]
"""By route (or ``store``) and what is counted."""


class Running(Protocol):
    """What there is to show: the server."""

    gateway: Gateway
    metrics: Metrics
    ready: bool
    reload_faults: Sequence[Fault]
    files: ConfigFiles

    @property
    def config(self) -> Config: ...
    @property
    def keepers(self) -> dict[str, Keeper]: ...


class Overview:
    """Reads state at hand, waits for nobody (but ``refresh``, which is asked to)."""

    def __init__(self, server: Running, *, started_at: datetime) -> None:
        self._server = server
        self._started_at = started_at.strftime("%Y-%m-%dT%H:%M:%SZ")
        self._recent: Recent[tuple[str, str]] = Recent()
        self.probed = False  # somebody steers by readiness: a load balancer, an orchestrator

    async def sample_for_ever(self) -> None:
        """Reads the counters now and then, so that the status can tell what happened lately."""
        while True:
            self._recent.note(time.monotonic(), self._counts())
            await asyncio.sleep(_SAMPLES)

    def checks(self) -> Sequence[Check]:
        """Ready: not shutting down, and each identity that a route needs has a usable token."""
        self.probed = True
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
        counts = self._counts()
        seconds, gained = self._recent.gained(time.monotonic(), counts)
        lately = {"seconds": round(seconds, 1)}
        store = server.config.store.kind
        numbers = server.metrics.store(store)
        return {
            "version": __version__,
            "started_at": self._started_at,
            "at": rfc3339(time.time()),
            "identities": {name: self._identity(name) for name in server.keepers},
            "routes": [
                {
                    **_route(config, route.metrics),
                    **_counted(counts, config.path),
                    "last_minute": lately | _counted(gained, config.path),
                }
                for route, config in zip(server.gateway.routes, server.config.routes, strict=True)
            ],
            "unrouted": {
                **_unrouted(counts),
                "last_minute": lately | _unrouted(gained),
            },
            "denied": dict(server.metrics.client_denied),
            "store": {
                "kind": store,
                "errors": dict(numbers.errors),
                "last_error_at": rfc3339(numbers.last_error) if numbers.last_error is not None else None,
                "last_error": scrub(numbers.last_words),
                "last_minute": lately | {"errors": _group(gained, "store", "")},
            },
            "config": {
                "read_at": rfc3339(server.metrics.config_reload_at),
                "reload_ok": server.metrics.config_reload_ok,
                "faults": [{"path": fault.path, "words": fault.message} for fault in server.reload_faults],
            },
            "warnings": [*warnings(server.config), *self._files(), *self._clocks()],
        }

    def _identity(self, name: str) -> dict[str, object]:
        config, numbers = self._server.config.identities[name], self._server.metrics.identity(name)
        keeper = self._server.keepers[name]
        return {
            **keeper.status(),
            "usable": keeper.usable(),
            "waiting": numbers.waiters,
            "clock_skew_s": numbers.clock_skew,
            "system": config.system,
            "endpoint": without_query(config.endpoint) if isinstance(config, RemoteIdentity) else None,
        }

    def _files(self) -> Iterator[str]:
        """As they are now: who mends one need not restart."""
        yield from (f"{place}: {words}" for place, words in self._server.files.unusable.items())
        store = self._server.config.store
        section = store.file or store.redis
        if section is not None and (words := open_key_file(section.key_file)):
            yield words

    def _clocks(self) -> Iterator[str]:
        for name in self._server.keepers:
            skew = self._server.metrics.identity(name).clock_skew or 0.0
            if abs(skew) > _SKEW:
                side = "ahead of" if skew > 0 else "behind"
                yield f"identities.{name}: the provider's clock is {abs(skew):.0f} s {side} this machine's"

    def _counts(self) -> Counts:
        metrics = self._server.metrics
        counts: Counts = {}
        for path in (NO_ROUTE, *(route.path for route in self._server.config.routes)):
            counts |= {(path, what): count for what, count in _totals(metrics.route(path))}
        errors = metrics.store(self._server.config.store.kind).errors
        return counts | {("store", operation): count for operation, count in errors.items()}

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


def _route(config: Route, numbers: RouteMetrics) -> dict[str, object]:
    return {
        "path": config.path,
        "upstream": config.upstream,
        "identity": config.identity,
        "verify": config.tls.verify,
        "connections": {"idle": numbers.idle, "active": numbers.active},
    }


def _totals(numbers: RouteMetrics) -> Iterator[tuple[str, float]]:
    kinds = {"client_errors": 0, "server_errors": 0, "unavailable": 0}
    for (_, code), count in numbers.requests.items():
        if code == 503:
            kinds["unavailable"] += count
        if code >= 500:
            kinds["server_errors"] += count
        elif code >= 400 and code != 499:  # the client left: nobody's error
            kinds["client_errors"] += count
    yield "requests", sum(numbers.requests.values())
    yield from kinds.items()
    yield "broken_off", numbers.broken_off
    yield "answers", sum(numbers.upstream_response.counts)
    yield "seconds", numbers.upstream_response.total
    yield from ((f"upstream {reason}", count) for reason, count in numbers.upstream_errors.items())
    yield from ((f"rejection {outcome}", count) for outcome, count in numbers.rejections.items())


def _counted(counts: Mapping[tuple[str, str], float], path: str) -> dict[str, object]:
    """A route's part of ``counts``. upstream_mean_s: to its response head; None where there was none."""
    answers = counts[path, "answers"]
    return {
        "requests": counts[path, "requests"],
        "client_errors": counts[path, "client_errors"],
        "server_errors": counts[path, "server_errors"],
        "broken_off": counts[path, "broken_off"],
        "upstream_mean_s": round(counts[path, "seconds"] / answers, 4) if answers else None,
        "upstream_errors": _group(counts, path, "upstream "),
        "rejections": _group(counts, path, "rejection "),
    }


def _unrouted(counts: Mapping[tuple[str, str], float]) -> dict[str, float]:
    """No request gets 503 without a route; a connection does that is one too many."""
    refused = counts[NO_ROUTE, "unavailable"]
    return {"requests": counts[NO_ROUTE, "requests"] - refused, "connections_refused": refused}


def _group(counts: Mapping[tuple[str, str], float], path: str, kind: str) -> dict[str, float]:
    return {what.removeprefix(kind): n for (of, what), n in counts.items() if of == path and what.startswith(kind)}


def _why(status: Mapping[str, object]) -> str:
    last = status["last_refresh"]
    detail = last.get("detail") if isinstance(last, dict) else None
    until = status["suspended_until"]
    words = [f"login suspended until {until}" if until else f"no usable token ({status['state']})"]
    return ": ".join([*words, str(detail)] if detail else words)
