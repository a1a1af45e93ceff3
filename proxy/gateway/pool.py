"""The connections of one route: which are idle, how many there may be, who waits for one.

Nothing else moves a connection in or out of the pool. All state belongs to the event loop's thread.
"""

import asyncio
import ssl
from collections import deque
from math import inf
from typing import Final

from proxy import tls
from proxy.config import ForwardProxy
from proxy.gateway.detour import DetourError, way
from proxy.gateway.dial import HANDSHAKE, Attempt
from proxy.gateway.relation import UpstreamError
from proxy.gateway.sending import SendingBody
from proxy.gateway.upstream import UpstreamConnection, ended
from proxy.gateway.waiting import Waiting
from proxy.metrics import RouteMetrics

_IDLE_SECONDS: Final = 60.0


class UpstreamPool:
    """The connections of one route. At most ``limit`` at once; further requests queue for at most ``timeout`` s.

    proxy: on the way. With TLS it opens a tunnel; without, it is asked itself, for the whole URL (``Route.target``).
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        key: object,
        context: ssl.SSLContext | None,
        server_name: str | None,
        limit: int,
        timeout: float,
        metrics: RouteMetrics,
        proxy: ForwardProxy | None = None,
    ) -> None:
        self.key = key  # what it was made from: a reload that changes nothing of it keeps the pool
        self.host = host
        self.port = port
        self._context = context
        self._server_name = server_name
        self._limit = limit
        self._timeout = timeout
        self._metrics = metrics
        self._proxy = proxy
        self._idle: deque[UpstreamConnection] = deque()  # most recently used last; guarded by the event loop
        self._connections: set[UpstreamConnection] = set()
        self._opening = 0
        self._waiting: Waiting[UpstreamConnection] = Waiting(limit)
        self._closed = False

    def take(self, body: SendingBody) -> UpstreamConnection | None:
        """An idle connection for the request with this body, or None."""
        if not body.done:
            if not self._waiting.admits(body):
                return None
            if self._idle:
                self._waiting.grant(body)
        while self._idle:
            connection = self._idle.pop()
            self._metrics.idle -= 1
            self._metrics.active += 1
            # However young it is: some upstreams close right behind an answer without saying so, and then a third of
            # the requests that follow at once would be lost; and what one says unasked must not become an answer.
            if connection.is_open and not connection.is_stale():
                return connection
            connection.close()
        return None

    async def connect(self, body: SendingBody) -> UpstreamConnection:
        """A connection: a new one, or the first that becomes free. Raises UpstreamError."""
        attempt = Attempt()
        try:
            async with asyncio.timeout(self._timeout):
                while not (self._waiting.admits(body) and self._has_room):
                    connection = await self._queued(body) or self.take(body)
                    if connection is not None and connection.is_open:
                        return connection
                self._waiting.grant(body)
                return await self._open(attempt)
        except TimeoutError as exc:
            raise self._late(body, attempt) from exc

    def _late(self, body: SendingBody, attempt: Attempt) -> UpstreamError:
        if attempt.stage is not None:
            words = attempt.stage.late(f"the upstream {self.host}:{self.port}", self._timeout)
            return UpstreamError("timeout", attempt.stage.error, words)
        if self._has_room and not self._waiting.admits(body):
            words = (
                f"the {self._waiting.most} connections to the upstream that requests may have whose bodies are still "
                f"coming stayed busy for {self._timeout:g} s"
            )
        else:
            words = f"all {self._limit} connections to the upstream stayed busy for {self._timeout:g} s"
        return UpstreamError("timeout", "connection_limit_reached", words)

    def whole(self, body: SendingBody) -> None:
        """The request's body has come, or it wants no connection any more."""
        if self._waiting.let_go(body) and (self._idle or self._has_room):
            self._make_room()

    @property
    def _has_room(self) -> bool:
        return len(self._connections) + self._opening < self._limit

    async def _queued(self, body: SendingBody) -> UpstreamConnection | None:
        turn = self._waiting.queue(body)
        try:
            return await turn.result
        except asyncio.CancelledError:
            if turn.result.done() and not turn.result.cancelled():  # its turn came in the moment the request gave up
                connection = turn.result.result()
                self._make_room() if connection is None else self.release(connection)
            raise
        finally:
            self._waiting.leave(turn)

    async def _open(self, attempt: Attempt) -> UpstreamConnection:
        connection: UpstreamConnection | None = None
        self._opening += 1
        try:
            connection = await self._reach(attempt)
        except DetourError as exc:
            raise UpstreamError("connect", exc.error, exc.words) from exc
        except (OSError, ssl.SSLError) as exc:
            words = f"no connection to the upstream {self.host}:{self.port}: {tls.explain(exc)}"
            raise UpstreamError(tls.reason(exc), tls.proxy_error(exc), words) from exc
        finally:
            self._opening -= 1
            if connection is None:
                self._make_room()
        self._connections.add(connection)
        self._metrics.active += 1
        if not connection.is_open:  # the upstream hung up, or spoke unasked, right behind the TLS handshake
            connection.close()
            raise ended(connection.fate, touched=False)
        return connection

    async def _reach(self, attempt: Attempt) -> UpstreamConnection:
        """A connection to the upstream, or to the proxy that is asked in its place. Raises OSError, DetourError."""
        sock = await way(self._proxy, self.host, self.port, attempt, secure=self._context is not None)
        name = patience = None
        if self._context is not None:
            attempt.stage = HANDSHAKE
            name, patience = self._server_name or self.host, self._timeout
        _, connection = await asyncio.get_running_loop().create_connection(
            lambda: UpstreamConnection(self),
            sock=sock,
            ssl=self._context,
            server_hostname=name,
            ssl_handshake_timeout=patience,  # the loop's own would be a minute, whatever ``connect`` is
        )
        return connection

    def release(self, connection: UpstreamConnection) -> None:
        """An exchange is over and its connection clean."""
        if self._closed or connection.transport is None:
            connection.close()
            return
        turn = self._waiting.next()
        if turn is not None:
            turn.result.set_result(connection)
            return
        self._metrics.active -= 1
        self._metrics.idle += 1
        connection.idle_until = inf  # the sweep sets it: no clock is read for a request
        self._idle.append(connection)

    def forget(self, connection: UpstreamConnection) -> None:
        """The connection is gone: correct the counts, and let a waiting request open one in its place."""
        if connection not in self._connections:
            return
        self._connections.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)
            self._metrics.idle -= 1
        else:
            self._metrics.active -= 1
        self._make_room()

    def _make_room(self) -> None:
        """One connection fewer: the first that waits may open one."""
        turn = self._waiting.next()
        if turn is not None:
            turn.result.set_result(None)

    def sweep(self, now: float) -> None:
        """Close what has been idle for long."""
        for connection in list(self._idle):
            if connection.idle_until == inf:
                connection.idle_until = now + _IDLE_SECONDS
            elif connection.idle_until <= now:
                connection.close()

    def renew(self, context: ssl.SSLContext) -> None:
        """The TLS files changed: connections are made with them from here on, and no idle one outlives them."""
        self._context = context
        for connection in list(self._idle):
            connection.close()

    def close(self) -> None:
        """Close the idle connections now and the others once their exchange is over."""
        self._closed = True
        for connection in list(self._idle):
            connection.close()
