"""A client's connection: reads requests, one after the other, and writes what the exchange has for it.

States, each with its deadline, which the gateway sweeps: idle (keep-alive), reading a head (``head_time`` from its
first byte, however it drips), an exchange (which sets it), a tunnel (none), and lingering, when an answer went out
before the request was read whole (RFC 9112 9.6: closing at once would reset the connection under the answer).
"""

import asyncio
import re
from math import inf
from typing import Final, cast

from proxy.gateway.bodies import BodyReader, ChunkedReader, LengthReader
from proxy.gateway.farewell import ClientEnd
from proxy.gateway.fields import MessageError
from proxy.gateway.http1 import HEAD_END, RequestHead, find_head_end, glimpse, parse_request
from proxy.gateway.problems import Problem, head_slow
from proxy.gateway.seams import Carried, Request, Service, Stream, Verdict

_EMPTY_LINES: Final = re.compile(rb"(?:\r\n)+")
_DENIED_SECONDS: Final = 2.0  # for a head from an address that is refused whatever it asks
_PIPELINE_MAX: Final = 64 * 1024  # bytes of later requests taken in while one is under way
_WRITE_HIGH: Final = 128 * 1024


class Inbound(ClientEnd):
    """See the module. ``started``: when the head of the current request was whole."""

    __slots__ = (
        "_buffer",
        "_exchange",
        "_held",
        "_reader",
        "_seen",
        "_tunnel",
        "has_certificate",
        "peer",
        "scheme",
        "started",
        "verdict",
    )

    def __init__(self, gateway: Service, *, secure: bool, peer: str = "") -> None:
        """peer: of a client that has entered already, to negotiate TLS."""
        super().__init__(gateway)
        self.gateway: Service = gateway
        self.scheme = b"https" if secure else b"http"
        self.peer = peer
        self.verdict: Verdict = "ask"  # who may use it, where the address alone decides
        self.has_certificate = False
        self.started = 0.0
        self._buffer = b""
        self._exchange: Request | None = None
        self._held: tuple[RequestHead, Problem] | None = None  # an answer that is held back
        self._tunnel: Stream | None = None
        self._reader: BodyReader | None = None
        self._seen = 0  # bytes of the buffer that hold no end of a head

    @property
    def _carried(self) -> Carried | None:
        return self._tunnel or self._exchange

    @property
    def idle(self) -> bool:
        """Between two requests."""
        return self._carried is None and not self._buffer and not self.leaving

    # -- asyncio.Protocol ---------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop's is none by inheritance
        self.transport.set_write_buffer_limits(high=_WRITE_HIGH)
        self.deadline = self.gateway.clock() + self.gateway.limits.head_time
        if not self.peer:
            peername = transport.get_extra_info("peername")
            if not isinstance(peername, tuple):  # gone before it was accepted: nobody to judge, to count or to answer
                self.transport.abort()
                return
            self.peer = peername[0]
        self.has_certificate = bool(transport.get_extra_info("peercert"))
        problem = self.gateway.connected(self)
        if problem is not None:  # one too many: told once and closed, never lingered with
            self.started = self.gateway.clock()
            self.gateway.refuse(self, None, problem, keep_alive=False)
            self.close()
        elif self.verdict == "denied":
            self.deadline = min(self.deadline, self.gateway.clock() + _DENIED_SECONDS)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - a client that leaves is no error
        self.transport = None
        self._answer_held()
        self.gateway.disconnected(self)
        carried, self._exchange, self._tunnel = self._carried, None, None
        if carried is not None:
            carried.client_gone()

    def eof_received(self) -> bool:
        # Half-closed and gone look alike until something is written: an answer that comes soon is sent (A25). TLS knows
        # no half-close, its transport warns of a True; a tunnel ends with either side (RFC 9110 9.3.6).
        if self._exchange is None or self._reader is not None or self.scheme == b"https":
            self.close()
            return False
        self.half_closed()
        return True

    def pause_writing(self) -> None:
        self.writing_paused = True
        if (carried := self._carried) is not None:
            carried.client_writable(False)

    def resume_writing(self) -> None:
        self.writing_paused = False
        if (carried := self._carried) is not None:
            carried.client_writable(True)
        elif not self.leaving:
            self._go_on()

    def data_received(self, data: bytes) -> None:
        if self._tunnel is not None:
            self._tunnel.client_data(data)
        elif self._reader is not None:
            self._read_body(self._reader, data)
        elif self.leaving:
            self.linger()
        elif self._exchange is not None or self.writing_paused or self._held is not None:
            self._buffer += data
            if len(self._buffer) > _PIPELINE_MAX:
                self.pause_reading()
        else:
            self._read_head(data)

    # -- reading ------------------------------------------------------------------------------------------------

    def _read_head(self, data: bytes) -> None:
        limits = self.gateway.limits
        if self._buffer:
            data = self._buffer + data
        seen = self._seen
        if (empty := _EMPTY_LINES.match(data)) is not None:  # RFC 9112 2.2: ignored before a request line
            data, seen = data[empty.end() :], 0
        if not data or data == b"\r":  # still idle, however many of them come
            self._buffer, self._seen = data, 0
            return
        try:
            end = data.find(HEAD_END) if not seen else -1
            if not 0 <= end <= limits.head_size:
                end = find_head_end(data, seen, limits.head_size, limits.target_size)
            if end < 0:
                if not seen:
                    denied = self.verdict == "denied"
                    self.deadline = self.gateway.clock() + (_DENIED_SECONDS if denied else limits.head_time)
                self._buffer, self._seen = data, len(data)
                self.resume_reading()
                return
            self._seen = 0
            head = parse_request(data, end, limits.target_size)
        except MessageError as error:
            kind, name = error.fault, "http_request_error"
            self.refuse(Problem(kind, error.status, name, f"The request was refused: {error.words}."), data)
            return
        self.started = self.gateway.clock()
        rest = self._buffer = data[end + 4 :]
        has_body = head.chunked or bool(head.length)
        exchange = self.gateway.open(self, head)
        if isinstance(exchange, Problem):
            if exchange.hold:
                self._held, self._buffer = (head, exchange), b""
                self.deadline = self.gateway.clock() + exchange.hold
                self.pause_reading()
                return
            # What follows a body that nobody reads is no request; without one the connection goes on.
            keep_alive = head.keep_alive and not (has_body or self.gateway.draining or self.verdict == "denied")
            self.gateway.refuse(self, head, exchange, keep_alive=keep_alive)
            self.finished(keep_alive=keep_alive)
            return
        self._exchange = exchange
        if has_body:
            self._buffer = b""
            self._reader = ChunkedReader() if head.chunked else LengthReader(head.length or 0)
            if rest:
                self._read_body(self._reader, rest)
        exchange.start()

    def _read_body(self, reader: BodyReader, data: bytes) -> None:
        exchange = self._exchange
        if exchange is None:
            return
        try:
            pieces = reader.feed(data)
        except MessageError as error:
            self._reader = None
            exchange.give_up(Problem("request", 400, "http_request_error", f"The body was refused: {error.words}."))
            return
        if reader.done:
            self._buffer = reader.rest
            self._reader = None
        exchange.body(pieces, reader.trailers, done=reader.done)
        if reader.more or self.catching_up:
            self.catch_up(reader.more and self._reader is reader)

    def read_on(self) -> None:
        if self._reader is not None:
            self._read_body(self._reader, b"")

    def refuse(self, problem: Problem, data: bytes) -> None:
        """Answer what never became an exchange, and close: where the next request begins cannot be known."""
        self.started = self.gateway.clock()
        self.gateway.refuse(self, glimpse(data), problem, keep_alive=False)
        self._close_gently()

    def _answer_held(self) -> None:
        """The answer to whoever tries credentials, and the end of its connection."""
        if (held := self._held) is not None:
            self._held = None
            self.gateway.released(self)
            self.gateway.refuse(self, *held, keep_alive=False)
            self._close_gently()

    def resume_reading(self) -> None:
        """Read on, unless later requests fill the buffer already."""
        if self._exchange is None or self._reader is not None or len(self._buffer) <= _PIPELINE_MAX:
            super().resume_reading()

    # -- the exchange's side ------------------------------------------------------------------------------------

    def finished(self, *, keep_alive: bool) -> None:
        """The answer is complete."""
        self._exchange = None
        if self.transport is None:
            return
        if not keep_alive or self._reader is not None:
            self._close_gently()
            return
        if self.gone_at < inf and not self._buffer:
            self.close()
            return
        if self.writing_paused:  # whoever does not take answers gets no further ones: they would pile up here (A21)
            self.deadline = self.gateway.clock() + self.gateway.limits.body_idle
            self.pause_reading()
        else:
            self._go_on()

    def _go_on(self) -> None:
        self.deadline = self.gateway.clock() + self.gateway.limits.keepalive
        if len(self._buffer) > _PIPELINE_MAX:
            self.pause_reading()
        elif self.reading_paused:
            self.resume_reading()
        if self._buffer:  # a pipelined request; not from here, so that a long pipeline does not deepen the stack
            asyncio.get_running_loop().call_soon(self._next)

    def _next(self) -> None:
        if self._buffer and self._exchange is None and self.transport is not None and not self.transport.is_closing():
            data, self._buffer = self._buffer, b""
            self._read_head(data)
            if self.gone_at < inf and self._exchange is None:
                self.close()

    def become_tunnel(self, tunnel: Stream) -> bytes:
        """No more HTTP on this connection. Gives what the client has already sent into the tunnel."""
        self._tunnel, self._exchange, self.tunnelled = tunnel, None, True
        early, self._buffer = self._buffer, b""
        self.resume_reading()
        return early

    def break_off(self, problem: Problem) -> None:
        """No time is left: an answer that has not begun is the problem, all else ends as it is."""
        if self._exchange is not None:
            self._exchange.give_up(problem)
        else:
            self.abort()

    def _close_gently(self) -> None:
        self._reader = None
        self._buffer = b""
        self.catch_up(False)
        self.close_gently()

    # -- deadlines ----------------------------------------------------------------------------------------------

    def expired(self, now: float) -> None:
        """A deadline has passed (called by the sweep)."""
        if self.leaving:
            self.farewell()
            return
        if self.gone_at <= now:
            self.look_for_client()
            return
        self.deadline = inf
        if (carried := self._carried) is not None:
            carried.expired()
        elif self._held is not None:
            self._answer_held()
        elif self.writing_paused:
            self.abort()
        elif self._buffer:
            self.refuse(head_slow(self.gateway.limits.head_time), self._buffer)
        else:
            self.close()
