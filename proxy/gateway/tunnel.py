"""After a 101: two connections joined, bytes both ways, until either ends (RFC 9110 7.8).

It takes the exchange's place at both connections, so that nothing of HTTP looks at a byte any more.
"""

from collections.abc import Callable
from math import inf

from proxy.gateway.fields import Fields
from proxy.gateway.http1 import ResponseHead
from proxy.gateway.relation import UpstreamError
from proxy.gateway.seams import ClientSide
from proxy.gateway.upstream import UpstreamConnection


class Tunnel:
    """on_end is called once, when the first of the two connections has ended."""

    method = b""

    def __init__(self, inbound: ClientSide, connection: UpstreamConnection, on_end: Callable[[], None]) -> None:
        self._inbound = inbound
        self._connection: UpstreamConnection | None = connection
        self._on_end = on_end

    def open(self, rest: bytes) -> None:
        """rest: what the upstream sent right behind its 101."""
        assert self._connection is not None  # noqa: S101 - narrows for mypy: it is set until the end
        self._connection.exchange = self
        self._inbound.deadline = inf  # tunnels may be silent as long as they like
        if rest:
            self._inbound.write(rest)
        early = self._inbound.become_tunnel(self)
        if early:
            self._connection.write(early)

    def tunnelled(self, data: bytes) -> None:
        """From the upstream."""
        self._inbound.write(data)

    def client_data(self, data: bytes) -> None:
        """From the client."""
        if self._connection is not None:
            self._connection.write(data)

    def upstream_writable(self, writable: bool) -> None:
        """Back-pressure from the upstream's side."""
        if writable:
            self._inbound.resume_reading()
        else:
            self._inbound.pause_reading()

    def client_writable(self, writable: bool) -> None:
        """Back-pressure from the client's side."""
        if self._connection is not None:
            if writable:
                self._connection.resume_reading()
            else:
                self._connection.pause_reading()

    def upstream_lost(self, error: UpstreamError) -> None:  # noqa: ARG002 - how a tunnel ended is no error of ours
        """The upstream's side is over: what came of it still goes to the client, then its side ends too."""
        self._connection = None
        self._end()
        self._inbound.close()

    def client_gone(self) -> None:
        """The client's side is over."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.finish_tunnel()
        self._end()

    def expired(self) -> None:
        """A tunnel has no deadline."""

    def informational(self, head: ResponseHead) -> None:
        """Never called: heads are over."""

    def received(self, head: ResponseHead | None, pieces: list[bytes], done: bool, trailers: Fields) -> None:
        """Never called: bodies are over."""

    def switched(self, head: ResponseHead, rest: bytes) -> None:
        """Never called: the switch is over."""

    def _end(self) -> None:
        on_end, self._on_end = self._on_end, lambda: None
        on_end()
