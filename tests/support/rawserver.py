"""A raw-socket upstream: each test says what it answers, in literal bytes, and sees every byte that it was sent.

``behaviour`` is called with the connection for each request on it, as soon as the first byte is there; it reads what it
likes (``await wire.request()``) and sends what it likes. Nothing here knows more of HTTP than where a message ends.
"""

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import cast

from tests.support.gateway import until

PATIENCE = 5.0  # seconds that anything is waited for
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class WireEndedError(ConnectionError):
    """The other side ended the connection before what was waited for came."""


class Message:
    """One message. head: start line to empty line. body: without its framing. raw: all of it, as it came."""

    def __init__(self, head: bytes, body: bytes, trailers: bytes, raw: bytes) -> None:
        self.head, self.body, self.trailers, self.raw = head, body, trailers, raw
        self.start, *self.lines = head.removesuffix(b"\r\n\r\n").split(b"\r\n")

    @property
    def method(self) -> bytes:
        return self.start.split(b" ")[0]

    @property
    def target(self) -> bytes:
        return self.start.split(b" ")[1]

    @property
    def status(self) -> int:
        return int(self.start.split(b" ")[1])

    def values(self, name: bytes) -> list[bytes]:
        """Values of all fields of exactly this name (case aside), in order."""
        pairs = (line.partition(b":") for line in self.lines)
        return [value.strip(b" \t") for key, _, value in pairs if key.lower() == name.lower()]


class Wire(asyncio.Protocol):
    """One end of a connection. received: every byte that ever came. messages: what ``request``/``response`` read."""

    def __init__(self, log: list[Message] | None = None) -> None:
        """log: where what is read is noted too."""
        self.received = bytearray()
        self.messages: list[Message] = []
        self._log = [] if log is None else log
        self.ended = asyncio.Event()  # the other side will send no more
        self.lost = asyncio.Event()  # nothing can be sent any more either
        self.broken: Exception | None = None  # how, when it was not a clean end
        self.transport: asyncio.Transport | None = None
        self._taken = 0
        self._news = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self.received += data
        self._news.set()

    def eof_received(self) -> bool:
        self.ended.set()
        self._news.set()
        return True  # a test closes when it wants to

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self.broken = exc
        self._writable.set()
        self.ended.set()
        self.lost.set()
        self._news.set()

    # -- reading ------------------------------------------------------------------------------------------------

    @property
    def unread(self) -> bytes:
        return bytes(self.received[self._taken :])

    def take(self, size: int) -> bytes:
        """The next ``size`` bytes, which are there."""
        data = bytes(self.received[self._taken : self._taken + size])
        self._taken += size
        return data

    def forget(self) -> None:
        """What has been taken is remembered no more: there is too much of it."""
        del self.received[: self._taken]
        self._taken = 0

    async def _more(self) -> None:
        if self.ended.is_set():
            raise WireEndedError(f"the connection ended after {self.unread[:200]!r}")
        self._news.clear()
        async with asyncio.timeout(PATIENCE):
            await self._news.wait()

    async def read(self, size: int) -> bytes:
        """Exactly so many bytes."""
        while len(self.received) - self._taken < size:
            await self._more()
        return self.take(size)

    async def read_until(self, mark: bytes) -> bytes:
        """Everything up to and with ``mark``."""
        while (found := self.received.find(mark, self._taken)) < 0:
            await self._more()
        return self.take(found + len(mark) - self._taken)

    async def rest(self) -> bytes:
        """Everything until the other side ends."""
        async with asyncio.timeout(PATIENCE):
            await self.ended.wait()
        return self.take(len(self.received) - self._taken)

    async def head(self) -> bytes:
        """Start line to empty line."""
        return await self.read_until(b"\r\n\r\n")

    async def request(self) -> Message:
        """One whole request."""
        begun = self._taken
        head = await self.head()
        return await self._message(begun, head, bodiless=b"\r\ncontent-length:" not in head.lower())

    async def response(self, method: bytes = b"GET") -> Message:
        """One whole response to a request of this method; 1xx come one by one like any other."""
        begun = self._taken
        head = await self.head()
        code = head.split(b" ")[1]
        return await self._message(begun, head, bodiless=method == b"HEAD" or code in (b"204", b"304") or code < b"200")

    async def _message(self, begun: int, head: bytes, *, bodiless: bool) -> Message:
        found = Message(head, b"", b"", b"")
        body, trailers = b"", b""
        if found.values(b"transfer-encoding") and not (bodiless and head.startswith(b"HTTP/")):
            body, trailers = await self.chunked()
        elif bodiless:
            pass
        elif lengths := found.values(b"content-length"):
            body = await self.read(int(lengths[0]))
        else:
            body = await self.rest()
        found = Message(head, body, trailers, bytes(self.received[begun : self._taken]))
        self.messages.append(found)
        self._log.append(found)
        return found

    async def chunked(self) -> tuple[bytes, bytes]:
        """A chunked body, decoded, and its trailer lines."""
        pieces: list[bytes] = []
        while size := int((await self.read_until(b"\r\n")).split(b";")[0], 16):
            pieces.append(await self.read(size))
            assert await self.read(2) == b"\r\n"
        trailers = b""
        while (line := await self.read_until(b"\r\n")) != b"\r\n":
            trailers += line
        return b"".join(pieces), trailers

    # -- writing ------------------------------------------------------------------------------------------------

    def send(self, data: bytes) -> None:
        if self.transport is not None:
            self.transport.write(data)

    @property
    def stalled(self) -> bool:
        """The other side takes no more for now."""
        return not self._writable.is_set()

    async def write(self, data: bytes) -> None:
        """Send as fast as the other side takes it, however long that is."""
        self.send(data)
        await self._writable.wait()
        if self.lost.is_set():
            raise WireEndedError("the connection was lost")

    def end(self) -> None:
        """Half-close: nothing more will be sent."""
        if self.transport is not None:
            self.transport.write_eof()

    def close(self) -> None:
        if self.transport is not None:
            self.transport.close()

    def reset(self) -> None:
        """End it with a RST."""
        if self.transport is not None and not self.lost.is_set():
            sock = self.transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.transport.abort()

    def stop_reading(self) -> None:
        """Take nothing more from the kernel, so that the other side's writes stall."""
        if self.transport is not None:
            self.transport.pause_reading()

    def read_on(self) -> None:
        if self.transport is not None:
            self.transport.resume_reading()


