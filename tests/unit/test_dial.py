"""The making of a connection: what it waited for when its time was over."""

import asyncio
import errno
import socket
from collections.abc import Callable
from typing import Any

import pytest
import uvloop

from proxy import tls
from proxy.gateway.dial import NAME, PORT, Attempt, dialled
from proxy.gateway.http1 import RequestHead
from proxy.gateway.pool import UpstreamPool
from proxy.gateway.relation import UpstreamError
from proxy.gateway.sending import SendingBody
from proxy.metrics import RouteMetrics


class Unanswered(asyncio.SelectorEventLoop):
    """No name server answers."""

    async def getaddrinfo(self, *_: Any, **__: Any) -> Any:
        await asyncio.get_running_loop().create_future()


class Several(asyncio.SelectorEventLoop):
    """Every name has these addresses, of which the first leads nowhere."""

    places: tuple[tuple[str, int], ...] = ()

    async def getaddrinfo(self, *_: Any, **__: Any) -> Any:
        return [(socket.AF_INET, socket.SOCK_STREAM, 0, "", place) for place in self.places]

    async def sock_connect(self, sock: socket.socket, address: Any) -> None:
        if address[1] == 1:
            raise OSError(errno.ENETUNREACH, "x")
        await super().sock_connect(sock, address)


async def connected() -> UpstreamError:
    body = SendingBody(RequestHead(b"GET", b"/", 1, []), 0)
    body.done = True
    pool = UpstreamPool(
        "up.example", 80, key=None, context=None, server_name=None, limit=1, timeout=0.05, metrics=RouteMetrics()
    )
    with pytest.raises(UpstreamError) as caught:
        await pool.connect(body)
    return caught.value


def test_a_name_server_that_does_not_answer_is_what_is_late() -> None:
    with asyncio.Runner(loop_factory=Unanswered) as runner:
        error = runner.run(connected())
    assert (error.reason, error.error) == ("timeout", "dns_timeout")
    assert error.words == "the upstream up.example:80 could not be looked up within 0.05 s; check the name server"


def test_the_first_address_that_takes_a_connection_is_taken() -> None:
    loop = Several()
    with socket.create_server(("127.0.0.1", 0)) as listener, asyncio.Runner(loop_factory=lambda: loop) as runner:
        loop.places = (("127.0.0.2", 1), listener.getsockname())
        attempt = Attempt()
        with runner.run(dialled("up.example", 80, attempt)) as sock:
            assert sock.getpeername() == listener.getsockname()
        assert attempt.stage is PORT


def test_of_several_addresses_every_failure_is_told_once() -> None:
    loop = Several()
    with socket.socket() as bound, asyncio.Runner(loop_factory=lambda: loop) as runner:
        bound.bind(("127.0.0.1", 0))
        loop.places = (("127.0.0.2", 1), bound.getsockname(), bound.getsockname())
        with pytest.raises(OSError, match="Multiple") as caught:
            runner.run(dialled("up.example", 80, Attempt()))
    assert tls.proxy_error(caught.value) == "connection_refused"
    assert tls.explain(caught.value).split("; ") == [
        "the host cannot be reached: no route to it from here",
        "the connection was refused: nothing listens on that port, or a firewall rejects it",
    ]


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_a_refusal_is_a_refusal_on_either_loop(new_loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    attempt = Attempt()
    with socket.socket() as bound, asyncio.Runner(loop_factory=new_loop) as runner:
        bound.bind(("127.0.0.1", 0))
        with pytest.raises(ConnectionRefusedError):
            runner.run(dialled("localhost", bound.getsockname()[1], attempt))
    assert attempt.stage is not NAME
