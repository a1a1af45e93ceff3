"""Opens keep-alive connections, sends one request on each, then holds them until killed.

Run as ``python -m tests.bench.idle PORT CONNECTIONS``; prints ``ready`` when every one has been answered.
"""

import signal
import socket
import sys


def main(port: int, connections: int) -> None:
    held: list[socket.socket] = []
    for _ in range(connections):
        sock = socket.create_connection(("127.0.0.1", port), 10)
        sock.sendall(b"GET /accounts/4711 HTTP/1.1\r\nHost: bench\r\n\r\n")
        answer = sock.recv(65536)
        if not answer.startswith(b"HTTP/1.1 200"):
            raise SystemExit(f"answered {answer[:60]!r} after {len(held)} connections")
        held.append(sock)
    print("ready", flush=True)
    signal.pause()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
