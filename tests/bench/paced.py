"""Load at a fixed rate, with the moment and the latency of every request: what closed-loop generators cannot tell.

Run as ``python -m tests.bench.paced PORT RATE SECONDS CONNECTIONS OUTPUT``. Requests are due at fixed moments and their
latency counts from then (no coordinated omission); each goes to a connection that is free, or waits for one. OUTPUT
gets a line ``due latency status`` each, in seconds of CLOCK_MONOTONIC; status 0 is a broken connection.
"""

import asyncio
import gc
import sys
import time
from collections import deque
from pathlib import Path
from typing import cast

import uvloop

_REQUEST = b"GET /accounts/4711?fields=name,status HTTP/1.1\r\nHost: bench\r\nAccept: application/json\r\n\r\n"


class Connection(asyncio.Protocol):
    """One keep-alive connection with at most one request on its way. Reads answers with Content-Length only."""

    def __init__(self, load: "Load") -> None:
        self._load = load
        self._transport: asyncio.Transport | None = None
        self._pending = b""
        self._due: float | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports do not inherit from asyncio's
        self._transport = cast(asyncio.Transport, transport)
        self._load.free(self)

    def send(self, due: float) -> None:
        self._due = due
        if self._transport is not None:
            self._transport.write(_REQUEST)

    def data_received(self, data: bytes) -> None:
        self._pending += data
        head, separator, body = self._pending.partition(b"\r\n\r\n")
        if not separator:
            return
        marker = head.lower().find(b"content-length:")
        length = int(head[marker + 15 :].split(b"\r\n", 1)[0]) if marker >= 0 else 0
        if len(body) < length:
            return
        self._pending = b""
        self._finish(int(head[9:12]))
        self._load.free(self)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the signature is asyncio's
        self._finish(0)

    def _finish(self, status: int) -> None:
        if self._due is not None:
            self._load.results.append((self._due, time.monotonic() - self._due, status))
            self._due = None


class Load:
    """Hands due requests to free connections, in order. Owned by the one event loop."""

    def __init__(self) -> None:
        self.results: list[tuple[float, float, int]] = []
        self._idle: deque[Connection] = deque()
        self._overdue: deque[float] = deque()

    def free(self, connection: Connection) -> None:
        if self._overdue:
            connection.send(self._overdue.popleft())
        else:
            self._idle.append(connection)

    def request(self, due: float) -> None:
        if self._idle:
            self._idle.popleft().send(due)
        else:
            self._overdue.append(due)

    def drop_overdue(self) -> None:
        """Requests that never got a connection count as broken, with the time they waited."""
        now = time.monotonic()
        self.results.extend((due, now - due, 0) for due in self._overdue)
        self._overdue.clear()


async def main(port: int, rate: float, seconds: float, connections: int, output: Path) -> None:
    loop = asyncio.get_running_loop()
    load = Load()
    for _ in range(connections):
        await loop.create_connection(lambda: Connection(load), "127.0.0.1", port)
    began = time.monotonic()
    for count in range(round(rate * seconds)):
        due = began + count / rate
        pause = due - time.monotonic()
        if pause > 0:
            await asyncio.sleep(pause)
        load.request(due)
    await asyncio.sleep(1.0)  # for the last answers
    load.drop_overdue()
    lines = (f"{due:.6f} {latency:.6f} {status}\n" for due, latency, status in load.results)
    output.write_text("".join(lines))


if __name__ == "__main__":
    gc.disable()  # the client's own pauses are not the proxy's
    uvloop.run(main(int(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4]), Path(sys.argv[5])))
