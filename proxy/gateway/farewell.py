"""The transport of a client's connection, and how it ends: what was written should arrive, nobody waits for ever.

RFC 9112 9.6: an answer that goes out before its request was read whole is followed by lingering, since closing at once
would reset the connection under it.
"""

import asyncio
import select
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from math import inf
from typing import Final, Protocol

from proxy.config import Limits
from proxy.gateway.intake import Intake

_HALF_CLOSED_SECONDS: Final = 1.0
_LINGER_SECONDS: Final = 2.0  # of silence
_LINGER_MAX: Final = 30.0  # seconds, for a client that goes on sending: many read no answer before all is sent
_HUNG_UP: Final = select.POLLHUP | select.POLLERR
_RESET: Final = struct.pack("ii", 1, 0)  # linger, for no time at all


class Setting(Protocol):
    """clock: monotonic seconds."""

    clock: Callable[[], float]
    limits: Limits


class ClientEnd(Intake):
    """Writing, pausing, closing. deadline: when ``expired`` is to be called; gone_at: when to look for the client.

    leaving: nothing but what is written already concerns the client any more.
    """

    __slots__ = (
        "_linger_until",
        "_unsent",
        "_wrote",
        "deadline",
        "gateway",
        "gone_at",
        "leaving",
        "tunnelled",
        "writing_paused",
    )

    def __init__(self, gateway: Setting) -> None:
        super().__init__()
        self.gateway = gateway
        self.deadline = inf
        self.gone_at = inf
        self.writing_paused = False
        self.leaving = False
        self.tunnelled = False
        self._linger_until = inf
        self._wrote = False  # since the client was last looked for
        self._unsent = 0  # bytes that the client had not taken when it was last looked at

    def write(self, data: bytes) -> None:
        """To the client."""
        if self.transport is not None:
            self._wrote = True
            self.transport.write(data)

    # -- the end ------------------------------------------------------------------------------------------------

    def address(self) -> bytes:
        """Where the client came to, as an authority: for an HTTP/1.0 client, which need not name a host."""
        host, port = self.transport.get_extra_info("sockname")[:2] if self.transport is not None else ("", 0)
        return (f"[{host}]:{port}" if ":" in host else f"{host}:{port}").encode("ascii")

    def close(self) -> None:
        """Close once everything written has gone out."""
        if self.transport is not None:
            self._leave(self.transport)
            self.transport.close()

    def close_gently(self) -> None:
        """Close our half, so that what the client still sends cannot reset the connection under the answer."""
        if self.transport is None or self.leaving:
            return
        if not self.transport.can_write_eof() or self.gone_at < inf:  # TLS has no half-close; or nothing more can come
            self.close()
            return
        self._leave(self.transport)
        self.resume_reading()
        self.transport.write_eof()

    def abort(self) -> None:
        """Break the connection off, so that no client takes what it has for the whole. By a reset: where only the end
        of the connection tells the end of a body, a plain close would be a proper one (A17)."""
        if self.transport is not None:
            with suppress(OSError):  # the client was faster
                self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            self.transport.abort()

    def _leave(self, transport: asyncio.Transport) -> None:
        if not self.leaving:
            self.leaving, self.gone_at = True, inf
            self._linger_until = self.gateway.clock() + _LINGER_MAX
            self._wait_for_client(transport)

    def _wait_for_client(self, transport: asyncio.Transport) -> None:
        self._unsent = transport.get_write_buffer_size()
        wait = self.gateway.limits.body_idle if self._unsent else _LINGER_SECONDS
        self.deadline = self.gateway.clock() + wait

    def linger(self) -> None:
        """More came of a request that nobody reads any more."""
        if not self._unsent:
            self.deadline = min(self.gateway.clock() + _LINGER_SECONDS, self._linger_until)

    def farewell(self) -> None:
        """A leaving client's time is up, unless it has taken something meanwhile."""
        if self.transport is None:
            return
        unsent = self.transport.get_write_buffer_size()
        if unsent < self._unsent:
            self._wait_for_client(self.transport)
        elif unsent:
            self.abort()
        else:
            self.transport.abort()  # no reset: what the kernel still holds may yet arrive

    # -- a client that may have gone ----------------------------------------------------------------------------

    def half_closed(self) -> None:
        """The client has closed its half, or has left: they look alike until something is written."""
        self.gone_at, self._wrote = self.gateway.clock() + _HALF_CLOSED_SECONDS, False

    def look_for_client(self) -> None:
        """It closed its half a while ago. As long as its answer moves it is there, unless the kernel knows better."""
        if self.transport is None:
            return
        moves = self._wrote or self.transport.get_write_buffer_size() > 0
        if moves and not self._hung_up(self.transport, _HUNG_UP):
            self.half_closed()
        else:
            self.abort()

    def check_alive(self) -> None:
        """While reading is paused the loop does not see a client leave; the sweep asks the kernel instead (A25).

        In a tunnel a client's end is no reason to lose what it sent before.
        """
        events = _HUNG_UP if self.tunnelled else _HUNG_UP | select.POLLRDHUP
        if self.transport is not None and self._hung_up(self.transport, events):
            self.abort()

    @staticmethod
    def _hung_up(transport: asyncio.Transport, events: int) -> bool:
        poll = select.poll()
        poll.register(transport.get_extra_info("socket").fileno(), events)
        return bool(poll.poll(0))
