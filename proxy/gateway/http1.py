"""HTTP/1.1 heads: bytes in, a head or an error out. Pure; the grammar of RFC 9110 5 and RFC 9112 2 to 6.

One regular expression checks and cuts a whole field block in one pass, and what it cuts are the peer's own bytes: a
line that nobody has to change is forwarded as it came. Whatever the grammar does not allow is an error and never
repaired (bare LF, obs-fold, spaces before the colon, a second Host): where two readers of a message could differ,
RFC 9112 11.2 lets an attacker put a request. Why this is not aiohttp's parser: docs/decisions/0001.
"""

import re
from typing import Final

from proxy.gateway.fields import (
    CODING,
    CONNECTION,
    CONTENT_CODING,
    CONTENT_TYPE,
    CORRELATION_ID,
    EXPECT,
    FIELD,
    HOST,
    LENGTH,
    MEMORY_SIZE,
    NAME_MAX,
    ONCE,
    REQUEST_NAMES,
    RESPONSE_NAMES,
    TOKEN,
    UPGRADE,
    Fields,
    MessageError,
    elements,
    meanings,
)

# No registered method has more than 17 letters.
_REQUEST_LINE: Final = re.compile(rb"(" + TOKEN[:-2] + rb"{1,32}+) ([\x21\x22\x24-\x7e\x80-\xff]+) HTTP/(\d)\.(\d)\r\n")
_LINE_BEGUN: Final = re.compile(rb"(" + TOKEN[:-2] + rb"{1,32}+) (/[\x21\x22\x24-\x7e\x80-\xff]*)")
_CORRELATION_LINE: Final = re.compile(rb"(?i)\r\nx-correlation-id:[ \t]*+([\x21-\x7e]{1,256})[ \t]*+\r\n")
_STATUS_LINE: Final = re.compile(rb"HTTP/1\.([01]) ([1-9]\d\d)((?: [\t\x20-\x7e\x80-\xff]*)?)\r\n")
_HOST: Final = re.compile(rb"(?:[A-Za-z0-9\-._~%!$&'()*+,;=]+|\[[0-9A-Fa-f:.]+\])(?::\d{0,5})?")
_ABSOLUTE: Final = re.compile(rb"(?i:https?)://([^/?#]*)(.*)", re.DOTALL)
_LENGTH: Final = re.compile(rb"\d{1,18}")
_BARE_LF: Final = re.compile(rb"(?<!\r)\n")
_LINE_END: Final = b"\r\n"
HEAD_END: Final = b"\r\n\r\n"
_FIELDS_MAX: Final = 512  # lines of a request's head; head_size bounds only their bytes (RFC 6585 5)


_NOTHING: Final[frozenset[bytes]] = frozenset()


# The objects of one request have class-level defaults instead of slots: only what differs is set, which counts at one
# object a request (docs/performance.md).


class RequestHead:
    """A request's head. target: as it goes on (origin-form or ``*``), byte for byte. length: None without one.

    options: what ``Connection`` names, lower case. dropped: all that ends at the gateway for this request only, folded
    (RequestRules.build says what). upgrade: the value of ``Upgrade`` when Connection asks for it. origin: where the
    client came to, by the word of a trusted proxy, scheme and all.
    """

    host: bytes = b""
    length: int | None = None
    chunked: bool = False
    expects_continue: bool = False
    upgrade: bytes = b""
    options: frozenset[bytes] = _NOTHING
    dropped: frozenset[bytes] = _NOTHING
    correlation_id: bytes = b""
    origin: bytes = b""

    def __init__(self, method: bytes, target: bytes, minor: int, fields: Fields) -> None:
        self.method = method
        self.target = target
        self.path = target.partition(b"?")[0] if b"?" in target else target
        self.minor = minor
        self.fields = fields
        self.keep_alive = minor == 1


