"""Load that streams: N connections which download or upload bodies of a set size, one after another, until a deadline.

Run as ``python -m tests.bench.streams down|up PORT CONNECTIONS SECONDS SIZE``; prints one JSON object with the body
bytes moved. A body that was begun before the deadline is finished. One thread a connection; bytes are dropped in the
kernel (MSG_TRUNC) on the way down, sent from one buffer on the way up.
"""

import json
import socket
import sys
import threading
import time

_CHUNK = 1 << 20


class Stream(threading.Thread):
    """One connection. ``moved`` is body bytes, ``fault`` words when it could not go on."""

    def __init__(self, direction: str, port: int, deadline: float, size: int) -> None:
        super().__init__()
        self._direction = direction
        self._port = port
        self._deadline = deadline
        self._size = size
        self.moved = 0
        self.fault: str | None = None

    def run(self) -> None:
        try:
            with socket.create_connection(("127.0.0.1", self._port), 30) as sock:
                while time.monotonic() < self._deadline:
                    self.moved += self._download(sock) if self._direction == "down" else self._upload(sock)
        except (OSError, ValueError) as exc:
            self.fault = f"{type(exc).__name__}: {exc}"

    def _download(self, sock: socket.socket) -> int:
        sock.sendall(b"GET /big HTTP/1.1\r\nHost: bench\r\n\r\n")
        head, rest = _head(sock)
        if b" 200 " not in head[:16]:
            raise ValueError(f"answered {head[:60]!r}")
        left = self._size - len(rest)
        buffer = bytearray(_CHUNK)
        while left > 0:
            count = sock.recv_into(buffer, min(left, _CHUNK), socket.MSG_TRUNC)
            if not count:
                raise ValueError(f"cut {left} bytes before the end")
            left -= count
        return self._size

    def _upload(self, sock: socket.socket) -> int:
        sock.sendall(b"PUT /sink HTTP/1.1\r\nHost: bench\r\nContent-Length: %d\r\n\r\n" % self._size)
        chunk = memoryview(bytes(_CHUNK))
        left = self._size
        while left > 0:
            sock.sendall(chunk[: min(left, _CHUNK)])
            left -= _CHUNK
        head, _ = _head(sock)
        if b" 204 " not in head[:16]:
            raise ValueError(f"answered {head[:60]!r}")
        return self._size


def _head(sock: socket.socket) -> tuple[bytes, bytes]:
    data = b""
    while b"\r\n\r\n" not in data:
        part = sock.recv(65536)
        if not part:
            raise ValueError("closed before an answer")
        data += part
    head, _, rest = data.partition(b"\r\n\r\n")
    return head, rest


def main(direction: str, port: int, connections: int, seconds: float, size: int) -> None:
    deadline = time.monotonic() + seconds
    streams = [Stream(direction, port, deadline, size) for _ in range(connections)]
    for stream in streams:
        stream.start()
    for stream in streams:
        stream.join()
    faults = sorted({stream.fault for stream in streams if stream.fault})
    print(json.dumps({"bytes": sum(stream.moved for stream in streams), "faults": faults}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]), int(sys.argv[5]))
