"""Connections that never finish their TLS handshake have a place in the limits, and what fails is said and counted."""

import asyncio
import json
import os
import socket
import ssl
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import pytest_asyncio
import trustme

from tests.support.gateway import Gateway, running_gateway, until
from tests.support.rawclient import ask, dial
from tests.support.rawserver import RawServer, Wire, raw_server

pytestmark = pytest.mark.asyncio(loop_scope="module")

GET = b"GET / HTTP/1.1\r\nHost: gw\r\n\r\n"
LIMIT = 8


def descriptors(gateway: Gateway) -> int:
    return len(os.listdir(f"/proc/{gateway.pid}/fd"))  # noqa: PTH208 - names are all that is asked for


class Secured:
    """A gateway with TLS, eight connections for an address, and a certificate asked for. ours, theirs: authorities."""

    def __init__(self, gateway: Gateway, raw: RawServer, ours: trustme.CA) -> None:
        self.gateway, self.raw, self._ours = gateway, raw, ours
        self._idle = descriptors(gateway)

    async def quiet(self) -> None:
        """No connection of an earlier test is left."""
        self.raw.begin()
        await until(lambda: descriptors(self.gateway) <= self._idle, 3.0, "every socket given back")

    def context(self, certificate: trustme.LeafCert | None = None) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._ours.configure_trust(context)
        if certificate is not None:
            certificate.configure_cert(context)
        return context

    async def connect(self, certificate: trustme.LeafCert | None = None) -> Wire:
        """With TLS. OSError where the handshake fails."""
        host, port = self.gateway.url.removeprefix("https://").split(":")
        context = self.context(certificate)
        loop = asyncio.get_running_loop()
        _, wire = await loop.create_connection(Wire, host, int(port), ssl=context, server_hostname="127.0.0.1")
        return wire

    async def silent(self, count: int) -> list[Wire]:
        """Connections that say nothing."""
        return [await dial(self.gateway.url) for _ in range(count)]

    async def denied(self) -> float:
        request = b"GET /metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
        lines = (await ask(self.gateway.admin_url, request)).body.decode().splitlines()
        mark = 'opentv_proxy_client_denied_total{reason="credential"} '
        return float(next(line.removeprefix(mark) for line in lines if line.startswith(mark)))

    async def said(self, event: str, words: str, times: int = 1) -> None:
        """Wait for so many records of this event, with these words."""

        def there() -> bool:
            records: Sequence[dict[str, Any]] = [json.loads(line) for line in self.gateway.log]
            return sum(1 for each in records if each["event"] == event and words in each.get("words", "")) >= times

        await until(there, 3.0, f"{times} of {event}: {words}; there is:\n{self.gateway.words()}")


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=[True, False], ids=["uvloop", "asyncio"])
async def here(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Secured]:
    folder, ours = tmp_path_factory.mktemp("gateway"), trustme.CA()
    ours.cert_pem.write_to_path(str(folder / "ca.pem"))
    ours.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(str(folder / "cert.pem"))
    files = {"cert_file": "cert.pem", "key_file": "cert.pem", "client_ca_file": "ca.pem"}
    async with raw_server() as raw:
        config = {
            "listen": {"address": "127.0.0.1:0", "tls": {key: str(folder / name) for key, name in files.items()}},
            "routes": [{"path": "/", "upstream": raw.url, "identity": None}],
            "limits": {"connections_per_address": LIMIT, "head_time": "1s"},
            "uvloop": request.param,
        }
        async with running_gateway(config, folder) as gateway:
            yield Secured(gateway, raw, ours)


async def test_connections_that_say_nothing_count_and_are_closed_when_their_time_is_up(here: Secured) -> None:
    await here.quiet()
    before = descriptors(here.gateway)
    held = await here.silent(LIMIT)
    await until(lambda: descriptors(here.gateway) >= before + LIMIT, 2.0, "all of them accepted")
    with pytest.raises(OSError):  # noqa: PT011 - a reset, an end in the middle of a handshake: as the loops raise it
        await here.connect()
    assert descriptors(here.gateway) <= before + LIMIT
    await here.said("connection refused", f"has {LIMIT} connections already")
    await until(lambda: all(wire.ended.is_set() for wire in held), 3.0, "the end of their time")
    await here.said("tls handshake failed", "within 1 s", LIMIT)
    wire = await here.connect(here._ours.issue_cert("crm"))
    wire.send(GET)
    assert (await wire.response()).status == 200
    for each in (wire, *held):
        each.close()
    await here.quiet()


