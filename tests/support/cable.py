"""A way to a TCP port that can be cut, held, slowed, made to lose answers, and mended: a partition for whoever is given
its port."""

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator
from typing import Literal

Losing = Literal["half-close", "reset"]


class Cable:
    """port: to connect to. opened: how many connections were made to it."""

    def __init__(self, host: str, port: int) -> None:
        self.port = 0
        self.opened = 0
        self._target = host, port
        self._writers: set[asyncio.StreamWriter] = set()
        self._gate = _open_gate()
        self._gates: set[asyncio.Event] = {self._gate}
        self._cut = False
        self._delay = 0.0
        self._losing: Losing | None = None
        self._quiet: set[asyncio.StreamWriter] = set()  # towards whoever connected: nothing is asked on them
        self._ended: set[asyncio.StreamWriter] = set()  # of these, those that no answer can go to any more
        self._plugging = asyncio.Lock()
        self._server: asyncio.Server | None = None

    async def plug(self) -> None:
        """Listen: at first, or again on the same port. Nothing where it does."""
        async with self._plugging:
            if self._server is None:
                self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
                self.port = self._server.sockets[0].getsockname()[1]

    def unplug(self) -> None:
        """Resets what there is; nobody listens."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for writer in list(self._writers):
            _reset(writer)

    def cut(self) -> None:
        """Resets what there is and what comes."""
        self._cut = True
        for writer in list(self._writers):
            _reset(writer)

    def hold(self) -> None:
        """Takes connections and bytes, and passes nothing on."""
        for gate in self._gates:
            gate.clear()

    def slow(self, seconds: float) -> None:
        """Every piece takes so much longer, either way."""
        self._delay = seconds

    def lose(self, how: Losing) -> None:
        """What is sent arrives, and its answer is lost: the connection is reset, or half of the answer comes and then
        its end, while this half stays open. Connections on which nothing is asked end so at once."""
        self._losing = how
        for writer in list(self._quiet):
            self._ended.add(writer)
            _end(writer, how)

    def mend(self, *, held: bool = True) -> None:
        """All is well again; with held=False only for connections that are made from now on."""
        self._cut = False
        self._delay, self._losing = 0.0, None
        self._gate = _open_gate()
        self._gates.add(self._gate)
        if held:
            for gate in self._gates:
                gate.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.opened += 1
        try:
            if self._cut:
                raise ConnectionAbortedError
            there, back = await asyncio.open_connection(*self._target)
        except OSError:
            _reset(writer)
            return
        gate = self._gate
        self._writers |= {writer, back}
        self._quiet.add(writer)
        try:
            await asyncio.gather(self._ask(reader, back, writer, gate), self._answer(there, writer, gate))
        finally:
            for kept in (self._quiet, self._ended):
                kept.discard(writer)
            self._writers -= {writer, back}
            for each in (writer, back):
                each.close()

    async def _ask(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, asker: asyncio.StreamWriter, gate: asyncio.Event
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(65536):
                self._quiet.discard(asker)
                await self._pass(data, sink, gate)
        await self._close(sink, gate)

    async def _answer(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, gate: asyncio.Event) -> None:
        with contextlib.suppress(OSError):
            while (data := await source.read(65536)) and sink not in self._ended:
                if self._losing is not None:
                    if self._losing == "half-close":
                        sink.write(data[: len(data) // 2])
                    _end(sink, self._losing)
                    return
                await self._pass(data, sink, gate)
                self._quiet.add(sink)
        if not sink.is_closing():
            await self._close(sink, gate)

    async def _pass(self, data: bytes, sink: asyncio.StreamWriter, gate: asyncio.Event) -> None:
        if self._delay:
            await asyncio.sleep(self._delay)
        await gate.wait()
        sink.write(data)
        await sink.drain()

    @staticmethod
    async def _close(sink: asyncio.StreamWriter, gate: asyncio.Event) -> None:
        with contextlib.suppress(OSError):
            await gate.wait()
            sink.close()
            await sink.wait_closed()


def _end(writer: asyncio.StreamWriter, how: Losing) -> None:
    if writer.is_closing():
        return
    if how == "reset":
        _reset(writer)
    elif writer.can_write_eof():
        with contextlib.suppress(OSError):
            writer.write_eof()


def _reset(writer: asyncio.StreamWriter) -> None:
    sock = writer.get_extra_info("socket")
    if sock is not None and sock.fileno() >= 0:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # RST, not FIN
    writer.transport.abort()


def _open_gate() -> asyncio.Event:
    gate = asyncio.Event()
    gate.set()
    return gate


@contextlib.asynccontextmanager
async def cable(port: int, host: str = "127.0.0.1") -> AsyncIterator[Cable]:
    """A whole one to this port."""
    made = Cable(host, port)
    await made.plug()
    try:
        yield made
    finally:
        made.mend()
        made.unplug()
