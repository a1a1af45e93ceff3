"""From an upstream's response to the bytes for the client: head, body framing, end. Pure."""

from typing import Final

from proxy.gateway.bodies import encode_chunk
from proxy.gateway.fields import Fields
from proxy.gateway.headers import Origins, response_lines, trailer_lines, upgrade_lines, values_of
from proxy.gateway.http1 import ResponseHead
from proxy.gateway.rejection import is_event_stream

_STATUS_LINE: Final = b"HTTP/1.1 %d%b\r\n"


class Answer:
    """One response on its way to the client.

    delimited: its end shows in the bytes (Content-Length, chunked, no body); False when only the connection's end
    tells, as for an HTTP/1.0 client that cannot read chunks (RFC 9112 6.3).
    """

    __slots__ = ("_chunked", "_head", "_no_body", "_says_chunked", "delimited", "size", "status")

    def __init__(self, head: ResponseHead, client_minor: int) -> None:
        self.status = head.status
        self._no_body = head.no_body
        bounded = head.no_body or head.length is not None
        self._chunked = not bounded and client_minor == 1
        # To HEAD the upstream says how GET would be framed, and that is passed on; never in a 204, nor to a 1.0 client,
        # which would read it as the body's framing (RFC 9112 6.1).
        self._says_chunked = client_minor == 1 and head.status != 204 and (head.chunked or not bounded)
        self.delimited = bounded or self._chunked
        self._head = head
        self.size = 0

    @property
    def endless(self) -> bool:
        """Whether silence in it is no fault: server-sent events."""
        return is_event_stream(self._head)

    def head(self, correlation_id: bytes, origins: Origins, gateway: bytes, *, keep_alive: bool) -> bytes:
        """The response head. Server, Date and the like are the upstream's business: none is invented."""
        head = self._head
        parts = [_STATUS_LINE % (head.status, head.reason or b" ")]
        parts += response_lines(head, correlation_id, origins, gateway)
        if self._says_chunked:
            parts.append(b"Transfer-Encoding: chunked\r\n")
        if not keep_alive:
            parts.append(b"Connection: close\r\n")
        parts.append(b"\r\n")
        return b"".join(parts)

    def body(self, pieces: list[bytes], trailers: Fields, *, done: bool) -> list[bytes]:
        """What goes to the client for these pieces, and for the end."""
        if self._no_body:
            return []
        if len(pieces) == 1:
            self.size += len(pieces[0])
        else:
            self.size += sum(map(len, pieces))
        if not self._chunked:
            return pieces
        out = [encode_chunk(pieces)] if pieces else []
        if done:
            out.append(b"0\r\n%b\r\n" % trailer_lines(trailers))
        return out


def interim(head: ResponseHead, origins: Origins) -> bytes:
    """A 1xx response; it belongs to the exchange, not to the connection, so its end-to-end fields pass."""
    lines = response_lines(head, b"", origins, b"", own_id=True)
    return b"".join([_STATUS_LINE % (head.status, head.reason or b" "), *lines, b"\r\n"])


def grants(head: ResponseHead, protocol: bytes) -> bool:
    """Whether a 101 switches to the protocol that was asked for (none: empty), and to no other (RFC 9110 7.8)."""
    return bool(protocol) and [value.lower() for value in values_of(head.fields, b"upgrade")] == [protocol.lower()]


def switching(head: ResponseHead, correlation_id: bytes, origins: Origins, protocol: bytes) -> bytes:
    """The 101 that makes a tunnel of the connection."""
    lines = response_lines(head, correlation_id, origins, b"")
    return b"".join([_STATUS_LINE % (head.status, head.reason or b" "), *lines, upgrade_lines(protocol), b"\r\n"])