class ResponseHead:
    """A response's head. length: None when no Content-Length. no_body: whatever the fields say (RFC 9112 6.3)."""

    length: int | None = None
    chunked: bool = False
    no_body: bool = False
    options: frozenset[bytes] = _NOTHING
    content_type: bytes = b""
    content_coding: bytes = b""

    def __init__(self, status: int, reason: bytes, fields: Fields, keep_alive: bool) -> None:
        self.status = status
        self.reason = reason
        self.fields = fields
        self.keep_alive = keep_alive


def find_head_end(buffer: bytes, start: int, limit: int, target_limit: int | None = None) -> int:
    """Where the head's empty line begins, or -1 when more bytes are needed.

    start: how much an earlier call has seen. Raises MessageError once the head is larger than limit, a request's
    target larger than target_limit, or when it holds a bare LF: waiting for a CRLF that never comes would turn a
    malformed request into a slow one.
    """
    end = buffer.find(HEAD_END, max(0, start - 3))
    if target_limit is not None and (end < 0 or end > limit):
        _check_target_size(buffer, target_limit)
    if end > limit or (end < 0 and len(buffer) > limit):
        raise MessageError("the header section is too large", 431, "limit")
    if end < 0 and _BARE_LF.search(buffer, max(0, start - 1)):
        raise MessageError("a line ends in a bare LF")
    return end


def _check_target_size(buffer: bytes, limit: int) -> None:
    """Refuse a request line that is longer than limit before its end has been seen (414, RFC 9110 15.5.15)."""
    line = buffer.find(_LINE_END)
    if (len(buffer) if line < 0 else line) > limit + 64:
        raise MessageError("the request target is too long", 414, "limit")


def parse_request(data: bytes, end: int, target_limit: int) -> RequestHead:
    """Read the head that ends at ``data[end:end+4]``. Raises MessageError with the status for the client."""
    match = _REQUEST_LINE.match(data)
    if match is None:
        _check_target_size(data, target_limit)
        raise MessageError("the request line is malformed")
    method, target, major, minor = match.groups()
    if len(target) > target_limit:
        raise MessageError("the request target is too long", 414, "limit")
    if major != b"1" or minor not in b"01":
        raise MessageError("only HTTP/1.0 and HTTP/1.1 are spoken here", 505)
    fields: Fields = FIELD.findall(data, match.end(), end + 2)
    if len(fields) > _FIELDS_MAX:
        raise MessageError("there are too many header lines", 431, "limit")
    head = RequestHead(method, target, 1 if minor == b"1" else 0, fields)
    found = meanings(fields, _request_memory, REQUEST_NAMES)
    # RFC 9112 3.2: missing (in 1.1), repeated and invalid are all answered with 400.
    host = found.get(HOST)
    if host is not None:
        if host not in _known_hosts and not _is_host(host):
            raise MessageError(ONCE[HOST])
        head.host = host
    elif minor == b"1":
        raise MessageError("the Host header is missing")
    if target[0] != _SLASH:
        _set_target(head)
    if len(found) > 1 or host is None:
        _set_request_meaning(head, found)
    return head


def glimpse(data: bytes) -> RequestHead | None:
    """What shows of a request that is not understood: method, path and correlation id, for its answer and the log."""
    match = _REQUEST_LINE.match(data) or _LINE_BEGUN.match(data)
    if match is None:
        return None
    target = match[2] if match[2].startswith(b"/") else b""  # another form may hold a password
    head = RequestHead(match[1], target, 1, [])
    found = _CORRELATION_LINE.search(data, 0, data.find(HEAD_END) + 2)
    head.correlation_id = found[1] if found is not None else b""
    return head


_SLASH: Final = ord("/")
_request_memory: dict[bytes, int] = {}
_response_memory: dict[bytes, int] = {}
_known_hosts: set[bytes] = set()


def _is_host(host: bytes) -> bool:
    if not _HOST.fullmatch(host):
        return False
    if len(_known_hosts) < MEMORY_SIZE and len(host) <= NAME_MAX:
        _known_hosts.add(host)
    return True


