"""One harmless question: a connection of its own and ``HEAD``, which asks for nothing to be done (RFC 9110 9.2.1)."""

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit

from proxy import tls
from proxy.config import ForwardProxy
from proxy.errors import ProxyError
from proxy.gateway.detour import DetourError, authorization, way
from proxy.gateway.dial import DETOUR, HANDSHAKE, PORT, Attempt
from proxy.gateway.fields import MessageError, value_of
from proxy.gateway.http1 import ResponseHead, find_head_end, parse_response
from proxy.tokens.systems.replies import http_date

ANSWER_SECONDS: Final = 5.0
DIRECT: Final = ForwardProxy()
_HEAD_LIMIT: Final = 64 * 1024


class ProbeError(ProxyError):
    """There was no connection or no answer. The words say which and why; after "; " what to do, if they know.

    connected: there was a connection. refused_certificate: the peer's certificate is why there was none. detour: the
    HTTP proxy on the way is.
    """

    def __init__(
        self, words: str, *, connected: bool = True, refused_certificate: bool = False, detour: bool = False
    ) -> None:
        super().__init__(words)
        self.detour = detour
        self.words = words
        self.connected = connected
        self.refused_certificate = refused_certificate


@dataclass(frozen=True, slots=True)
class Peer:
    """Whom to ask. connect: seconds for a connection, TLS included. answer: seconds for the answer's head."""

    url: str
    context: ssl.SSLContext | None
    server_name: str | None
    connect: float
    answer: float = ANSWER_SECONDS
    proxy: ForwardProxy = DIRECT

    @property
    def host(self) -> str:
        return urlsplit(self.url).hostname or ""

    @property
    def port(self) -> int:
        return urlsplit(self.url).port or (443 if urlsplit(self.url).scheme == "https" else 80)

    @property
    def address(self) -> str:
        return f"{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"

    @property
    def name(self) -> str:
        """What the certificate must be for."""
        return self.server_name or self.host

    @property
    def target(self) -> str:
        """The URL's own path and query."""
        parts = urlsplit(self.url)
        return (parts.path or "/") + (f"?{parts.query}" if parts.query else "")


@dataclass(frozen=True, slots=True)
class Greeting:
    """A connection that came about. tls: its version, "" for plain HTTP. begins, ends: of the certificate, Unix times;
    None where it was not verified, or there is none."""

    tls: str
    begins: float | None
    ends: float | None


@dataclass(frozen=True, slots=True)
class Answer:
    """drift: their clock minus ours, seconds. headers: lower-case names, the last of repeated ones."""

    status: int
    drift: float | None
    greeting: Greeting
    headers: Mapping[str, str] = field(repr=False)


async def greeting(peer: Peer) -> Greeting:
    """A connection and nothing on it. Raises ProbeError."""
    async with connection(peer) as (_, writer):
        return _greeting(writer)


async def head(peer: Peer, target: str, headers: Mapping[str, str]) -> Answer:
    """Raises ProbeError."""
    async with connection(peer) as (reader, writer):
        host = urlsplit(peer.url).netloc.removesuffix(":443" if peer.context else ":80")
        fields = {"Host": host, "Accept": "*/*", "User-Agent": "opentv-auth-proxy", **headers, "Connection": "close"}
        lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        if peer.context is None and peer.proxy.url is not None:  # it is asked in the peer's place
            target = f"{urlsplit(peer.url).scheme}://{urlsplit(peer.url).netloc}{target}"
            lines += authorization(peer.proxy).decode("ascii")
        sent = time.time()
        try:
            async with asyncio.timeout(peer.answer):
                writer.write(f"HEAD {target} HTTP/1.1\r\n{lines}\r\n".encode("latin-1"))
                answered = await _final_head(reader)
        except TimeoutError as exc:
            raise ProbeError(f"connected, but no answer came within {peer.answer:g} s") from exc
        except MessageError as exc:
            raise ProbeError(f"connected, but what answers is no HTTP that the gateway reads: {exc.words}") from exc
        except (OSError, EOFError) as exc:
            raise ProbeError(f"connected, but no answer came: {tls.explain(exc)}") from exc
        return _answer(answered, writer, (sent + time.time()) / 2)


@asynccontextmanager
async def connection(peer: Peer) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Raises ProbeError when there is none."""
    attempt, name, patience = Attempt(), None, None
    try:
        async with asyncio.timeout(peer.connect):
            sock = await way(peer.proxy, peer.host, peer.port, attempt, secure=peer.context is not None)
            if peer.context is not None:
                attempt.stage, name, patience = HANDSHAKE, peer.name, peer.connect
            reader, writer = await asyncio.open_connection(
                sock=sock, ssl=peer.context, server_hostname=name, ssl_handshake_timeout=patience
            )
    except TimeoutError as exc:
        stage = attempt.stage or PORT
        words = stage.late(peer.address, peer.connect)
        raise ProbeError(words, connected=False, detour=stage is DETOUR) from exc
    except DetourError as exc:
        raise ProbeError(exc.words, connected=False, detour=True) from exc
    except OSError as exc:
        raise ProbeError(
            f"no {'TLS ' if isinstance(exc, ssl.SSLError) else ''}connection to {peer.address}: {tls.explain(exc)}",
            connected=False,
            refused_certificate=isinstance(exc, ssl.SSLCertVerificationError),
        ) from exc
    try:
        yield reader, writer
    finally:
        writer.transport.abort()
        # Also takes note of how the connection ended, which asyncio else complains about.
        with suppress(OSError):
            await writer.wait_closed()


async def _final_head(reader: asyncio.StreamReader) -> ResponseHead:
    """The first head that is not an interim one. Raises MessageError, EOFError, OSError."""
    data = b""
    while True:
        end = find_head_end(data, 0, _HEAD_LIMIT)
        if end >= 0:
            found = parse_response(data, end, b"HEAD")
            if found.status >= 200:
                return found
            data = data[end + 4 :]
            continue
        more = await reader.read(_HEAD_LIMIT)
        if not more:
            raise EOFError
        data += more


def _answer(found: ResponseHead, writer: asyncio.StreamWriter, ours: float) -> Answer:
    headers = {name.lower().decode("latin-1"): value_of(line, name).decode("latin-1") for line, name in found.fields}
    date = http_date(headers.get("date", ""))
    drift = None if date is None else date + 0.5 - ours
    return Answer(found.status, drift, _greeting(writer), headers)


def _greeting(writer: asyncio.StreamWriter) -> Greeting:
    secured = writer.get_extra_info("ssl_object")
    version = secured.version() or "" if secured is not None else ""
    verified = writer.get_extra_info("peercert") or {}
    return Greeting(version, *(_unix(verified.get(name)) for name in ("notBefore", "notAfter")))


def _unix(told: object) -> float | None:
    """A verified certificate's time, as ``ssl`` writes it: ``Jan  5 09:34:43 2028 GMT``."""
    return ssl.cert_time_to_seconds(told) if isinstance(told, str) else None
