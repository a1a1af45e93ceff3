"""Answers over TLS on both sides: what holds without it holds with it."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio
import trustme

from tests.support.gateway import running_gateway, until
from tests.support.rawserver import OK, Behaviour, Message, RawServer, Wire, answering

pytestmark = pytest.mark.asyncio(loop_scope="module")

MIB = 1 << 20
GET = b"GET / HTTP/1.1\r\nHost: gw\r\n\r\n"
GET_1_0 = b"GET / HTTP/1.0\r\nHost: gw\r\n\r\n"


class Hasty(Wire):
    """Leaves before anybody has asked."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.close()


@dataclass
class Secure:
    """raw: the upstream, by TLS. url: the gateway's listener, by TLS too. hasty: the upstream leaves at once."""

    raw: RawServer
    context: ssl.SSLContext
    url: str = ""
    hasty: bool = False

    def connected(self) -> Wire:
        """The upstream's end of a new connection."""
        return Hasty() if self.hasty else self.raw._connected()

    async def dial(self) -> Wire:
        host, port = self.url.removeprefix("https://").split(":")
        loop = asyncio.get_running_loop()
        _, wire = await loop.create_connection(Wire, host, int(port), ssl=self.context, server_hostname="127.0.0.1")
        return wire

    async def answer(self, behaviour: Behaviour, request: bytes = GET) -> Message:
        self.raw.begin(behaviour)
        wire = await self.dial()
        try:
            wire.send(request)
            return await wire.response()
        finally:
            wire.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=[True, False], ids=["uvloop", "asyncio"])
async def here(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Secure]:
    folder = tmp_path_factory.mktemp("gateway")
    ca = trustme.CA()
    ca.cert_pem.write_to_path(str(folder / "ca.pem"))
    issued = ca.issue_cert("127.0.0.1")
    chain, key = folder / "chain.pem", folder / "key.pem"
    chain.write_bytes(b"".join(pem.bytes() for pem in issued.cert_chain_pems))
    issued.private_key_pem.write_to_path(str(key))
    server, client = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH), ssl.create_default_context()
    issued.configure_cert(server)
    ca.configure_trust(client)
    there = Secure(RawServer(), client)
    loop = asyncio.get_running_loop()
    listener = await loop.create_server(there.connected, "127.0.0.1", 0, ssl=server)
    there.raw.port = listener.sockets[0].getsockname()[1]
    route = {
        "path": "/",
        "upstream": f"https://127.0.0.1:{there.raw.port}",
        "identity": None,
        "tls": {"ca_file": str(folder / "ca.pem")},
        "timeouts": {"response": "3s"},
    }
    listen = {"address": "127.0.0.1:0", "tls": {"cert_file": str(chain), "key_file": str(key)}}
    config = {"listen": listen, "routes": [route], "uvloop": request.param}
    async with running_gateway(config, Path(folder)) as gateway:
        there.url = gateway.url
        yield there
    listener.close()
    await there.raw.close()


async def test_a_big_last_answer_arrives_whole(here: Secure) -> None:
    body = bytes(range(256)) * 4096 * 8
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body)
    request = GET.replace(b"Host", b"Connection: close\r\nHost")
    assert (await here.answer(answering(head + body), request)).body == body


async def test_a_connection_serves_one_request_after_the_other(here: Secure) -> None:
    here.raw.begin(answering(OK))
    wire = await here.dial()
    for _ in range(3):
        wire.send(GET)
        assert (await wire.response()).body == b"ok"
    assert len(here.raw.wires) == 1
    wire.close()


@pytest.mark.parametrize("request_", [GET, GET_1_0], ids=["1.1", "1.0"])
async def test_a_truncated_answer_looks_truncated(here: Secure, request_: bytes) -> None:
    async def torn(wire: Wire) -> None:
        await wire.request()
        wire.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\npart\r\n")
        await asyncio.sleep(0.05)
        wire.close()

    here.raw.begin(torn)
    wire = await here.dial()
    wire.send(request_)
    await wire.head()
    await until(wire.lost.is_set, 3.0, "the end")
    assert not bytes(wire.received).endswith(b"0\r\n\r\n")
    assert isinstance(wire.broken, ConnectionResetError)


@pytest.mark.parametrize("head", [b"HTTP/1.1 200 OK\r\n\r\n", b"HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\n"])
async def test_a_body_that_only_the_end_delimits_is_whole_after_a_closure_alert_and_broken_off_without(
    here: Secure, head: bytes
) -> None:
    """RFC 9112 9.8: anybody on the way can send a FIN, and only the upstream a closure alert."""

    async def cut(wire: Wire) -> None:
        await wire.request()
        await wire.write(head + b"all that " * 20_000)
        assert wire.transport is not None
        await until(lambda: wire.transport is None or wire.transport.get_write_buffer_size() == 0, 3.0, "all sent")
        await asyncio.sleep(0.05)
        wire.transport.get_extra_info("socket").shutdown(socket.SHUT_RDWR)

    async def whole(wire: Wire) -> None:
        await wire.request()
        wire.send(head + b"all that " * 20_000)
        wire.close()

    found = await here.answer(whole)
    assert found.body == b"all that " * 20_000
    for request in (GET, GET_1_0):
        here.raw.begin(cut)
        wire = await here.dial()
        wire.send(request)
        await wire.head()
        await until(wire.lost.is_set, 3.0, "the end")
        assert not bytes(wire.received).endswith(b"0\r\n\r\n")
        assert isinstance(wire.broken, ConnectionResetError)


async def test_an_upstream_that_leaves_right_behind_its_handshake_is_502_at_once(here: Secure) -> None:
    here.hasty = True
    try:
        begun = asyncio.get_running_loop().time()
        found = await here.answer(answering(OK))
        assert asyncio.get_running_loop().time() - begun < 2.0
    finally:
        here.hasty = False
    assert found.status == 502
    assert (await here.answer(answering(OK))).body == b"ok"
