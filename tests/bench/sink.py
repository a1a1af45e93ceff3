"""An upstream that swallows uploads as cheaply as the kernel allows, so that the load core never is the bottleneck.

Run as ``python -m tests.bench.sink PORT``. It reads a head, drops Content-Length bytes with MSG_TRUNC (TCP discards
them without a copy, tcp(7)), answers 204 and reads the next head on the same connection. One thread a connection.
"""

import socket
import sys
import threading

_CHUNK = 1 << 20


def _serve(sock: socket.socket) -> None:
    buffer = bytearray(_CHUNK)
    pending = b""
    with sock:
        while True:
            while b"\r\n\r\n" not in pending:
                data = sock.recv(65536)
                if not data:
                    return
                pending += data
            head, _, rest = pending.partition(b"\r\n\r\n")
            left = _content_length(head) - len(rest)
            while left > 0:
                count = sock.recv_into(buffer, min(left, _CHUNK), socket.MSG_TRUNC)
                if not count:
                    return
                left -= count
            pending = rest[len(rest) + left :] if left < 0 else b""
            sock.sendall(b"HTTP/1.1 204 No Content\r\nX-Bench: sink\r\n\r\n")


def _content_length(head: bytes) -> int:
    """Body bytes that follow head; this sink understands no other framing, and none of the peers changes it."""
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"content-length":
            return int(value)
        if name.strip().lower() == b"transfer-encoding":
            raise SystemExit(
                "the proxy changed a body with Content-Length into a chunked one; the sink reads only the first"
            )
    return 0


def main(port: int) -> None:
    with socket.create_server(("127.0.0.1", port), backlog=128) as server:
        while True:
            sock, _ = server.accept()
            threading.Thread(target=_quiet, args=(sock,), daemon=True).start()


def _quiet(sock: socket.socket) -> None:
    try:
        _serve(sock)
    except ConnectionError:
        return


if __name__ == "__main__":
    main(int(sys.argv[1]))
