"""A TCP connection on which nothing has been sent yet, and how far the making of one has come."""

import asyncio
import socket
from typing import Final, NamedTuple


class Stage(NamedTuple):
    """What is awaited. what: words for what did not happen. error: RFC 9209 2.3 error type. advice: after "; "."""

    what: str
    error: str = "connection_timeout"
    advice: str = ""

    def late(self, place: str, seconds: float) -> str:
        """Words for a person: the time is over."""
        return f"{place} {self.what} within {seconds:g} s{self.advice and '; '}{self.advice}"


NAME: Final = Stage("could not be looked up", "dns_timeout", "check the name server")
PORT: Final = Stage("did not accept a connection")
DETOUR: Final = Stage("was not reached by the HTTP proxy")
HANDSHAKE: Final = Stage(
    "accepted the connection, but did not finish the TLS handshake",
    advice="is the URL meant to begin with http://?",
)


class Attempt:
    """One connection in the making. stage: None before it has begun."""

    __slots__ = ("stage",)

    def __init__(self) -> None:
        self.stage: Stage | None = None


async def dialled(host: str, port: int, attempt: Attempt) -> socket.socket:
    """A connection at the first address that takes one. Raises OSError: of several addresses one for all, as asyncio
    writes it; how long it takes is the caller's business."""
    loop = asyncio.get_running_loop()
    attempt.stage = NAME
    addresses = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    attempt.stage = PORT
    failures: list[OSError] = []
    for family, kind, protocol, _, place in addresses:
        try:
            sock = socket.socket(family, kind, protocol)
            try:
                sock.setblocking(False)
                await loop.sock_connect(sock, place)
            except BaseException:
                sock.close()
                raise
        except OSError as exc:
            failures.append(exc)
        else:
            return sock
    if len(failures) == 1:
        raise failures[0]
    raise OSError(f"Multiple exceptions: {', '.join(map(str, failures))}")
