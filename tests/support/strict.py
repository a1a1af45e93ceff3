"""A second reading of HTTP/1.1, slow and plain, to judge the gateway by: what a message means by RFC 9110 and 9112.

Written from the grammar with nothing but ``split`` and ``find``, so that it shares no expression and no mistake with
``proxy.gateway``. Whatever could be read in two ways is broken.
"""

from dataclasses import dataclass, field

TCHAR = frozenset(b"!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")
TEXT = frozenset([9, *range(0x20, 0x7F), *range(0x80, 0x100)])
DIGITS = frozenset(b"0123456789")
HEX = frozenset(b"0123456789abcdefABCDEF")


class BrokenError(Exception):
    """No message, or one that two readers could understand differently."""


class MoreError(Exception):
    """The bytes end in the middle of a message."""


@dataclass
class Read:
    """start: the start line's three parts. fields: name in lower case, value. ends: by the connection's end only."""

    start: tuple[bytes, bytes, bytes]
    fields: list[tuple[bytes, bytes]]
    body: bytes = b""
    trailers: list[tuple[bytes, bytes]] = field(default_factory=list)
    ends: bool = False

    def all(self, name: bytes) -> list[bytes]:
        return [value for key, value in self.fields if key == name]

    @property
    def options(self) -> set[bytes]:
        """What Connection names."""
        return {word.strip(b" \t").lower() for word in b",".join(self.all(b"connection")).split(b",")} - {b""}


class Stream:
    """Bytes, and how far they have been read."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    @property
    def rest(self) -> bytes:
        return self.data[self.at :]

    def line(self) -> bytes:
        """Up to the next CRLF, without it. A CR or LF by itself is broken."""
        end = self.data.find(b"\r\n", self.at)
        found = self.data[self.at :] if end < 0 else self.data[self.at : end]
        if b"\n" in found or b"\r" in (found[:-1] if end < 0 else found):
            raise BrokenError("a CR or LF by itself")
        if end < 0:
            raise MoreError
        self.at = end + 2
        return found

    def take(self, size: int) -> bytes:
        if len(self.data) - self.at < size:
            raise MoreError
        self.at += size
        return self.data[self.at - size : self.at]


def requests(data: bytes) -> tuple[list[Read], str, int]:
    """All whole requests at the beginning of a client's bytes; what comes then: ``""`` for nothing, ``broken``, or
    ``more`` for part of one; and where that begins."""
    stream, found = Stream(data), list[Read]()
    while True:
        while stream.rest.startswith(b"\r\n"):
            stream.at += 2
        begun = stream.at
        if not stream.rest:
            return found, "", begun
        try:
            found.append(_request(stream))
        except BrokenError:
            return found, "broken", begun
        except MoreError:
            return found, "more", begun


def response(data: bytes, method: bytes, *, ended: bool = True) -> tuple[list[Read], bytes]:
    """The interim responses and the final one at the beginning of an upstream's bytes, and what follows. Raises
    BrokenError, or MoreError when it is not whole. ended: the connection has ended properly after these bytes."""
    stream, found = Stream(data), list[Read]()
    while True:
        found.append(_response(stream, method, ended=ended))
        if found[-1].start[1] >= b"200" or found[-1].start[1] == b"101":
            return found, stream.rest


def _request(stream: Stream) -> Read:
    line = stream.line()
    parts = line.split(b" ")
    if len(parts) != 3 or not parts[0] or not set(parts[0]) <= TCHAR or not parts[1]:
        raise BrokenError("the request line")
    if not all(0x21 <= byte != 0x7F for byte in parts[1]) or b"#" in parts[1]:
        raise BrokenError("the target")
    if parts[2] not in (b"HTTP/1.0", b"HTTP/1.1"):
        raise BrokenError("the version")
    read = Read((parts[0], parts[1], parts[2]), _fields(stream))
    hosts = read.all(b"host")
    if len(hosts) > 1 or (not hosts and parts[2] == b"HTTP/1.1"):
        raise BrokenError("the host")
    length, chunked = _framing(read, parts[2])
    if chunked:
        read.body, read.trailers = _chunked(stream)
    elif length is not None:
        read.body = stream.take(length)
    return read


def _response(stream: Stream, method: bytes, *, ended: bool) -> Read:
    line = stream.line()
    version, space, tail = line.partition(b" ")
    if version not in (b"HTTP/1.0", b"HTTP/1.1") or not space:
        raise BrokenError("the version")
    code, reason = tail[:3], tail[3:]
    if len(code) != 3 or not set(code) <= DIGITS or code < b"100" or (reason and reason[:1] != b" "):
        raise BrokenError("the status")
    if not set(reason) <= TEXT:
        raise BrokenError("the reason")
    read = Read((version, code, reason), _fields(stream))
    length, chunked = _framing(read, version)
    if code < b"200" or code in (b"204", b"304") or method == b"HEAD":
        return read
    if chunked:
        read.body, read.trailers = _chunked(stream)
    elif length is not None:
        read.body = stream.take(length)
    elif ended:
        read.body, read.ends = stream.take(len(stream.rest)), True
    else:
        raise MoreError
    return read


def _fields(stream: Stream) -> list[tuple[bytes, bytes]]:
    found = list[tuple[bytes, bytes]]()
    while line := stream.line():
        name, colon, value = line.partition(b":")
        if not colon or not name or not set(name) <= TCHAR or not set(value) <= TEXT:
            raise BrokenError("a field")
        found.append((name.lower(), value.strip(b" \t")))
    return found


def _framing(read: Read, version: bytes) -> tuple[int | None, bool]:
    codings, lengths = read.all(b"transfer-encoding"), read.all(b"content-length")
    if codings:
        if lengths or version == b"HTTP/1.0" or len(codings) > 1 or codings[0].lower() != b"chunked":
            raise BrokenError("the framing")
        return None, True
    if len(lengths) > 1 or (lengths and not (lengths[0] and set(lengths[0]) <= DIGITS and len(lengths[0]) <= 18)):
        raise BrokenError("the length")
    return (int(lengths[0]) if lengths else None), False


def _chunked(stream: Stream) -> tuple[bytes, list[tuple[bytes, bytes]]]:
    pieces = list[bytes]()
    while True:
        line = stream.line()
        size, semicolon, extension = line.partition(b";")
        size = size.rstrip(b" \t") if semicolon else size
        if not size or len(size) > 15 or not set(size) <= HEX or not set(extension) <= TEXT:
            raise BrokenError("a chunk's size")
        if int(size, 16) == 0:
            return b"".join(pieces), _fields(stream)
        pieces.append(stream.take(int(size, 16)))
        if stream.rest[:2] and not b"\r\n".startswith(stream.rest[:2]):
            raise BrokenError("a chunk's end")
        stream.take(2)