async def test_a_place_is_given_back_however_a_handshake_ends(here: Secured) -> None:
    await here.quiet()
    theirs = trustme.CA().issue_cert("crm")
    for turn in range(3 * LIMIT):
        if turn % LIMIT == LIMIT - 1:
            await here.quiet()
        elif turn % 3 == 0:
            (await here.silent(1))[0].reset()
        elif turn % 3 == 1:
            wire = (await here.silent(1))[0]
            wire.send(GET)  # no TLS
            await wire.ended.wait()
            wire.close()
        else:
            try:
                wire = await here.connect(theirs)
                wire.send(GET)
                await wire.lost.wait()
            except OSError:
                pass
    await here.quiet()
    good = here._ours.issue_cert("crm")
    wires = []
    for _ in range(LIMIT):
        wires.append(await here.connect(good))
        wires[-1].send(GET)
        assert (await wires[-1].response()).status == 200
    for wire in wires:
        wire.close()


@pytest.mark.parametrize(
    ("strangers", "words"),
    [
        (True, "an authority that is not trusted here; put that authority into listen.tls.client_ca_file"),
        (False, "its certificate has expired"),
    ],
)
async def test_a_client_certificate_that_is_no_good_is_named_and_counted(
    here: Secured, strangers: bool, words: str
) -> None:
    await here.quiet()
    past = datetime(2001, 1, 1, tzinfo=UTC)
    leaf = trustme.CA().issue_cert("crm") if strangers else here._ours.issue_cert("crm", not_after=past)
    before = await here.denied()
    try:
        wire = await here.connect(leaf)
        wire.send(GET)
        await wire.lost.wait()
        assert not wire.received
    except OSError:
        pass
    await here.said("tls handshake failed", words)
    assert await here.denied() == before + 1


async def test_a_client_in_plain_http_is_said_to_need_https(here: Secured) -> None:
    await here.quiet()
    wire = await dial(here.gateway.url)
    wire.send(GET)
    await here.said("tls handshake failed", "the client does not speak TLS here; its URL must begin with https://")
    wire.close()


async def test_a_client_that_refuses_our_certificate_is_said_to_have_done_so(here: Secured) -> None:
    await here.quiet()
    port = urlsplit(here.gateway.url).port
    strict = ssl.create_default_context()  # it knows the public authorities alone

    def connect() -> None:  # asyncio's client does not send what it has against a certificate
        with socket.create_connection(("127.0.0.1", port)) as sock, pytest.raises(ssl.SSLError):
            strict.wrap_socket(sock, server_hostname="127.0.0.1")

    await asyncio.to_thread(connect)
    words = "the client refused the certificate in listen.tls.cert_file: have it trust its authority"
    await here.said("tls handshake failed", words)


async def test_without_a_certificate_a_client_is_told_in_words_and_counted(here: Secured) -> None:
    await here.quiet()
    before = await here.denied()
    wire = await here.connect()
    wire.send(GET)
    answer = await wire.response()
    assert (answer.status, answer.values(b"www-authenticate")) == (
        401,
        [b'ClientCertificate realm="opentv-auth-proxy"'],
    )
    assert await here.denied() == before + 1
    wire.close()


async def test_what_comes_right_behind_a_handshake_is_not_lost(here: Secured) -> None:
    """A hundred clients whose request is in the same packet as the end of their handshake."""
    await here.quiet()
    good = here.context(here._ours.issue_cert("crm"))
    host, port = here.gateway.url.removeprefix("https://").split(":")

    def one() -> bytes:
        with (
            socket.create_connection((host, int(port)), timeout=5) as plain,
            good.wrap_socket(plain, server_hostname="127.0.0.1", do_handshake_on_connect=False) as secured,
        ):
            secured.do_handshake()
            secured.sendall(GET)
            return secured.recv(4096)

    for _ in range(25):
        found = await asyncio.gather(*(asyncio.to_thread(one) for _ in range(4)))
        assert {each[:12] for each in found} == {b"HTTP/1.1 200"}


async def test_the_end_does_not_wait_for_handshakes(tmp_path: Path) -> None:
    ca = trustme.CA()
    ca.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "cert.pem"))
    tls = {"cert_file": str(tmp_path / "cert.pem"), "key_file": str(tmp_path / "cert.pem")}
    config = {
        "listen": {"address": "127.0.0.1:0", "tls": tls},
        "routes": [{"path": "/", "upstream": "http://127.0.0.1:1", "identity": None}],
    }
    async with running_gateway(config, tmp_path) as gateway:
        wires = [await dial(gateway.url) for _ in range(20)]
        begun = asyncio.get_running_loop().time()
        assert await gateway.stop(10.0) == 0
        assert asyncio.get_running_loop().time() - begun < 4.0
        for wire in wires:
            wire.close()
    assert [line for line in gateway.log if '"level":"error"' in line or "Traceback" in line] == []
