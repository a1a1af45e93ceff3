"""Where the proxied port binds, and words for an address that cannot be had."""

import asyncio
import errno
import socket
from typing import Final

from proxy.config import Address
from proxy.errors import ProxyError

_WORDS: Final = {
    errno.EADDRINUSE: "something else listens there; end it, or choose another address",
    errno.EADDRNOTAVAIL: "this machine has no such address",
    errno.EACCES: "this user may not use the port; ports below 1024 need CAP_NET_BIND_SERVICE",
}


# Seconds of silence, between two probes, and how many go unanswered: a peer that is lost without a word (power, a
# dropped NAT entry) is noticed within two minutes, also where no deadline runs: tunnels and event streams.
_KEEPALIVE: Final = ((socket.TCP_KEEPIDLE, 60), (socket.TCP_KEEPINTVL, 15), (socket.TCP_KEEPCNT, 4))


def keep_watch(sock: socket.socket) -> None:
    """Have the kernel ask now and then whether the peer is still there. Accepted sockets inherit it."""
    if sock.family in (socket.AF_INET, socket.AF_INET6):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in _KEEPALIVE:
            sock.setsockopt(socket.IPPROTO_TCP, option, value)


def cannot_listen(what: str, address: Address, exc: OSError) -> ProxyError:
    """what: the configuration's key."""
    words = _WORDS.get(exc.errno or 0) or ("the name is not known" if isinstance(exc, socket.gaierror) else None)
    return ProxyError(f"{what}: cannot listen on {address}: {words or exc.strerror or exc}")


async def bound(what: str, address: Address, *, reuse_port: bool) -> list[socket.socket]:
    """A socket for each address that the host stands for, bound and not yet listening: nobody is kept waiting.

    Both event loops bind alike this way; uvloop's own would tell of a port in use only when it begins to listen.
    Raises ProxyError.
    """
    try:
        found = await asyncio.get_running_loop().getaddrinfo(
            address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except OSError as exc:
        raise cannot_listen(what, address, exc) from exc
    sockets: list[socket.socket] = []
    failure: OSError | None = None
    for family, kind, protocol, _, place in dict.fromkeys(found):
        sock = socket.socket(family, kind, protocol)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if reuse_port:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            keep_watch(sock)
            sock.bind(place)
        except OSError as exc:
            sock.close()
            failure = exc
            if exc.errno != errno.EADDRNOTAVAIL:  # localhost is often ::1 too, where IPv6 is switched off
                break
        else:
            sockets.append(sock)
            failure = None
    if failure is not None or not sockets:
        for sock in sockets:
            sock.close()
        raise cannot_listen(what, address, failure or OSError(errno.EADDRNOTAVAIL, "")) from failure
    return sockets
