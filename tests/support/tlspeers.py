"""Servers by TLS that are wrong in one way each. They speak as real ones do: an alert, then the end.

Blocking sockets in a thread of their own: asyncio's own server closes without the alert that says why.
"""

import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import trustme

FAULTS = ("wrong name", "expired", "unknown authority", "client certificate demanded")


class TlsPeer:
    """url: of a server that answers 204 to whatever it is asked, if its client gets so far. tls: a client's ``tls``
    section that is right but for the fault. asked: how many requests it has read."""

    def __init__(self, fault: str, folder: Path) -> None:
        ca, stranger = trustme.CA(), trustme.CA()
        file = folder / f"ca for {fault or 'nothing'}.pem"
        (stranger if fault == "unknown authority" else ca).cert_pem.write_to_path(str(file))
        past = datetime(2001, 1, 1, tzinfo=UTC)
        name = "elsewhere.example.com" if fault == "wrong name" else "127.0.0.1"
        leaf = ca.issue_cert(name, not_after=past) if fault == "expired" else ca.issue_cert(name)
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        leaf.configure_cert(self._context)
        if fault == "client certificate demanded":
            ca.configure_trust(self._context)
            self._context.verify_mode = ssl.CERT_REQUIRED
        self.tls = {"ca_file": str(file)}
        self.asked = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"https://127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            with sock, contextlib.suppress(OSError):
                sock.settimeout(5)
                self._talk(sock)

    def _talk(self, sock: socket.socket) -> None:
        with self._context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False) as secured:
            try:
                secured.do_handshake()
            except ssl.SSLError:  # the alert is out; closed on unread bytes, the connection would be reset under it
                secured.shutdown(socket.SHUT_WR)
                secured.settimeout(1)
                while secured.recv(65536):
                    pass
                return
            while b"\r\n\r\n" in secured.recv(65536):
                self.asked += 1
                secured.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(10)


@contextlib.contextmanager
def tls_peer(fault: str, folder: Path) -> Iterator[TlsPeer]:
    """fault: one of FAULTS, or "" for none."""
    peer = TlsPeer(fault, folder)
    try:
        yield peer
    finally:
        peer.close()