def _set_target(head: RequestHead) -> None:
    # RFC 9112 3.2.2: absolute-form is accepted; its authority stands in for Host and never picks the upstream.
    if head.target == b"*" and head.method == b"OPTIONS":
        return
    if head.method.upper() == b"CONNECT":  # authority-form (RFC 9112 3.2.3): the method is what is refused
        return
    match = _ABSOLUTE.fullmatch(head.target)
    if match is None or not _HOST.fullmatch(match[1]):
        raise MessageError("the request target is neither a path nor an absolute http(s) URL")
    head.host = match[1]
    rest = match[2]
    if not rest and head.method == b"OPTIONS":  # RFC 9112 3.2.4: of the server as a whole
        head.target = b"*"
    else:
        head.target = rest if rest[:1] == b"/" else b"/" + rest
    head.path = head.target.partition(b"?")[0]


def _set_request_meaning(head: RequestHead, found: dict[int, bytes]) -> None:
    coding = found.get(CODING)
    length = found.get(LENGTH)
    if coding is not None:
        if length is not None:
            raise MessageError("Content-Length and Transfer-Encoding together make the body's length ambiguous")
        if head.minor == 0 or coding.lower() != b"chunked":
            raise MessageError(ONCE[CODING])
        head.chunked = True
    elif length is not None:
        head.length = parse_length(length)
    if connection := found.get(CONNECTION):
        head.options = elements(connection)
        head.keep_alive = head.minor == 1 and b"close" not in head.options
        if b"upgrade" in head.options and head.minor == 1:  # RFC 9110 7.8: of a 1.0 client it is ignored
            head.upgrade = found.get(UPGRADE, b"")
    if (expectation := found.get(EXPECT)) is not None:
        # RFC 9110 10.1.1: the one expectation there is; of a 1.0 client it is ignored.
        if expectation.lower() != b"100-continue":
            raise MessageError(ONCE[EXPECT], 417)
        head.expects_continue = head.minor == 1 and (head.chunked or bool(head.length))
    if (correlation_id := found.get(CORRELATION_ID)) is not None:
        head.correlation_id = correlation_id
        if not correlation_id:  # counts as absent, so it must not go on beside the one that is made
            head.options |= {b"x-correlation-id"}


def parse_length(value: bytes) -> int:
    """Content-Length as one plain decimal. RFC 9110 8.6 would allow a list of equal values; here it is refused."""
    if not _LENGTH.fullmatch(value):
        raise MessageError(ONCE[LENGTH])
    return int(value)


def parse_response(data: bytes, end: int, method: bytes) -> ResponseHead:
    """Read an upstream's response head. Stricter than most clients: what could be read in two ways is an error."""
    match = _STATUS_LINE.match(data)
    if match is None:
        raise MessageError("the status line is malformed")
    minor, code, reason = match.groups()
    fields: Fields = FIELD.findall(data, match.end(), end + 2)
    status = int(code)
    head = ResponseHead(status, reason, fields, minor == b"1")
    found = meanings(fields, _response_memory, RESPONSE_NAMES)
    get = found.get
    length = get(LENGTH)
    if length is not None:
        head.length = parse_length(length)
    if (content_type := get(CONTENT_TYPE)) is not None:
        head.content_type = content_type
    if (content_coding := get(CONTENT_CODING)) is not None:
        head.content_coding = content_coding
    if (connection := get(CONNECTION)) is not None:
        head.options = elements(connection)
        if minor == b"1":
            head.keep_alive = b"close" not in head.options
    if (coding := get(CODING)) is not None:
        if length is not None or minor == b"0" or coding.lower() != b"chunked":
            raise MessageError("the response's body length is ambiguous")
        head.chunked = True
    if status < 200 or status in (204, 304) or method == b"HEAD":
        head.no_body = True
    return head
