"""TLS on both sides of a running gateway: client certificates, upstreams that cannot be trusted, renewals."""

import asyncio
import contextlib
import json
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import trustme

from tests.support.gateway import running_gateway, until

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@dataclass
class Answer:
    """status 0: the connection died without one. body: parsed when it is the gateway's own problem."""

    status: int
    head: str
    body: bytes

    @property
    def detail(self) -> str:
        return str(json.loads(self.body)["detail"])


class Authority:
    """An authority in a folder, and the files of what it issues."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder / name
        self._folder.mkdir()
        self._ca = trustme.CA(organization_name=name)
        self.file = self._folder / "ca.pem"
        self._ca.cert_pem.write_to_path(str(self.file))

    def issue(self, name: str, *, file: str = "") -> dict[str, str]:
        """``cert_file`` and ``key_file`` of a certificate for ``name``, as the configuration names them."""
        leaf = self._ca.issue_cert(name)
        cert, key = self._folder / f"{file or name}.pem", self._folder / f"{file or name}.key"
        cert.write_bytes(b"".join(blob.bytes() for blob in leaf.cert_chain_pems))
        leaf.private_key_pem.write_to_path(str(key))
        return {"cert_file": str(cert), "key_file": str(key)}


@pytest.fixture
def ours(tmp_path: Path) -> Authority:
    return Authority(tmp_path, "ours")


@pytest.fixture
def theirs(tmp_path: Path) -> Authority:
    return Authority(tmp_path, "theirs")


async def ask(url: str, context: ssl.SSLContext | None, *lines: str, path: str = "/x", name: str = "gateway") -> Answer:
    """One request on a connection of its own."""
    host, port = url.partition("://")[2].rsplit(":", 1)
    try:
        async with asyncio.timeout(20):
            reader, writer = await asyncio.open_connection(
                host, int(port), ssl=context, server_hostname=name if context else None
            )
            head = "".join(f"{line}\r\n" for line in (f"GET {path} HTTP/1.1", "Host: x", "Connection: close", *lines))
            writer.write(head.encode() + b"\r\n")
            answer = await reader.read()
            writer.transport.abort()
    except OSError as exc:
        return Answer(0, str(exc), b"")
    head_bytes, _, body = answer.partition(b"\r\n\r\n")
    return Answer(int(head_bytes.split(b" ")[1]) if head_bytes else 0, head_bytes.decode(), body)


@contextlib.asynccontextmanager
async def upstream(context: ssl.SSLContext | None) -> AsyncIterator[tuple[int, list[str]]]:
    """An upstream that answers ``ok``: its port, and for each request the name in the client's certificate."""
    seen: list[str] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, EOFError):
            while True:
                await reader.readuntil(b"\r\n\r\n")
                names = (writer.get_extra_info("peercert") or {}).get("subjectAltName", (("", ""),))
                seen.append(names[0][1])
                writer.write(OK)
        writer.transport.abort()

    asyncio.get_running_loop().set_exception_handler(lambda _loop, _context: None)  # failed handshakes are the point
    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1], seen
    finally:
        server.close()


