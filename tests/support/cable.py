"""A way to a TCP port that can be cut, held and mended: a partition for whoever is given its port."""

import asyncio
import contextlib
from collections.abc import AsyncIterator


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

    def cut(self) -> None:
        """Resets what there is and what comes."""
        self._cut = True
        for writer in list(self._writers):
            writer.transport.abort()

    def hold(self) -> None:
        """Takes connections and bytes, and passes nothing on."""
        for gate in self._gates:
            gate.clear()

    def mend(self, *, held: bool = True) -> None:
        """All is well again; with held=False only for connections that are made from now on."""
        self._cut = False
        self._gate = _open_gate()
        self._gates.add(self._gate)
        if held:
            for gate in self._gates:
                gate.set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.opened += 1
        try:
            if self._cut:
                raise ConnectionAbortedError
            there, back = await asyncio.open_connection(*self._target)
        except OSError:
            writer.transport.abort()
            return
        gate = self._gate
        self._writers |= {writer, back}
        try:
            await asyncio.gather(_pass(reader, back, gate), _pass(there, writer, gate))
        finally:
            self._writers -= {writer, back}


def _open_gate() -> asyncio.Event:
    gate = asyncio.Event()
    gate.set()
    return gate


async def _pass(source: asyncio.StreamReader, sink: asyncio.StreamWriter, gate: asyncio.Event) -> None:
    with contextlib.suppress(OSError):
        while data := await source.read(65536):
            await gate.wait()
            sink.write(data)
            await sink.drain()
    with contextlib.suppress(OSError):
        await gate.wait()
        sink.close()
        await sink.wait_closed()


@contextlib.asynccontextmanager
async def cable(port: int, host: str = "127.0.0.1") -> AsyncIterator[Cable]:
    """A whole one to this port."""
    made = Cable(host, port)
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    made.port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        server.close()
        made.mend()
        made.cut()
