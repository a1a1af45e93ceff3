"""The proxied port: what all connections share, how a request is admitted and routed, and what is counted of it.

``apply`` puts a new configuration in place between two requests; requests under way finish with the one they began
with. Everything belongs to the event loop's thread.
"""

import asyncio
import contextlib
import random
import time
from collections.abc import Callable, Coroutine
from typing import Any, Final

from proxy.accesslog import AccessLog
from proxy.config import Limits
from proxy.errors import ProblemKind
from proxy.gateway.admission import Admission
from proxy.gateway.clients import Clients
from proxy.gateway.forward import Exchange
from proxy.gateway.headers import FORWARDED_NAMES, forwarded_lines, upgrade_lines
from proxy.gateway.http1 import RequestHead
from proxy.gateway.problems import Problem, body_size, body_too_large, render, shutting_down
from proxy.gateway.route import Route
from proxy.gateway.routes import RouteTable
from proxy.gateway.seams import ClientSide
from proxy.gateway.slowdown import neighbourhood
from proxy.metrics import NO_ROUTE, Metrics

SWEEP_SECONDS: Final = 0.25
_LAST_STEPS: Final = 20
# TRACE discloses what the gateway added, CONNECT would make an open relay of it (RFC 9110 9.3.6, 9.3.8).
_REFUSED: Final = frozenset((b"TRACE", b"TRACK", b"CONNECT"))
_REFUSALS: Final[dict[str, tuple[ProblemKind, int, str]]] = {
    "none": ("route", 404, "destination_not_found"),
    "forbidden": ("allow", 403, "http_request_denied"),
    "ambiguous": ("request", 400, "http_request_error"),
}
_NOTHING: Final[frozenset[bytes]] = frozenset()
_LABELS_MAX: Final = 256
_ALLOWED: Final = b"Allow: GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS\r\n"


