"""A connection to an upstream, and one exchange at a time over it.

It owns what comes from the upstream: it reads heads and bodies and hands them to its exchange, one call per read.
Which connections are idle is the pool's business (``pool.py``).
"""

import asyncio
import select
import ssl
from contextlib import suppress
from typing import Final, Protocol, cast

from proxy import tls
from proxy.gateway.bodies import BodyReader, ChunkedReader, EofReader, LengthReader
from proxy.gateway.fields import Fields, MessageError
from proxy.gateway.http1 import HEAD_END, ResponseHead, find_head_end, parse_response
from proxy.gateway.intake import Intake
from proxy.gateway.relation import Exchange, UpstreamError
from proxy.sockets import keep_watch

_HEAD_MAX: Final = 64 * 1024
_INFORMATIONAL_MAX: Final = 16  # RFC 9110 15.2 sets no bound; a flood of them would be an endless response head
_FAREWELL_SECONDS: Final = 30.0
_WRITE_HIGH: Final = 128 * 1024
_NO_TRAILERS: Final[Fields] = []


class Owner(Protocol):
    """Who keeps the connections: the pool."""

    def release(self, connection: "UpstreamConnection") -> None:
        """An exchange is over and its connection clean."""

    def forget(self, connection: "UpstreamConnection") -> None:
        """The connection is closed or about to be."""


