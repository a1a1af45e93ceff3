"""A crowd of slow clients, as a process of its own: ``python -m tests.support.crowd URL HEADS BODIES READERS``.

Each of HEADS connections sends a request's head, each of BODIES an upload's body, a byte a second; each of READERS asks
for ``/big`` and takes 2 KiB of it a second. Whoever is cut off begins anew. They come from addresses of their own, in
127.0.1.0/24, so that no limit for an address meets them all. One line on stdout, ``ready``, once all are connected.
"""

import contextlib
import selectors
import socket
import sys
import time
from urllib.parse import urlsplit

_HEAD = b"GET / HTTP/1.1\r\nHost: gw\r\nX-Slow: "
_BODY = b"PUT /up HTTP/1.1\r\nHost: gw\r\nContent-Length: 1000000\r\n\r\n"
_READ = b"GET /big HTTP/1.1\r\nHost: gw\r\n\r\n"
_ADDRESSES = 8


class Slow:
    """One of them. kind: what it begins with."""

    def __init__(self, number: int, place: tuple[str, int], kind: bytes) -> None:
        self.sock: socket.socket | None = None
        self.kind = kind
        self._place = place
        self._source = f"127.0.1.{1 + number % _ADDRESSES}"

    def connect(self) -> None:
        self.close()
        sock = socket.socket()
        if self.kind is _READ:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.bind((self._source, 0))
        sock.connect(self._place)
        sock.setblocking(False)
        sock.send(self.kind)
        self.sock = sock

    def drip(self) -> None:
        """One step, a second after the last one."""
        try:
            if self.sock is None:
                self.connect()
            elif self.kind is _READ:
                with contextlib.suppress(BlockingIOError):
                    if not self.sock.recv(2048):
                        self.connect()
            elif self._cut_off():
                self.connect()
            else:
                self.sock.send(b"x")
        except OSError:
            self.close()

    def _cut_off(self) -> bool:
        assert self.sock is not None
        try:
            return self.sock.recv(65536) is not None
        except BlockingIOError:
            return False

    def close(self) -> None:
        if self.sock is not None:
            self.sock.close()
            self.sock = None


def main(url: str, *counts: str) -> None:
    parts = urlsplit(url)
    place = (parts.hostname or "", parts.port or 0)
    kinds = [kind for kind, count in zip((_HEAD, _BODY, _READ), map(int, counts), strict=True) for _ in range(count)]
    crowd = [Slow(number, place, kind) for number, kind in enumerate(kinds)]
    for one in crowd:
        one.drip()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    with selectors.DefaultSelector() as watch:
        watch.register(sys.stdin, selectors.EVENT_READ)  # its end is ours
        begun = time.monotonic()
        for turn in range(10_000_000):
            if watch.select(timeout=0):
                break
            due = begun + turn / 20
            time.sleep(max(0.0, due - time.monotonic()))
            for one in crowd[turn % 20 :: 20]:  # spread over the second
                one.drip()
    for one in crowd:
        one.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
