"""Message bodies: bytes in, pieces out (RFC 9112 6 and 7). Pure.

Three readers of one shape: ``feed(data)`` gives the body's pieces found in data, ``done`` says that the body has ended
and ``rest`` then holds the bytes after it. A piece is the peer's own buffer wherever that is possible. ``more`` says
that not all of what was fed has been read: one read of a socket may hold 40,000 chunks of one byte, and whoever sends
those must not have the event loop for all of them at once.
"""

import re
from typing import Final, Protocol

from proxy.gateway.fields import Fields, MessageError, split_fields

_SMALL_CHUNK: Final = re.compile(rb"([0-9A-Fa-f]{1,4})\r\n")
_CHUNK_LINE: Final = re.compile(rb"([0-9A-Fa-f]{1,15})(?:[ \t]*;[\t\x20-\x7e\x80-\xff]*)?")
# Nobody sends meaningful extensions (RFC 9112 7.1.1 asks recipients to bound them); both limits are per body.
_CHUNK_LINE_MAX: Final = 4096
_EXTENSIONS_MAX: Final = 16 * 1024
# So is padding (CVE-2023-39326): what framing costs beyond eight bytes for one of content. A size of up to four digits,
# without extensions, never does, so a server may send characters one by one for ever; a row of zeros before each does.
_PADDING_MAX: Final = 64 * 1024
_TRAILERS_MAX: Final = 16 * 1024
_STEPS_MAX: Final = 256  # chunks, or parts of one, that are read in one go: as long as a request or two take


class BodyReader(Protocol):
    """What a connection needs of a body in transit."""

    done: bool
    rest: bytes
    trailers: Fields

    @property
    def more(self) -> bool:
        """Whether ``feed(b"")`` is due."""

    def feed(self, data: bytes) -> list[bytes]:
        """The pieces of the body found in data. Raises MessageError when the framing is broken."""

    def eof(self) -> bool:
        """The connection has ended: whether that is this body's proper end."""


class LengthReader:
    """A body of a known number of bytes."""

    __slots__ = ("done", "remaining", "rest", "trailers")
    more = False

    def __init__(self, length: int) -> None:
        self.remaining = length
        self.done = length == 0
        self.rest = b""
        self.trailers: Fields = []

    def feed(self, data: bytes) -> list[bytes]:
        """See BodyReader."""
        size = len(data)
        if size < self.remaining:
            self.remaining -= size
            return [data] if size else []
        cut, self.remaining, self.done = self.remaining, 0, True
        if size == cut:
            return [data] if size else []
        self.rest = data[cut:]
        return [data[:cut]] if cut else []

    def eof(self) -> bool:
        """See BodyReader."""
        return self.done


class EofReader:
    """A response body that ends with the connection (RFC 9112 6.3, 8)."""

    __slots__ = ("done", "rest", "trailers")
    more = False

    def __init__(self) -> None:
        self.done = False
        self.rest = b""
        self.trailers: Fields = []

    def feed(self, data: bytes) -> list[bytes]:
        """See BodyReader."""
        return [data] if data else []

    def eof(self) -> bool:
        """See BodyReader."""
        self.done = True
        return True


class ChunkedReader:
    """The chunked transfer coding, strictly (RFC 9112 7.1): CRLF only, hexadecimal sizes, bounded extras."""

    __slots__ = ("_buffer", "_extensions", "_in_trailers", "_padding", "_remaining", "done", "more", "rest", "trailers")

    def __init__(self) -> None:
        self._buffer = b""
        self._remaining = 0  # bytes of the current chunk still to come, its CRLF included; 0 between chunks
        self._extensions = 0
        self._padding = 0
        self._in_trailers = False
        self.done = False
        self.more = False
        self.rest = b""
        self.trailers: Fields = []

    def feed(self, data: bytes) -> list[bytes]:
        """See BodyReader."""
        if self._buffer:
            data = self._buffer + data
            self._buffer = b""
            self.more = False
        pieces: list[bytes] = []
        position = 0
        for _ in range(_STEPS_MAX):
            if self._in_trailers:
                self._take_trailers(data[position:])
                return pieces
            inside = self._remaining > 0
            if not inside:
                position = self._take_small(data, position, pieces)
                if len(pieces) >= _STEPS_MAX:
                    break
            taken = self._take_data(data, position, pieces) if inside else self._take_line(data, position)
            if not taken:
                self._buffer = data[position:]
                return pieces
            position += taken
            if position == len(data):
                return pieces
        self._buffer = data[position:]
        self.more = bool(self._buffer)
        return pieces

    def _take_small(self, data: bytes, position: int, pieces: list[bytes]) -> int:
        """Take the whole small chunks that begin here, at a third of the price; the position of the first other."""
        for _ in range(_STEPS_MAX - len(pieces)):
            match = _SMALL_CHUNK.match(data, position)
            if match is None:
                break
            begin = match.end()
            end = begin + int(match[1], 16)
            if end == begin or data[end : end + 2] != b"\r\n":
                break
            pieces.append(data[begin:end])
            position = end + 2
        return position

    def _take_line(self, data: bytes, position: int) -> int:
        end = data.find(b"\r\n", position, position + _CHUNK_LINE_MAX + 2)
        if end < 0:
            if len(data) - position > _CHUNK_LINE_MAX + 1:
                raise MessageError("a chunk's size line is too long")
            if b"\n" in data[position:]:
                raise MessageError("a chunk's size line ends in a bare LF")
            return 0
        match = _CHUNK_LINE.fullmatch(data, position, end)
        if match is None:
            raise MessageError("a chunk's size is malformed")
        self._extensions += end - match.end(1)
        if self._extensions > _EXTENSIONS_MAX:
            raise MessageError("the chunk extensions are too large")
        size = int(match[1], 16)
        self._padding += max(0, end - position + 4 - 8 * size) if size else 0
        if self._padding > _PADDING_MAX:
            raise MessageError("the chunks are nearly all framing")
        if size:
            self._remaining = size + 2
        else:
            self._in_trailers = True
        return end + 2 - position

    def _take_data(self, data: bytes, position: int, pieces: list[bytes]) -> int:
        """Take what there is of a chunk and of the CRLF after it; 0 when more bytes are needed for the CRLF."""
        payload = self._remaining - 2
        available = len(data) - position
        if payload > 0:
            size = min(available, payload)
            pieces.append(data if size == len(data) else data[position : position + size])
            self._remaining -= size
            return size
        if not b"\r\n".startswith(data[position : position + 2]):
            raise MessageError("a chunk does not end where its size says")
        if available < 2:
            return 0
        self._remaining = 0
        return 2

    def _take_trailers(self, data: bytes) -> None:
        if data[:2] == b"\r\n":
            self.rest, self.done = data[2:], True
            return
        end = data.find(b"\r\n\r\n")
        if end > _TRAILERS_MAX or (end < 0 and len(data) > _TRAILERS_MAX):
            raise MessageError("the trailer section is too large")
        if end < 0:
            self._buffer = data
            return
        self.trailers = split_fields(data, 0, end + 2)
        self.rest, self.done = data[end + 4 :], True

    def eof(self) -> bool:
        """See BodyReader."""
        return self.done


def encode_chunk(pieces: list[bytes]) -> bytes:
    """One chunk of all pieces: what arrived together leaves together, without delay."""
    payload = pieces[0] if len(pieces) == 1 else b"".join(pieces)
    return b"%x\r\n%b\r\n" % (len(payload), payload) if payload else b""
