"""The gateway's data path without a socket: both sides are bytes in memory, so thousands of cases take seconds.

What comes from outside (transports, connections, tokens, time) is a stand-in; everything of ``proxy.gateway`` is real.
"""

import asyncio
import socket
from collections.abc import Awaitable, Mapping
from typing import Any, cast

from proxy.accesslog import AccessLog
from proxy.config import Clients as ClientsConfig
from proxy.config import Limits
from proxy.config import Route as RouteConfig
from proxy.gateway.clients import Clients
from proxy.gateway.inbound import Inbound
from proxy.gateway.pool import UpstreamPool
from proxy.gateway.route import Route
from proxy.gateway.sending import SendingBody
from proxy.gateway.service import Gateway
from proxy.gateway.upstream import UpstreamConnection
from proxy.metrics import Metrics
from proxy.tokens.source import Credential

CREDENTIAL = Credential(b"Authorization", b"Authorization: Bearer ours\r\n", 1, "00000001")


class MemoryTransport(asyncio.Transport):
    """written: what the protocol has sent. ended: "" while open, "half", "closed", "aborted", or "gone". answered: how
    many messages in it a test has answered. gently: it was not broken off."""

    def __init__(self, protocol: asyncio.Protocol, peer: str = "127.0.0.1") -> None:
        super().__init__()
        self.protocol = protocol
        self.written = bytearray()
        self.answered = 0
        self.gently = True
        self.ended = ""
        self.reading = True
        self._waiting: list[bytes] = []
        self._peer = peer
        self._socket, self._other = socket.socketpair()  # what the kernel is asked about, or told
        protocol.connection_made(self)

    def receive(self, data: bytes) -> None:
        """From the other side, unless reading is paused or it is closed."""
        if not self.reading:
            self._waiting.append(data)
        elif self.ended in ("", "half"):
            self.protocol.data_received(data)

    def finish(self, exc: Exception | None = None) -> None:
        """The other side has closed, or (with an error) reset."""
        if self.ended != "gone":
            if exc is None and self.ended in ("", "half"):
                self.protocol.eof_received()
            self._lose(exc)

    def _lose(self, exc: Exception | None = None) -> None:
        if self.ended != "gone":
            self.ended = "gone"
            self.protocol.connection_lost(exc)
            self._socket.close()
            self._other.close()

    # -- asyncio.Transport ------------------------------------------------------------------------------------------

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        known = {"peername": (self._peer, 4711), "sockname": ("127.0.0.1", 80), "socket": self._socket}
        return known.get(name, default)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if not self.ended:
            self.written += data

    def get_write_buffer_size(self) -> int:
        return 0

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.ended = self.ended or "half"

    def is_closing(self) -> bool:
        return self.ended in ("closed", "aborted", "gone")

    def close(self) -> None:
        self._end("closed")

    def abort(self) -> None:
        self.gently = False
        self._end("aborted")

    def _end(self, how: str) -> None:
        if self.ended in ("", "half"):
            self.ended = how
            asyncio.get_running_loop().call_soon(self._lose)

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True
        waiting, self._waiting = self._waiting, []
        for data in waiting:
            self.receive(data)


class MemoryPool(UpstreamPool):
    """Every request gets a connection at once, a new one or an idle one. made: the upstream's ends, in order."""

    def __init__(self, metrics: Metrics) -> None:
        route = metrics.route("/")
        super().__init__("up", 80, key=None, context=None, server_name=None, limit=99, timeout=1.0, metrics=route)
        self.made: list[MemoryTransport] = []

    def take(self, body: SendingBody) -> UpstreamConnection:  # noqa: ARG002 - there is always one
        while self._idle:
            connection = self._idle.pop()
            if connection.is_open:
                return connection
        connection = UpstreamConnection(self)
        self.made.append(MemoryTransport(connection))
        self._connections.add(connection)
        return connection


class FakeSource:
    """A TokenSource that always has ``credential``. renewal: what a rejection is answered with. served_with: in order,
    what the gateway said was accepted."""

    header = b"authorization"

    def __init__(self, credential: Credential = CREDENTIAL, renewal: Credential | None = None) -> None:
        self.credential, self.renewal = credential, renewal
        self.served_with: list[Credential] = []

    def current(self) -> Credential | None:
        return self.credential

    async def obtain(self, correlation_id: str = "") -> Credential:  # noqa: ARG002 - nobody waits here
        return self.credential

    def rejected(
        self,
        credential: Credential,  # noqa: ARG002 - the answer is the same for each
        correlation_id: str = "",  # noqa: ARG002 - as above
    ) -> Credential | Awaitable[Credential | None] | None:
        return self.renewal

    def served(self, credential: Credential) -> None:
        self.served_with.append(credential)


class InMemory:
    """A gateway with one route. now: its clock, seconds. Wants a running loop."""

    def __init__(
        self,
        source: FakeSource | None = None,
        *,
        clients: Mapping[str, Any] | None = None,
        limits: Mapping[str, Any] | None = None,
        route: Mapping[str, Any] | None = None,
        access_log: AccessLog | None = None,
    ) -> None:
        self.now = 1000.0
        self.metrics = Metrics("test")
        log = access_log or AccessLog(None, "off")
        self.gateway = Gateway(metrics=self.metrics, access_log=log, clock=lambda: self.now)
        self.pool = MemoryPool(self.metrics)
        config = RouteConfig.model_validate({"path": "/", "upstream": "http://up", **(route or {})})
        self.route = Route(config, source=source, pool=self.pool, metrics=self.metrics.route("/"))
        judge = Clients(ClientsConfig.model_validate(clients or {}), listen_has_client_ca=False)
        self.gateway.apply(judge, Limits.model_validate(limits or {}), [self.route])

    def dial(self, peer: str = "127.0.0.1") -> MemoryTransport:
        """A client's end."""
        return MemoryTransport(Inbound(self.gateway, secure=False), peer)

    @property
    def upstreams(self) -> list[MemoryTransport]:
        return self.pool.made

    def later(self, seconds: float) -> None:
        """So much time passes, and the sweep comes."""
        self.now += seconds
        self.gateway.sweep()

    def __enter__(self) -> "InMemory":
        return self

    def __exit__(self, *error: object) -> None:
        """Every socket pair is given back."""
        for connection in list(self.gateway._connections):
            cast("MemoryTransport", cast("Inbound", connection).transport)._lose()
        for transport in self.pool.made:
            transport._lose()


async def settled(turns: int = 3) -> None:
    """What was put off to the loop's next turns has happened."""
    for _ in range(turns):
        await asyncio.sleep(0)