def serving(files: dict[str, str], client_ca: Path | None = None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files["cert_file"], files["key_file"])
    if client_ca is not None:
        context.load_verify_locations(client_ca)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def asking(authority: Authority, files: dict[str, str] | None = None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(authority.file)
    if files is not None:
        context.load_cert_chain(files["cert_file"], files["key_file"])
    return context


def config(
    port: int, scheme: str = "http", *, listen_tls: dict[str, str] | None = None, **route: Any
) -> dict[str, Any]:
    listen = {"listen": {"address": "127.0.0.1:0", "tls": listen_tls}} if listen_tls else {}
    return {**listen, "routes": [{"path": "/", "upstream": f"{scheme}://127.0.0.1:{port}", **route}]}


async def test_with_client_ca_file_only_a_client_with_a_certificate_is_admitted(
    tmp_path: Path, ours: Authority, theirs: Authority
) -> None:
    """No certificate: told so in words, with a way in. A stranger's: the handshake fails."""
    listen_tls = {**ours.issue("gateway"), "client_ca_file": str(ours.file)}
    async with (
        upstream(None) as (port, seen),
        running_gateway(config(port, listen_tls=listen_tls), tmp_path) as gateway,
    ):
        assert gateway.url.startswith("https://")
        assert (await ask(gateway.url, asking(ours, ours.issue("crm")))).body == b"ok"
        refused = await ask(gateway.url, asking(ours))
        assert refused.status == 401
        assert "WWW-Authenticate: ClientCertificate" in refused.head
        assert (await ask(gateway.url, asking(ours, theirs.issue("crm")))).status == 0
        assert (await ask(gateway.url.replace("https", "http"), None)).status == 0
        assert len(seen) == 1


async def test_a_renewed_certificate_is_served_without_a_signal_and_a_broken_one_is_not(
    tmp_path: Path, ours: Authority
) -> None:
    """The files are noticed within 5 s; connections that are open are not touched."""
    files = ours.issue("gateway", file="listener")
    async with upstream(None) as (port, _), running_gateway(config(port, listen_tls=files), tmp_path) as gateway:
        assert (await ask(gateway.url, asking(ours))).status == 200
        Path(files["key_file"]).write_text("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")
        await until(lambda: "listener certificate" in gateway.words(), 10, "the broken key was reported")
        assert (await ask(gateway.url, asking(ours))).status == 200
        ours.issue("renewed", file="listener")

        async def renewed() -> bool:
            return (await ask(gateway.url, asking(ours), name="renewed")).status == 200

        await until(renewed, 10, "the renewed certificate was served")


async def test_an_upstream_of_a_private_authority_is_reached_with_the_gateways_own_certificate(
    tmp_path: Path, ours: Authority
) -> None:
    tls = {"ca_file": str(ours.file), "server_name": "platform", **ours.issue("gateway")}
    context = serving(ours.issue("platform"), client_ca=ours.file)
    async with (
        upstream(context) as (port, seen),
        running_gateway(config(port, "https", tls=tls), tmp_path) as gateway,
    ):
        assert (await ask(gateway.url, None)).body == b"ok"
        assert seen == ["gateway"]


@pytest.mark.parametrize(
    ("tls", "words"),
    [
        ({"server_name": "platform"}, "put that authority into ca_file"),
        ({"ca_file": "ours"}, "not for 127.0.0.1"),
        ({"ca_file": "ours", "server_name": "other"}, "not for other"),
    ],
)
async def test_an_upstream_that_cannot_be_trusted_gets_no_request_and_the_client_502_in_words(
    tmp_path: Path, ours: Authority, tls: dict[str, str], words: str
) -> None:
    tls = {key: str(ours.file) if value == "ours" else value for key, value in tls.items()}
    async with (
        upstream(serving(ours.issue("platform"))) as (port, seen),
        running_gateway(config(port, "https", tls=tls), tmp_path) as gateway,
    ):
        answer = await ask(gateway.url, None)
        assert answer.status == 502
        assert words in answer.detail
        assert "Proxy-Status: opentv-proxy; error=" in answer.head
        metrics = await ask(gateway.admin_url, None, path="/metrics")
        assert b'opentv_proxy_upstream_errors_total{reason="tls",route="/"} 1' in metrics.body
        assert seen == []


async def test_verify_false_reaches_it_all_the_same(tmp_path: Path, ours: Authority) -> None:
    async with (
        upstream(serving(ours.issue("platform"))) as (port, _),
        running_gateway(config(port, "https", tls={"verify": False}), tmp_path) as gateway,
    ):
        assert (await ask(gateway.url, None)).body == b"ok"


async def test_a_plain_upstream_behind_an_https_url_is_named_as_what_it_is(tmp_path: Path) -> None:
    async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(plain, "127.0.0.1", 0)
    async with server, running_gateway(config(server.sockets[0].getsockname()[1], "https"), tmp_path) as gateway:
        answer = await ask(gateway.url, None)
        assert answer.status == 502
        assert "does not speak TLS on this port" in answer.detail


async def test_an_upstream_that_demands_a_client_certificate_breaks_off_and_the_client_gets_502(
    tmp_path: Path, ours: Authority
) -> None:
    tls = {"ca_file": str(ours.file), "server_name": "platform"}
    async with (
        upstream(serving(ours.issue("platform"), client_ca=ours.file)) as (port, seen),
        running_gateway(config(port, "https", tls=tls), tmp_path) as gateway,
    ):
        assert (await ask(gateway.url, None)).status == 502
        assert seen == []
