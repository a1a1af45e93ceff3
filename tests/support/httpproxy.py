"""An HTTP proxy for tests: CONNECT and absolute-form, with or without credentials, and what it was asked."""

import asyncio
import contextlib
from base64 import b64encode
from collections.abc import AsyncIterator
from urllib.parse import urlsplit


class HttpProxy:
    """asked: request lines, in order. headers: the head of each request. answer: instead of doing what was asked, these
    bytes. wants: ``user:password`` that it demands."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.heads: list[bytes] = []
        self.answer: bytes | None = None
        self.wants: str | None = None
        self.url = ""
        self._tasks: set[asyncio.Task[None]] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            await self._serve(reader, writer)
        writer.close()
        self._tasks.discard(task)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        line = head.split(b"\r\n")[0].decode()
        self.asked.append(line)
        self.heads.append(head)
        if self.answer is not None:
            writer.write(self.answer)
            return
        if self.wants is not None and b"Basic " + b64encode(self.wants.encode()) not in head:
            writer.write(b"HTTP/1.1 407 No\r\nProxy-Authenticate: Basic realm=x\r\nContent-Length: 0\r\n\r\n")
            return
        method, target, _ = line.split(" ")
        place = urlsplit(f"//{target}" if method == "CONNECT" else target)
        there, back = await asyncio.open_connection(place.hostname, place.port)
        if method == "CONNECT":
            writer.write(b"HTTP/1.1 200 Connection established\r\nVia: 1.1 tests\r\n\r\n")
        else:
            back.write(head.replace(target.encode(), (place.path or "/").encode(), 1))
        await asyncio.gather(_pass(reader, back), _pass(there, writer))

    async def close(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


async def _pass(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await source.read(65536):
            sink.write(data)
            await sink.drain()
    sink.close()


@contextlib.asynccontextmanager
async def http_proxy() -> AsyncIterator[HttpProxy]:
    """A running one, on a port of its own."""
    proxy = HttpProxy()
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    proxy.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield proxy
    finally:
        server.close()
        await proxy.close()
