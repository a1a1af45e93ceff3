"""One harmless question: a connection of its own and ``HEAD``, which asks for nothing to be done (RFC 9110 9.2.1)."""

import asyncio
import ssl
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final
from urllib.parse import urlsplit

from proxy import tls
from proxy.errors import ProxyError
from proxy.gateway.fields import MessageError, value_of
from proxy.gateway.http1 import ResponseHead, find_head_end, parse_response
from proxy.tokens.systems.replies import http_date

ANSWER_SECONDS: Final = 5.0
_HEAD_LIMIT: Final = 64 * 1024


class ProbeError(ProxyError):
    """There was no connection or no answer. The words say which and why."""


@dataclass(frozen=True, slots=True)
class Peer:
    """Whom to ask. connect: seconds for a connection, TLS included. answer: seconds for the answer's head."""

    url: str
    context: ssl.SSLContext | None
    server_name: str | None
    connect: float
    answer: float = ANSWER_SECONDS

    @property
    def target(self) -> str:
        """The URL's own path and query."""
        parts = urlsplit(self.url)
        return (parts.path or "/") + (f"?{parts.query}" if parts.query else "")


@dataclass(frozen=True, slots=True)
class Answer:
    """drift: their clock minus ours, seconds. tls: its version, "" for plain HTTP. expires: the certificate's end,
    Unix seconds."""

    status: int
    drift: float | None
    tls: str
    expires: float | None


async def head(peer: Peer, target: str, headers: dict[str, str]) -> Answer:
    """Raises ProbeError."""
    reader, writer = await _connected(peer)
    try:
        host = urlsplit(peer.url).netloc.removesuffix(":443" if peer.context else ":80")
        fields = {"Host": host, "Accept": "*/*", "User-Agent": "opentv-auth-proxy", **headers, "Connection": "close"}
        lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        sent = time.time()
        async with asyncio.timeout(peer.answer):
            writer.write(f"HEAD {target} HTTP/1.1\r\n{lines}\r\n".encode("latin-1"))
            answered = await _final_head(reader)
        return _answer(answered, writer, (sent + time.time()) / 2)
    except TimeoutError as exc:
        raise ProbeError(f"connected, but no answer came within {peer.answer:g} s") from exc
    except MessageError as exc:
        raise ProbeError(f"connected, but what answers is no HTTP that the gateway reads: {exc.words}") from exc
    except (OSError, EOFError) as exc:
        raise ProbeError(f"connected, but no answer came: {tls.explain(exc)}") from exc
    finally:
        writer.transport.abort()


async def _connected(peer: Peer) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    parts = urlsplit(peer.url)
    host = parts.hostname or ""
    port = parts.port or (443 if peer.context else 80)
    name = (peer.server_name or host) if peer.context else None
    try:
        async with asyncio.timeout(peer.connect):
            return await asyncio.open_connection(host, port, ssl=peer.context, server_hostname=name)
    except TimeoutError as exc:
        raise ProbeError(f"no connection to {host}:{port} within {peer.connect:g} s") from exc
    except OSError as exc:
        raise ProbeError(f"no connection to {host}:{port}: {tls.explain(exc)}") from exc


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
    dates = [value_of(line, name) for line, name in found.fields if name.lower() == b"date"]
    date = http_date(dates[0].decode("latin-1")) if dates else None
    secured = writer.get_extra_info("ssl_object")
    return Answer(
        status=found.status,
        drift=None if date is None else date + 0.5 - ours,
        tls=secured.version() or "" if secured is not None else "",
        expires=_expiry(writer.get_extra_info("peercert") or {}),
    )


def _expiry(certificate: dict[str, object]) -> float | None:
    """The ``notAfter`` of a verified certificate, as ``ssl`` writes it: ``Jan  5 09:34:43 2028 GMT``."""
    end = certificate.get("notAfter")
    if not isinstance(end, str):
        return None
    return datetime.strptime(end, "%b %d %H:%M:%S %Y %Z").replace(tzinfo=UTC).timestamp()
