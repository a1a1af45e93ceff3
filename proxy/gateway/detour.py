"""The way to an upstream by an HTTP proxy: a tunnel that CONNECT opens (RFC 9110 9.3.6), or the proxy itself."""

import asyncio
import socket
from base64 import b64encode
from typing import Final

from proxy import tls
from proxy.config import ForwardProxy
from proxy.errors import ProxyError, SecretError
from proxy.gateway.dial import DETOUR, Attempt, dialled
from proxy.gateway.fields import MessageError
from proxy.gateway.http1 import find_head_end, parse_response

_HEAD_MAX: Final = 64 * 1024


class DetourError(ProxyError):
    """The proxy cannot be reached or opens no tunnel. error: RFC 9209 2.3 error type."""

    def __init__(self, words: str, error: str = "proxy_configuration_error") -> None:
        super().__init__(words)
        self.words = words
        self.error = error


def authorization(proxy: ForwardProxy) -> bytes:
    """The field that tells the proxy who asks; empty where nobody is configured. Raises SecretError."""
    credentials = proxy.credentials()
    if credentials is None:
        return b""
    return b"Proxy-Authorization: Basic %b\r\n" % b64encode(":".join(credentials).encode())


async def way(proxy: ForwardProxy | None, host: str, port: int, attempt: Attempt, *, secure: bool) -> socket.socket:
    """A connection to ``host:port``, or to the HTTP proxy that is asked in its place, on which nothing of the exchange
    has been sent yet. secure: TLS follows, for which a proxy opens a tunnel. Raises OSError, DetourError; how long it
    takes is the caller's business."""
    if proxy is None or proxy.url is None:
        return await dialled(host, port, attempt)
    attempt.stage = DETOUR
    return await (tunnel(proxy, host, port) if secure else reached(proxy))


async def tunnel(proxy: ForwardProxy, host: str, port: int) -> socket.socket:
    """A connection to ``host:port`` through the proxy, on which nothing has been sent yet. Raises DetourError; how long
    it takes is the caller's business."""
    name = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    sock = await reached(proxy)
    try:
        try:
            request = f"CONNECT {name} HTTP/1.1\r\nHost: {name}\r\n".encode("ascii")
            await asyncio.get_running_loop().sock_sendall(sock, request + authorization(proxy) + b"\r\n")
            status = await _status(sock)
        except SecretError as exc:
            raise DetourError(str(exc)) from exc
        except MessageError as exc:
            words = f"the HTTP proxy answers, but no HTTP that the gateway reads: {exc.words}"
            raise DetourError(words, "http_protocol_error") from exc
        except (OSError, EOFError) as exc:
            words = f"the HTTP proxy broke off instead of opening a way to {name}: {tls.explain(exc)}"
            raise DetourError(words, "connection_terminated") from exc
        if status == 407:
            raise DetourError(
                "the HTTP proxy wants other credentials (407): see proxy.username and proxy.password_file"
            )
        if status // 100 != 2:
            words = f"the HTTP proxy opens no way to {name}: it answers {status}"
            raise DetourError(words, "destination_unavailable")
    except BaseException:
        sock.close()
        raise
    return sock


async def reached(proxy: ForwardProxy) -> socket.socket:
    """A connection to the proxy. Raises DetourError; how long it takes is the caller's business."""
    assert proxy.place is not None  # noqa: S101 - only asked where there is one
    try:
        return await dialled(*proxy.place, Attempt())
    except OSError as exc:
        words = f"no connection to the HTTP proxy {proxy.place[0]}:{proxy.place[1]}: {tls.explain(exc)}"
        raise DetourError(words, tls.proxy_error(exc)) from exc


async def _status(sock: socket.socket) -> int:
    """Of the answer to CONNECT; behind it, only the upstream speaks. Raises MessageError, OSError, EOFError."""
    data = b""
    while True:
        end = find_head_end(data, 0, _HEAD_MAX)
        if end < 0:
            more = await asyncio.get_running_loop().sock_recv(sock, _HEAD_MAX)
            if not more:
                raise EOFError
            data += more
            continue
        status = parse_response(data, end, b"CONNECT").status
        data = data[end + 4 :]
        if status >= 200:
            if status < 300 and data:
                raise MessageError("it sent bytes that nobody asked for")
            return status
