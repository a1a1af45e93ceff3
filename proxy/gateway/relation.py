"""What a connection to an upstream and the request that it carries say to each other."""

from typing import Literal, Protocol

from proxy.errors import ProxyError
from proxy.gateway.fields import Fields
from proxy.gateway.http1 import ResponseHead

UpstreamReason = Literal["connect", "tls", "timeout", "reset", "protocol"]


class UpstreamError(ProxyError):
    """The upstream cannot be reached or broke off. reason: the metric's label; error: RFC 9209 2.3 error type."""

    def __init__(self, reason: UpstreamReason, error: str, words: str) -> None:
        super().__init__(words)
        self.reason: UpstreamReason = reason
        self.error = error
        self.words = words


class Exchange(Protocol):
    """What a connection tells the request it carries. One of the two ``…lost`` or ``done`` ends the relation."""

    method: bytes

    def informational(self, head: ResponseHead) -> None:
        """An interim (1xx) response."""

    def received(self, head: ResponseHead | None, pieces: list[bytes], done: bool, trailers: Fields) -> None:
        """What one read brought: a head if it ended in it, body pieces, and whether the response is complete."""

    def switched(self, head: ResponseHead, rest: bytes) -> None:
        """101: from here on the connection is a tunnel."""

    def tunnelled(self, data: bytes) -> None:
        """Bytes of the tunnel."""

    def upstream_lost(self, error: UpstreamError) -> None:
        """The connection ended or broke the protocol before the response was complete."""

    def upstream_writable(self, writable: bool) -> None:
        """Back-pressure: the upstream reads slower than the client sends, or reads again."""
