"""Where clients come in: a bound socket, plain or with TLS.

asyncio's own TLS server knows nothing of a connection before its handshake is over and tells nobody when it fails. So
with TLS the connections are accepted here: each has its place in the limits from its first moment, and what a handshake
failed of is said. It has ``limits.head_time``, as a head has.
"""

import asyncio
import socket
import ssl
from collections.abc import Sequence
from typing import Final, Protocol

from proxy import logs, tls
from proxy.gateway.inbound import Inbound
from proxy.gateway.service import Gateway

_BACKLOG: Final = 1024
_PAUSE_SECONDS: Final = 1.0  # without a descriptor left, a connection waits in the kernel; asyncio waits as long
_QUIET_SECONDS: Final = 10.0

# X509_V_ERR_* of OpenSSL's x509_vfy.h, of a certificate that a client shows.
_UNTRUSTED: Final = "is from an authority that is not trusted here; put that authority into listen.tls.client_ca_file"
_CERTIFICATE: Final[dict[int, str]] = {
    2: "comes without a part of its chain; have the client send the whole chain",
    9: "is not valid yet; compare the clocks of both machines",
    10: "has expired; its owner must renew it (or this machine's clock is wrong)",
    18: "is self-signed; put it into listen.tls.client_ca_file if it is the right one",
    19: _UNTRUSTED,
    20: _UNTRUSTED,
    21: _UNTRUSTED,
    26: "is not meant for clients (extended key usage clientAuth)",
    66: "has a key too weak for this machine's OpenSSL policy",
    67: "is from an authority whose key is too weak for this machine's OpenSSL policy",
    68: "is signed with a digest too weak for this machine's OpenSSL policy",
}
_PLAIN: Final = "the client does not speak TLS here; its URL must begin with https://"
_NO_COMMON: Final = "the client has no TLS version or cipher in common with the gateway, which speaks TLS 1.2 and 1.3"
_REFUSED: Final = "the client refused the certificate in listen.tls.cert_file"
_REASONS: Final[dict[str, str]] = {
    **dict.fromkeys(("HTTP_REQUEST", "HTTPS_PROXY_REQUEST", "WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE"), _PLAIN),
    **dict.fromkeys(("UNSUPPORTED_PROTOCOL", "NO_PROTOCOLS_AVAILABLE", "NO_SHARED_CIPHER"), _NO_COMMON),
    **dict.fromkeys(("TLSV1_ALERT_PROTOCOL_VERSION", "VERSION_TOO_LOW", "SSLV3_ALERT_HANDSHAKE_FAILURE"), _NO_COMMON),
    **dict.fromkeys(("SSLV3_ALERT_BAD_CERTIFICATE", "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE"), _REFUSED),
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": f"{_REFUSED}: it may not know its authority, or ask for a name that it lacks",
    "TLSV1_ALERT_UNKNOWN_CA": f"{_REFUSED}: have it trust its authority; the file must hold the chain up to that",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": f"{_REFUSED}: it has expired; renew it (or the client's clock is wrong)",
    "SSLV3_ALERT_CERTIFICATE_REVOKED": f"{_REFUSED}: it was revoked",
}


class Listener(Protocol):
    @property
    def sockets(self) -> Sequence[socket.socket]: ...

    def close(self) -> None:
        """Accept nothing more."""


async def listen(gateway: Gateway, sock: socket.socket, context: ssl.SSLContext | None) -> Listener:
    """Accept connections from here on. Raises OSError."""
    if context is not None:
        return TlsListener(gateway, sock, context)
    loop = asyncio.get_running_loop()
    return await loop.create_server(lambda: Inbound(gateway, secure=False), sock=sock, backlog=_BACKLOG)


class TlsListener:
    """State, of the event loop's thread: the tasks, one that accepts and one a handshake."""

    def __init__(self, gateway: Gateway, sock: socket.socket, context: ssl.SSLContext) -> None:
        sock.listen(_BACKLOG)
        sock.setblocking(False)
        self.sockets = (sock,)
        self._gateway = gateway
        self._sock = sock
        self._context = context
        self._log = logs.get("proxy.gateway")
        self._quiet_until = 0.0
        self._tasks = {asyncio.get_running_loop().create_task(self._accept())}

    def close(self) -> None:
        """See Listener. Handshakes under way are broken off."""
        for task in self._tasks:
            task.cancel()

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while True:
                try:
                    sock, place = await loop.sock_accept(self._sock)
                except ConnectionAbortedError:  # gone before it was taken
                    continue
                except OSError as exc:
                    message = "socket.accept() out of system resource"
                    loop.call_exception_handler({"message": message, "exception": exc, "socket": self._sock})
                    await asyncio.sleep(_PAUSE_SECONDS)
                    continue
                self._arrived(sock, place[0])
        finally:
            self._sock.close()

    def _arrived(self, sock: socket.socket, peer: str) -> None:
        words = self._gateway.enter(peer)
        if words is not None:  # a handshake, only to say so, would cost more than the place that there is not
            self._gateway.leave(peer)
            sock.close()
            if self._gateway.clock() >= self._quiet_until:
                self._quiet_until = self._gateway.clock() + _QUIET_SECONDS
                self._log.warning("connection refused", client=peer, words=words)
            return
        task = asyncio.get_running_loop().create_task(self._shake_hands(sock, peer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _shake_hands(self, sock: socket.socket, peer: str) -> None:
        gateway = self._gateway
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: Inbound(gateway, secure=True, peer=peer),
                sock,
                ssl=self._context,
                ssl_handshake_timeout=gateway.limits.head_time,
            )
        except OSError as exc:  # of ssl too
            gateway.leave(peer)
            self._failed(peer, exc)

    def _failed(self, peer: str, exc: OSError) -> None:
        if isinstance(exc, ssl.SSLCertVerificationError):
            self._gateway.metrics.client_denied["credential"] += 1
        words = explain(exc)
        if isinstance(exc, ConnectionAbortedError):  # as both event loops say it
            words = f"it was not over within {self._gateway.limits.head_time:g} s"
        # Who only looks whether somebody listens (a health check, a port scan) is not worth a line.
        tell = self._log.debug if isinstance(exc, ConnectionResetError) else self._log.info
        tell("tls handshake failed", client=peer, words=words)


def explain(exc: OSError) -> str:
    """What a client's handshake failed of, and who can do what; ``tls.explain`` has the words for our own."""
    match exc:
        case ssl.SSLCertVerificationError():
            code = exc.verify_code
            return f"its certificate {_CERTIFICATE.get(code, f'was refused (OpenSSL verify error {code})')}"
        case ssl.SSLEOFError() | ssl.SSLZeroReturnError():
            return "the client closed the connection during the handshake"
        case ssl.SSLError(reason=str(reason)) if reason in _REASONS:
            return _REASONS[reason]
        case ConnectionError():
            return "the client broke the connection off"
        case _:
            return tls.explain(exc)
