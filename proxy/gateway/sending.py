"""The request body on its way out, and what is kept of it so that it can be sent again. Pure."""

from typing import Final

from proxy.gateway.bodies import encode_chunk
from proxy.gateway.fields import Fields
from proxy.gateway.headers import trailer_lines
from proxy.gateway.http1 import RequestHead


class SendingBody:
    """Pieces come in, bytes for the upstream go out.

    armed: everything received so far is kept, so the request can be sent again from its start (B2: only a body held
    whole, up to ``replay_limit``). counted: its connection counts as one of a request that is still coming. kept: how
    many bytes wait here. size: how many have come in all. undecided: the client waits to be told whether to send it
    (RFC 9110 10.1.1).
    """

    __slots__ = (
        "_chunked",
        "_due",
        "_expects",
        "_limit",
        "_pieces",
        "_trailers",
        "armed",
        "counted",
        "done",
        "kept",
        "size",
        "undecided",
    )

    def __init__(self, head: RequestHead, replay_limit: int) -> None:
        length = head.length or 0
        self._chunked = head.chunked
        self._due = False  # something came while it could not be written
        self._expects = self.undecided = head.expects_continue
        self._limit = replay_limit
        self._pieces: list[bytes] = []
        self._trailers: Fields = []
        self.armed = length <= replay_limit
        self.counted = False
        self.done = not head.chunked and not length
        self.kept = 0
        self.size = 0

    @property
    def replayable(self) -> bool:
        """Whether the request can be sent again now; with Expect and no body byte sent yet, any size can."""
        return self.armed or (self._expects and self.kept == self.size)

    def add(self, pieces: list[bytes], trailers: Fields, *, done: bool, connected: bool) -> bytes:
        """Take pieces from the client; the bytes to write now when connected (else they wait for ``first``)."""
        if len(pieces) > 1:  # kept as one: a body in chunks of two bytes would take twenty times its size
            pieces = [b"".join(pieces)]
        size = len(pieces[0]) if pieces else 0
        self.size += size
        self.done = done
        self.undecided = False
        self._trailers = trailers
        if self.armed or not connected:
            self._pieces += pieces
            self.kept += size
            if self.kept > self._limit:
                self.armed = False
                if connected:
                    self._forget()
        self._due = self._due or not connected
        return self._encode(pieces) if connected else b""

    def first(self) -> bytes:
        """All that is there when a connection is, the first or another one."""
        self._due = False
        if not self._pieces and not (self._chunked and self.done):
            return b""
        data = self._encode(self._pieces)
        if not self.armed:
            self._forget()
        return data

    def overdue(self) -> bytes:
        """What came while the connection that has the rest was not to be written to."""
        return self.first() if self._due else b""

    def _forget(self) -> None:
        self._pieces, self.kept = [], 0

    def _encode(self, pieces: list[bytes]) -> bytes:
        if not self._chunked:
            return pieces[0] if len(pieces) == 1 else b"".join(pieces)
        chunk = encode_chunk(pieces) if pieces else b""
        return chunk + b"0\r\n" + trailer_lines(self._trailers) + b"\r\n" if self.done else chunk


# What every request without a body shares: there is nothing to keep, and nothing is ever added.
NO_BODY: Final = SendingBody(RequestHead(b"GET", b"/", 1, []), 0)
