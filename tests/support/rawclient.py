"""A raw-socket client: literal bytes to the gateway, literal bytes back."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

from tests.support.rawserver import Message, Wire


async def dial(url: str, *, receive_buffer: int = 0) -> Wire:
    """A connection to ``http://host:port``; the caller closes it. receive_buffer: bytes the kernel takes in unread."""
    parts = urlsplit(url)
    assert parts.hostname
    assert parts.port
    sock = socket.socket()
    sock.setblocking(False)
    if receive_buffer:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    await asyncio.get_running_loop().sock_connect(sock, (parts.hostname, parts.port))
    _, wire = await asyncio.get_running_loop().create_connection(Wire, sock=sock)
    return wire


@contextlib.asynccontextmanager
async def client(url: str, *, receive_buffer: int = 0) -> AsyncIterator[Wire]:
    """``dial`` for a ``with`` block."""
    wire = await dial(url, receive_buffer=receive_buffer)
    try:
        yield wire
    finally:
        wire.close()


async def ask(url: str, request: bytes) -> Message:
    """One request on a connection of its own, and its (last, not interim) response."""
    async with client(url) as wire:
        wire.send(request)
        method = request.lstrip(b"\r\n").split(b" ")[0]
        while (found := await wire.response(method)).status < 200:
            pass
        return found
