"""What happens to each header field on its way through. Pure.

The order is the security property (RFC 9110 7.6.1, CVE-2021-33197, CVE-2025-48865): first everything that ends at the
gateway is dropped, the fields that ``Connection`` names included; only then does the gateway add its own. So a client
can neither remove nor add to what the gateway adds. A line nobody objects to is forwarded as the bytes it came as.
"""

from collections.abc import Iterable, Sequence
from typing import Final

from proxy.gateway.fields import NAME_MAX, Fields, value_of
from proxy.gateway.http1 import RequestHead, ResponseHead

# RFC 9110 7.6.1, and the two that RFC 9110 11.7 scopes to one hop. Framing is written anew from what was parsed.
_HOP_BY_HOP: Final = frozenset(
    (
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authentication-info",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"transfer-encoding",
        b"upgrade",
    )
)
_CORRELATION_ID: Final = b"x-correlation-id"
_FORWARDED: Final = (b"forwarded", b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host")
# Never in a trailer section: framing, routing, credentials, and what the gateway decides (RFC 9110 6.5.1).
_NEVER_TRAILERS: Final = _HOP_BY_HOP | {
    *_FORWARDED,
    b"authorization",
    b"content-encoding",
    b"content-length",
    b"content-range",
    b"content-type",
    b"cookie",
    b"expect",
    b"host",
    b"location",
    b"set-cookie",
    b"trailer",
    _CORRELATION_ID,
}
_MEMORY_SIZE: Final = 2048


def fold(name: bytes) -> bytes:
    """The name under which look-alikes fall together: case and, as CGI-like servers read it, underscore for dash."""
    return name.lower().replace(b"_", b"-")


class RequestRules:
    """One route's rules for request fields, with a bounded memory from the name as sent to "drop it".

    for_proxy: a complete line for the HTTP proxy that is asked in the upstream's place; the client's own ends here.
    """

    __slots__ = ("_drop", "_memory", "_suffix", "for_proxy")

    def __init__(
        self,
        *,
        injected: bytes | None,
        remove: Iterable[bytes] = (),
        add: Sequence[tuple[bytes, bytes]] = (),
    ) -> None:
        """injected: lower-case name of the credential's header. remove, add: the route's own ``headers``."""
        drop = {fold(name) for name in (*_HOP_BY_HOP, *remove, *(name for name, _ in add))}
        drop |= {b"host", b"content-length"}
        if injected is not None:
            drop.add(fold(injected))
        self._drop = frozenset(drop)
        self._memory: dict[bytes, bool] = {}
        self._suffix = b"".join(b"%b: %b\r\n" % pair for pair in add)
        self.for_proxy = b""

    def passes(self, name: bytes) -> bool:
        """Whether a field of this name goes on to the upstream."""
        known = self._memory.get(name)
        if known is None:
            folded = fold(name)
            # A second id beside ours, to a server that reads the look-alike (CGI), would be the client's word alone.
            known = folded not in self._drop and (folded != _CORRELATION_ID or name.lower() == _CORRELATION_ID)
            if len(self._memory) < _MEMORY_SIZE and len(name) <= NAME_MAX:
                self._memory[name] = known
        return known

    def passing(self, trailers: Fields, dropped: frozenset[bytes]) -> Fields:
        """The trailers that may go on by this route's rules: a server may merge them with the head (RFC 9110 6.5.1).

        dropped: the head's own, folded.
        """
        return [field for field in trailers if self.passes(field[1]) and fold(field[1]) not in dropped]

    def build(
        self,
        head: RequestHead,
        target: bytes,
        host: bytes,
        correlation_id: bytes,
        extra: bytes = b"",
        also_drop: frozenset[bytes] = frozenset(),
    ) -> bytes:
        """The head for the upstream but for the credential and the empty line, which the caller puts at its end.

        also_drop: folded names, for this request only. extra: complete lines, added after everything of the client's.
        """
        memory = self._memory
        parts = [b"%b %b HTTP/1.1\r\nHost: %b\r\n" % (head.method, target, host)]
        if head.options or also_drop:
            also_drop = head.dropped = also_drop | {fold(name) for name in head.options}
            parts += [line for line, name in head.fields if self.passes(name) and fold(name) not in also_drop]
        else:
            for line, name in head.fields:
                known = memory.get(name)
                if known is None:
                    known = self.passes(name)
                if known:
                    parts.append(line)
        if head.chunked:
            parts.append(b"Transfer-Encoding: chunked\r\n")
        elif head.length is not None:
            parts.append(b"Content-Length: %d\r\n" % head.length)
        # Named by Connection, the client's own id was dropped above: then it counts as absent.
        if not head.correlation_id or _CORRELATION_ID in also_drop:
            parts.append(b"x-correlation-id: %b\r\n" % correlation_id)
        parts += (self._suffix, extra, self.for_proxy)
        return b"".join(parts)


def values_of(fields: Fields, lower_name: bytes) -> list[bytes]:
    """All values of a field, in order."""
    return [value_of(line, name) for line, name in fields if name.lower() == lower_name]


def forwarded_lines(fields: Fields, peer: str, scheme: bytes, host: bytes, *, trusted: bool) -> bytes:
    """X-Forwarded-For, -Proto and -Host as seen here; what a trusted proxy said before is kept and continued."""
    chain, proto = [peer.encode("ascii")], scheme
    if trusted:
        chain = values_of(fields, b"x-forwarded-for") + chain
        proto = b"".join(values_of(fields, b"x-forwarded-proto")[:1]) or scheme
        host = b"".join(values_of(fields, b"x-forwarded-host")[:1]) or host
    lines = b"X-Forwarded-For: %b\r\nX-Forwarded-Proto: %b\r\n" % (b", ".join(chain), proto)
    return lines + (b"X-Forwarded-Host: %b\r\n" % host if host else b"")


FORWARDED_NAMES: Final = frozenset(_FORWARDED)


def upgrade_lines(protocol: bytes) -> bytes:
    """The two fields that ask for, or grant, a change of protocol on this hop."""
    return b"Connection: Upgrade\r\nUpgrade: %b\r\n" % protocol


class _ResponseName:
    """What the gateway does with a response field, by name."""

    PASS: Final = 0
    DROP: Final = 1
    CORRELATION_ID: Final = 2
    LOCATION: Final = 3
    PROXY_STATUS: Final = 4


_SPECIAL: Final = {
    **dict.fromkeys(_HOP_BY_HOP, _ResponseName.DROP),
    _CORRELATION_ID: _ResponseName.CORRELATION_ID,
    b"location": _ResponseName.LOCATION,
    b"proxy-status": _ResponseName.PROXY_STATUS,
}
_response_memory: dict[bytes, int] = {}
_LENGTH: Final = frozenset((b"content-length",))


def _response_action(name: bytes) -> int:
    action = _SPECIAL.get(name.lower(), _ResponseName.PASS)
    if len(_response_memory) < _MEMORY_SIZE and len(name) <= NAME_MAX:
        _response_memory[name] = action
    return action


def _dropped(head: ResponseHead) -> frozenset[bytes]:
    """What this answer's head loses besides the fields that always end here: lower-case names."""
    if head.status < 200 or head.status == 204:  # RFC 9110 8.6: without a body, and never with a length
        return head.options | _LENGTH
    # Framing is never a hop's option: a Content-Length named by Connection must not leave a body without one.
    return head.options - _LENGTH if head.options else head.options


def response_lines(
    head: ResponseHead, correlation_id: bytes, origins: "Origins", gateway: bytes, *, own_id: bool = False
) -> list[bytes]:
    """The field lines for the client, framing and Connection left to the caller.

    An upstream's own x-correlation-id wins (own_id: none is needed). gateway: our own origin as the client sees it.
    """
    parts: list[bytes] = []
    dropped = _dropped(head)
    memory = _response_memory
    for line, name in head.fields:
        if dropped and name.lower() in dropped:
            continue
        action = memory.get(name)
        if action is None:
            action = _response_action(name)
        if action:
            if action == _ResponseName.DROP:
                continue
            if action == _ResponseName.CORRELATION_ID:
                own_id = True
            elif action == _ResponseName.PROXY_STATUS:
                # It tells whose error an answer is (RFC 9209): an upstream cannot speak for the gateway.
                if b"opentv-proxy" in line.lower():
                    continue
            elif 300 <= head.status < 400 or head.status == 201:
                parts.append(b"%b: %b\r\n" % (name, origins.to_gateway(value_of(line, name), gateway)))
                continue
        parts.append(line)
    if not own_id:
        parts.append(b"x-correlation-id: %b\r\n" % correlation_id)
    return parts


def trailer_lines(trailers: Fields, also_drop: frozenset[bytes] = frozenset()) -> bytes:
    """The trailer fields that may go on: never framing, routing or a credential (RFC 9110 6.5.1). also_drop: folded."""
    lines = [
        line for line, name in trailers if (folded := fold(name)) not in _NEVER_TRAILERS and folded not in also_drop
    ]
    return b"".join(lines)


_PATH_ENDS: Final = (b"/", b"?", b"#", b"")  # what may follow a path that is left at a segment's end


def passable(correlation_id: bytes) -> str:
    """The id, where it may go on to a token endpoint: printable and not too long. Else empty."""
    if len(correlation_id) > 128 or not correlation_id.isascii():
        return ""
    text = correlation_id.decode()
    return text if text.isprintable() else ""


class Origins:
    """Turns an upstream's own absolute URL into one that points at the gateway."""

    __slots__ = ("_base", "_host_preserved", "_origin", "_prefix")

    def __init__(
        self, scheme: str, host: str, port: int, base: bytes, prefix: bytes, *, host_preserved: bool = False
    ) -> None:
        """base: the upstream's base path. prefix: the route's path when it is stripped on the way there, else empty.
        host_preserved: the upstream is told the client's Host, which then is its own name too."""
        self._origin = (scheme, host.lower(), port)
        self._base = base
        self._prefix = prefix
        self._host_preserved = host_preserved

    def to_gateway(self, location: bytes, gateway: bytes) -> bytes:
        """The Location for the client; anything but the upstream's own origin is left as it is."""
        if location[:1] == b"/" and location[:2] != b"//":  # relative to the origin: right as it is, but for the paths
            return self._path(location)
        scheme, separator, rest = location.partition(b"//")  # without a scheme it is the upstream's own (RFC 3986 4.2)
        scheme = scheme.removesuffix(b":").lower() if scheme else self._origin[0].encode()
        if not separator or scheme not in (b"http", b"https"):
            return location
        cut = next((index for index, byte in enumerate(rest) if byte in b"/?#"), len(rest))
        authority, path = rest[:cut], rest[cut:]
        if not self._is_own(scheme.decode(), authority, gateway):
            return location
        return gateway + self._path(path)

    def _path(self, path: bytes) -> bytes:
        """The way through the gateway to a path of the upstream; one beyond the base path has none, and stays."""
        below = path[len(self._base) :]
        if self._base and not (path.startswith(self._base) and below[:1] in _PATH_ENDS):
            return path
        return self._prefix + below

    def _is_own(self, scheme: str, authority: bytes, gateway: bytes) -> bool:
        named = _origin(scheme, authority)
        if named == self._origin:
            return True
        if named is None or not self._host_preserved:
            return False
        ours, _, host = gateway.partition(b"://")  # its scheme may differ: TLS ends here, or begins here
        return scheme in (self._origin[0], ours.decode()) and named == _origin(scheme, host)


def _origin(scheme: str, authority: bytes) -> tuple[str, str, int] | None:
    """Comparable; None where the port is none."""
    host, colon, port = authority.rpartition(b":")
    if not colon or authority.endswith(b"]"):
        host, port = authority, b""
    if port and not (port.isdigit() and len(port) <= 5):
        return None
    return scheme, host.decode("latin-1").lower(), int(port) if port else (443 if scheme == "https" else 80)