Behaviour = Callable[[Wire], Awaitable[None]]


def answering(*answers: bytes, close: bool = False) -> Behaviour:
    """Reads a whole request, then sends the next of ``answers``, the last one for ever. close: after each answer."""
    left = list(answers)

    async def behave(wire: Wire) -> None:
        await wire.request()
        wire.send(left.pop(0) if len(left) > 1 else left[0])
        if close:
            wire.close()

    return behave


class RawServer:
    """See the module. wires: every connection there was, in order. requests: of all of them, as they were read whole.
    faults: what went wrong in a behaviour."""

    def __init__(self) -> None:
        self.behaviour: Behaviour = answering(OK)
        self.wires: list[Wire] = []
        self.requests: list[Message] = []
        self.faults: list[Exception] = []
        self.port = 0
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def received(self) -> bytes:
        """Every byte of all connections."""
        return b"".join(bytes(wire.received) for wire in self.wires)

    def begin(self, behaviour: Behaviour | None = None) -> None:
        """A new test: other behaviour, nothing remembered, no connection left over from the last one."""
        self.behaviour = behaviour or answering(OK)
        for wire in self.wires:
            wire.close()
        self.wires.clear()
        self.requests = []
        self.faults.clear()

    async def request(self, number: int = 1) -> Message:
        """The ``number``-th request (from 1), once it has been read whole."""
        await until(lambda: bool(self.faults) or len(self.requests) >= number, PATIENCE, f"upstream request {number}")
        assert not self.faults, self.faults
        return self.requests[number - 1]

    def _connected(self) -> Wire:
        wire = Wire(self.requests)
        self.wires.append(wire)
        task = asyncio.get_running_loop().create_task(self._serve(wire))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return wire

    async def _serve(self, wire: Wire) -> None:
        try:
            while True:
                if wire.unread:
                    await self.behaviour(wire)
                elif wire.ended.is_set():
                    return
                else:
                    wire._news.clear()
                    await wire._news.wait()
        except (WireEndedError, TimeoutError):
            pass  # what the test waits for tells it
        except Exception as error:  # noqa: BLE001 - kept for the test to see
            self.faults.append(error)
        finally:
            wire.close()

    async def close(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for wire in self.wires:
            wire.close()


@contextlib.asynccontextmanager
async def raw_server(behaviour: Behaviour | None = None) -> AsyncIterator[RawServer]:
    """A running ``RawServer`` on a port of its own."""
    raw = RawServer()
    raw.begin(behaviour)
    listener = await asyncio.get_running_loop().create_server(raw._connected, "127.0.0.1", 0, backlog=1024)
    raw.port = listener.sockets[0].getsockname()[1]
    try:
        yield raw
    finally:
        listener.close()
        await raw.close()