class UpstreamConnection(Intake):
    """One connection. ``used``: how many exchanges it has carried; a first one cannot meet a stale connection."""

    __slots__ = (
        "_buffer",
        "_ended",
        "_head",
        "_informational",
        "_poll",
        "_pool",
        "_reader",
        "_reusable",
        "_tunnel",
        "exchange",
        "fate",
        "idle_until",
        "touched",
        "used",
    )

    def __init__(self, pool: Owner) -> None:
        super().__init__()
        self._pool = pool
        self._poll: select.poll | None = None  # made for the first request that may not be repeated
        self._buffer = b""
        self._head: ResponseHead | None = None
        self._reader: BodyReader | None = None
        self._informational = 0
        self._reusable = False
        self._tunnel = False
        self._ended = False  # the upstream has said that it sends no more
        self.exchange: Exchange | None = None
        self.used = 0
        self.touched = False  # a byte of the current response has arrived
        self.fate: Exception | None = None  # what ended it, where that was an error
        self.idle_until = 0.0

    # -- asyncio.Protocol ---------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop's is none by inheritance
        self.transport.set_write_buffer_limits(high=_WRITE_HIGH)
        with suppress(OSError):  # gone already: connection_lost follows
            keep_watch(transport.get_extra_info("socket"))

    def data_received(self, data: bytes) -> None:
        exchange = self.exchange
        if exchange is None:
            if not self._tunnel:  # nobody asked for anything: whatever this is, it must not become the next answer
                self.close()
            return
        self.touched = True
        if self._tunnel:
            exchange.tunnelled(data)
            return
        try:
            self._feed(exchange, data)
        except MessageError as error:
            self._fail(
                UpstreamError("protocol", "http_protocol_error", f"the upstream broke the protocol: {error.words}")
            )

    def eof_received(self) -> bool:
        self._ended = self.transport is not None and _is_proper(self.transport.get_extra_info("ssl_object"))
        return False  # the transport closes itself and connection_lost follows

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport, self.fate = None, exc
        exchange = self.exchange
        if exchange is None:
            self._pool.forget(self)
            return
        reader = self._reader
        if not self._tunnel and exc is None and self._ended and reader is not None and reader.eof():
            self._finish(exchange, None, [], reader.trailers, clean=False)
            return
        self._fail(ended(exc, touched=self.touched))

    def pause_writing(self) -> None:
        if self.exchange is not None:
            self.exchange.upstream_writable(False)

    def resume_writing(self) -> None:
        if self.exchange is not None:
            self.exchange.upstream_writable(True)

    # -- the exchange's side ------------------------------------------------------------------------------------

    def begin(self, exchange: Exchange, data: bytes) -> None:
        """Send a request's head (and what there is of its body)."""
        self.exchange = exchange
        self.used += 1
        self.touched = False
        self._informational = 0
        if self.transport is not None:
            self.transport.write(data)

    def write(self, data: bytes) -> None:
        """Send more of the request or of the tunnel."""
        if self.transport is not None:
            self.transport.write(data)

    def abandon(self) -> None:
        """The exchange wants nothing more of this connection."""
        self.exchange = None
        self.close()

    def finish_tunnel(self) -> None:
        """The client's side of a tunnel has ended: send what is still to be sent, then close."""
        self.exchange = None
        if self.transport is not None:  # it counts as a connection until it is gone
            self.resume_reading()  # what still comes is dropped: unread, it could keep the upstream from reading
            self.transport.close()
            asyncio.get_running_loop().call_later(_FAREWELL_SECONDS, self.transport.abort)

    def close(self) -> None:
        """Close it now; it is never used again."""
        self._pool.forget(self)
        if self.transport is not None:
            self.transport.abort()

    @property
    def is_open(self) -> bool:
        """As far as the loop knows."""
        return self.transport is not None and not self.transport.is_closing()

    def is_stale(self) -> bool:
        """Whether the upstream has said or closed something meanwhile that the loop has not read yet (A26)."""
        if self.transport is None:
            return True
        if self._poll is None:
            self._poll = select.poll()
            self._poll.register(self.transport.get_extra_info("socket").fileno(), select.POLLIN)
        return bool(self._poll.poll(0))

    # -- reading ------------------------------------------------------------------------------------------------

    def _feed(self, exchange: Exchange, data: bytes) -> None:
        reader, head = self._reader, None
        if reader is None:
            seen = len(self._buffer)
            if seen:
                data = self._buffer + data
            head, data = self._read_head(exchange, data, seen)
            if head is None:
                self._buffer = data
                return
            self._buffer = b""
            if head.status == 101:
                self._tunnel = True
                exchange.switched(head, data)
                return
            if len(data) == head.length and not head.no_body and not head.chunked:  # nearly every answer: whole at once
                self._finish(exchange, head, [data] if data else [], _NO_TRAILERS, clean=True)
                return
            reader = self._reader = _reader_for(head)
        pieces = reader.feed(data) if data or reader.more else []
        if reader.more or self.catching_up:
            self.catch_up(reader.more)
        if reader.done:
            self._finish(exchange, head, pieces, reader.trailers, clean=not reader.rest)
        else:
            exchange.received(head, pieces, False, reader.trailers)

    def read_on(self) -> None:
        if self.exchange is not None:
            self.data_received(b"")

    def _read_head(self, exchange: Exchange, data: bytes, seen: int) -> tuple[ResponseHead | None, bytes]:
        while True:
            end = data.find(HEAD_END) if not seen else -1
            if not 0 <= end <= _HEAD_MAX:
                end = find_head_end(data, seen, _HEAD_MAX)
                if end < 0:
                    return None, data
            head = parse_response(data, end, exchange.method)
            data = data[end + 4 :]
            if head.status >= 200 or head.status == 101:
                self._head = head
                return head, data
            self._informational += 1
            if self._informational > _INFORMATIONAL_MAX:
                raise MessageError("it sent too many interim responses")
            exchange.informational(head)
            if self.exchange is None:  # the exchange gave up meanwhile
                return None, b""
            seen = 0

    def _finish(
        self, exchange: Exchange, head: ResponseHead | None, pieces: list[bytes], trailers: Fields, *, clean: bool
    ) -> None:
        answered, self._head, self._reader = self._head, None, None
        self._reusable = clean and answered is not None and answered.keep_alive
        exchange.received(head, pieces, True, trailers)

    def settle(self, *, request_done: bool) -> None:
        """The response is complete: back to the pool when both messages ended cleanly, else closed."""
        self.exchange = None
        if self._reusable and request_done and self.transport is not None and not self.transport.is_closing():
            self.resume_reading()
            self._pool.release(self)
        else:
            self.close()

    def _fail(self, error: UpstreamError) -> None:
        exchange, self.exchange = self.exchange, None
        self.close()
        if exchange is not None:
            exchange.upstream_lost(error)


def ended(exc: Exception | None, *, touched: bool) -> UpstreamError:
    """A connection's end where something was still awaited. touched: a byte of the answer had come."""
    if isinstance(exc, ssl.SSLError):  # TLS 1.3: what a server has against us it says after our side of the handshake
        words = f"the upstream ended the TLS connection: {tls.explain(exc)}"
        return UpstreamError("tls", "tls_protocol_error", words)
    words = "the upstream closed the connection before its answer was complete"
    return UpstreamError("reset", "http_response_incomplete" if touched else "connection_terminated", words)


def _is_proper(secured: ssl.SSLObject | None) -> bool:
    """Whether an end of input was the peer's own doing. Over TLS only its closure alert says so (RFC 9112 9.8): a FIN
    can come from anybody on the way. uvloop tells of nothing else, asyncio of both; OpenSSL knows."""
    try:
        return secured is None or secured.read(1) == b""
    except ssl.SSLError:
        return False


def _reader_for(head: ResponseHead) -> BodyReader:
    # RFC 9112 6.3, in its order.
    if head.no_body:
        return LengthReader(0)
    if head.chunked:
        return ChunkedReader()
    if head.length is not None:
        return LengthReader(head.length)
    return EofReader()