class Gateway:
    """``clock``: monotonic seconds. ``wall``: Unix seconds, for people."""

    def __init__(
        self,
        *,
        metrics: Metrics,
        access_log: AccessLog,
        clock: Callable[[], float],
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.clock = clock
        self.wall = wall
        self.metrics = metrics
        self.draining = False
        self._hurried = asyncio.Event()
        self.limits = Limits()
        self.access_log = access_log
        self._table: RouteTable[Route] = RouteTable([])
        self._admission = Admission(metrics)
        self.routes: list[Route] = []
        self._connections: set[ClientSide] = set()
        self._present = 0  # these, and those whose TLS is being negotiated
        self._per_address: dict[str, int] = {}  # of them
        self._tasks: set[asyncio.Task[None]] = set()
        self._random = random.Random()  # noqa: S311 - correlation ids must be distinct, not secret
        self._no_route = metrics.route(NO_ROUTE)
        self._labels: dict[bytes, str] = {}

    # -- configuration ------------------------------------------------------------------------------------------

    def apply(self, clients: Clients, limits: Limits, routes: list[Route]) -> None:
        """From the next request on this is what holds. Connections are judged anew, pools no route uses are closed."""
        kept = {route.pool for route in routes}
        for route in self.routes:
            if route.pool not in kept:
                route.pool.close()
        self._admission.clients = clients
        self.limits = limits
        self.routes = routes
        self._table = RouteTable(routes)
        for connection in self._connections:
            connection.verdict = clients.connection_verdict(connection.peer)

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """A task that is held until it ends."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    # -- connections --------------------------------------------------------------------------------------------

    def enter(self, peer: str) -> str | None:
        """One connection more, of this address; words when it is one too many."""
        key = neighbourhood(peer)
        here = self._per_address.get(key, 0)
        self._per_address[key] = here + 1
        self._present += 1
        if here >= self.limits.connections_per_address:
            return f"This address has {here} connections already, as many as one may have."
        if self._present > self.limits.connections:
            return f"The gateway has {self.limits.connections} connections already, as many as it may have."
        return None

    def leave(self, peer: str) -> None:
        """One connection less."""
        self._present -= 1
        key = neighbourhood(peer)
        left = self._per_address.pop(key, 1) - 1
        if left:
            self._per_address[key] = left

    def connected(self, connection: ClientSide) -> Problem | None:
        """Take a connection in; the answer when it is one too many. By TLS it has entered before its handshake."""
        words = None if connection.scheme == b"https" else self.enter(connection.peer)
        self._connections.add(connection)
        if self._admission.clients is not None:
            connection.verdict = self._admission.clients.connection_verdict(connection.peer)
        return None if words is None else Problem("limit", 503, "connection_limit_reached", words, retry_after=1.0)

    def disconnected(self, connection: ClientSide) -> None:
        """Forget a connection."""
        if connection in self._connections:
            self._connections.discard(connection)
            self.leave(connection.peer)

    def sweep(self) -> None:
        """One look at every deadline, instead of a timer a request."""
        now = self.clock()
        due = [each for each in self._connections if each.deadline <= now or each.gone_at <= now]
        for connection in due:
            connection.expired(now)
        for connection in [each for each in self._connections if each.reading_paused]:
            connection.check_alive()
        for route in self.routes:
            route.pool.sweep(now)

    async def sweep_for_ever(self) -> None:
        """The sweep, and by its own lateness the measure of the event loop's lag."""
        while True:
            due = self.clock() + SWEEP_SECONDS
            await asyncio.sleep(SWEEP_SECONDS)
            self.metrics.event_loop_lag.observe(max(0.0, self.clock() - due))
            self.sweep()

    # -- requests -----------------------------------------------------------------------------------------------

    def open(self, connection: ClientSide, head: RequestHead) -> Exchange | Problem:
        """Admit and choose. The Problem is the answer when the request goes no further."""
        if head.method.upper() in _REFUSED:  # methods are case-sensitive (RFC 9110 9.1), but not to every server
            words = "The gateway passes no TRACE, TRACK or CONNECT."
            return Problem("request", 405, "http_request_denied", words, lines=(_ALLOWED,))
        consumed, trusted, client = _NOTHING, False, connection.peer
        if connection.verdict != "admitted" and (clients := self._admission.clients) is not None:
            verdict = self._admission.judge(clients, connection, head)
            if isinstance(verdict, Problem):
                return verdict
            consumed, trusted, client = verdict.consumed, verdict.trusted, verdict.client
        selection = self._table.select(head.method, head.path if head.path != b"*" else b"/")
        route = selection.route
        if selection.refusal is not None or route is None:
            if selection.refusal == "forbidden":
                self.metrics.client_denied["allow"] += 1
            kind, status, error = _REFUSALS[selection.refusal or "none"]
            return Problem(kind, status, error, selection.words)
        if head.length is not None and head.length > route.max_body:
            return body_too_large(route.max_body)
        self.metrics.requests_in_flight += 1
        correlation_id = head.correlation_id
        if not correlation_id or b"x-correlation-id" in head.options:
            correlation_id = b"%032x" % self._random.getrandbits(128)
        sent = self._request_head(connection, head, route, correlation_id, consumed, trusted=trusted)
        return Exchange(self, connection, head, route, correlation_id, client, sent)

    def _request_head(
        self,
        connection: ClientSide,
        head: RequestHead,
        route: Route,
        correlation_id: bytes,
        also_drop: frozenset[bytes],
        *,
        trusted: bool,
    ) -> bytes:
        extra = b""
        if route.forwarded:
            also_drop |= FORWARDED_NAMES
            extra = forwarded_lines(head.fields, connection.peer, connection.scheme, head.host, trusted=trusted)
        if head.upgrade:
            # Only WebSocket makes a tunnel: h2c would carry requests past every rule here, and RFC 9113 3.1 dropped it.
            if head.upgrade.lower() == b"websocket" and head.method == b"GET" and not head.chunked and not head.length:
                extra += upgrade_lines(head.upgrade)
            else:
                head.upgrade = b""
        host = head.host if route.host_preserved and head.host else route.host  # an HTTP/1.0 client may name none
        return route.rules.build(head, route.target(head.target), host, correlation_id, extra, also_drop)

    def released(self, connection: ClientSide) -> None:
        """A held-back answer has been given, or nobody waits for it any more."""
        self._admission.released(connection.peer)

    def refuse(self, connection: ClientSide, head: RequestHead | None, problem: Problem, *, keep_alive: bool) -> None:
        """Write the answer to a request that never became an exchange, count and log it."""
        named = head.correlation_id if head is not None else b""
        correlation_id = named or b"%032x" % self._random.getrandbits(128)
        head_only = head is not None and head.method == b"HEAD"
        answer = render(problem, correlation_id, now=self.wall(), keep_alive=keep_alive, head_only=head_only)
        connection.write(answer)
        method = self._label(head.method) if head is not None else "other"
        seconds = self.clock() - connection.started
        selected = self._table.find(head.path) if head is not None and problem.kind in ("allow", "limit") else None
        metrics = self._no_route if selected is None else selected.metrics
        metrics.count(method, problem.status)
        metrics.duration.observe(seconds)
        metrics.response_bytes += body_size(answer)
        self.access_log.write(
            route=None if selected is None else selected.label,
            method=method,
            path=head.path.decode("latin-1") if head is not None else "",
            status=problem.status,
            duration_s=seconds,
            correlation_id=correlation_id.decode("latin-1"),
            client=problem.client or connection.peer,
            bytes_out=body_size(answer),
            why=problem,
        )

    def record(self, exchange: Exchange, status: int) -> None:
        """Count and log an exchange that has ended."""
        metrics = exchange.route.metrics
        method = self._labels.get(exchange.method) or self._label(exchange.method)
        seconds = self.clock() - exchange.started
        self.metrics.requests_in_flight -= 1
        metrics.count(method, status)
        metrics.duration.observe(seconds)
        if exchange.upstream_seconds is not None:
            metrics.upstream_response.observe(exchange.upstream_seconds)
        bytes_in = exchange.outgoing.body.size
        bytes_out = exchange.answer.size if exchange.answer is not None else exchange.told
        metrics.request_bytes += bytes_in
        metrics.response_bytes += bytes_out
        if exchange.fault is not None or self.access_log.wants(status):
            self.access_log.write(
                route=exchange.route.label,
                method=method,
                path=exchange.head.path.decode("latin-1"),
                status=status,
                duration_s=seconds,
                upstream_s=exchange.upstream_seconds,
                token_wait_s=exchange.outgoing.token_wait,
                correlation_id=exchange.correlation_id.decode("latin-1"),
                replayed=exchange.replayed,
                client=exchange.client,
                bytes_in=bytes_in,
                bytes_out=bytes_out,
                why=exchange.fault,
            )

    def _label(self, method: bytes) -> str:
        label = self._labels.get(method)
        if label is None:
            label = method[:32].decode("ascii", "replace")
            if len(self._labels) < _LABELS_MAX:
                self._labels[method] = label
        return label

    # -- the end ------------------------------------------------------------------------------------------------

    def hasten(self) -> None:
        """Wait for nothing under way any more."""
        self._hurried.set()

    async def give_notice(self, seconds: float) -> None:
        """Serve on for so long, each answer the last of its connection: who heeds readiness goes elsewhere."""
        self.draining = True
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._hurried.wait(), seconds)

    async def drain(self, seconds: float) -> None:
        """Answer what is under way, for at most so long; idle connections close at once. Then break off the rest: where
        an answer has begun, or of a tunnel, the connection; else by an answer that says so."""
        self.draining = True
        until = self.clock() + seconds
        while self._connections and self.clock() < until and not self._hurried.is_set():
            for connection in [each for each in self._connections if each.idle]:
                connection.close()
            await asyncio.sleep(0.02)
        for connection in list(self._connections):
            connection.break_off(shutting_down())
        for _ in range(_LAST_STEPS):  # the last answers are still to be taken
            if self._connections:
                await asyncio.sleep(0.01)
        for connection in list(self._connections):
            connection.abort()
        for route in self.routes:
            route.pool.close()
        self.access_log.close()
