"""TLS: contexts from files, faults of files in words, and words for what a connection can die of.

The handshakes are real ones, on 127.0.0.1, under asyncio's own loop and under uvloop.
"""

import asyncio
import contextlib
import datetime as dt
import errno
import os
import socket
import ssl
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import trustme
import uvloop
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from proxy import tls
from proxy.config import ClientTls, ListenTls
from proxy.errors import ConfigError

LOOPS = [pytest.param(asyncio.new_event_loop, id="asyncio"), pytest.param(uvloop.new_event_loop, id="uvloop")]
NewLoop = Callable[[], asyncio.AbstractEventLoop]
NOW = dt.datetime.now(dt.UTC)
DAY = dt.timedelta(days=1)


class Site:
    """An authority of the tests' own and the files of certificates it issued."""

    def __init__(self, folder: Path, name: str = "ca") -> None:
        self.folder = folder / name
        self.folder.mkdir()
        self.ca = trustme.CA(organization_name=name)
        self.ca_file = self.folder / "ca.pem"
        self.ca.cert_pem.write_to_path(str(self.ca_file))

    def issue(self, *names: str, file: str = "server", days: int = 30) -> tuple[Path, Path]:
        """Certificate and key for these names; ``days`` until it expires, negative for one that did."""
        leaf = self.ca.issue_cert(*names, not_before=NOW - 60 * DAY, not_after=NOW + days * DAY)
        cert, key = self.folder / f"{file}.pem", self.folder / f"{file}.key"
        cert.write_bytes(b"".join(blob.bytes() for blob in leaf.cert_chain_pems))
        leaf.private_key_pem.write_to_path(str(key))
        return cert, key

    def listen(self, *names: str, **fields: Any) -> ListenTls:
        cert, key = self.issue(*names)
        return ListenTls(cert_file=cert, key_file=key, **fields)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


@pytest.fixture
def stranger(tmp_path: Path) -> Site:
    return Site(tmp_path, "stranger")


@dataclass
class Meeting:
    """What came of a connection: the client's error, or what the server told it about itself and the client."""

    error: Exception | None
    answer: bytes = b""

    @property
    def words(self) -> str:
        assert self.error is not None, f"no error but {self.answer!r}"
        return tls.explain(self.error)

    @property
    def reason(self) -> str:
        assert self.error is not None, f"no error but {self.answer!r}"
        return tls.reason(self.error)


async def _serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Tells who the client is by its certificate, and which protocol and version were agreed."""
    try:
        await reader.readexactly(1)
        session = writer.get_extra_info("ssl_object")
        peer = dict(pair[0] for pair in (session.getpeercert() or {}).get("subject", ()))
        told = f"{bool(peer)} {session.selected_alpn_protocol()} {session.version()}"
        writer.write(told.encode())
        await writer.drain()
    except (OSError, EOFError):
        pass
    finally:
        writer.transport.abort() if writer.transport.is_closing() else writer.close()


async def meet(server: ssl.SSLContext | None, client: ssl.SSLContext, name: str = "gateway.example") -> Meeting:
    """One connection to a server of its own; the client sends a byte and reads what it is told."""

    def quiet(_loop: asyncio.AbstractEventLoop, _context: dict[str, Any]) -> None:
        """Failed handshakes are the point here; the loop need not report them."""

    asyncio.get_running_loop().set_exception_handler(quiet)
    listener = await asyncio.start_server(_serve, "127.0.0.1", 0, ssl=server)
    port = listener.sockets[0].getsockname()[1]
    writer = None
    try:
        async with asyncio.timeout(20):
            reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=client, server_hostname=name)
            writer.write(b"?")
            answer = await reader.read()
            return Meeting(None if answer else EOFError(), answer)
    except OSError as exc:
        return Meeting(exc)
    finally:
        if writer is not None:
            writer.transport.abort()
        listener.close()
        await listener.wait_closed()


async def meet_strict(server: ssl.SSLContext, client: ssl.SSLContext) -> Meeting:
    """Like ``meet``, with a server that says why it refuses: asyncio's servers close without the TLS alert."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        refusing = asyncio.get_running_loop().run_in_executor(None, _refuse, listener, server)
        try:
            port = listener.getsockname()[1]
            async with asyncio.timeout(20):
                reader, writer = await asyncio.open_connection(
                    "127.0.0.1", port, ssl=client, server_hostname="gateway.example"
                )
                try:
                    return Meeting(EOFError(), await reader.read())
                finally:
                    writer.transport.abort()
        except OSError as exc:
            return Meeting(exc)
        finally:
            await refusing


def _refuse(listener: socket.socket, server: ssl.SSLContext) -> None:
    listener.settimeout(20)
    raw, _ = listener.accept()
    with raw:
        raw.settimeout(20)
        with contextlib.suppress(OSError):
            session = server.wrap_socket(raw, server_side=True, do_handshake_on_connect=False)
            with session, contextlib.suppress(ssl.SSLError):
                session.do_handshake()


def run(work: Coroutine[Any, Any, Meeting], new_loop: NewLoop = asyncio.new_event_loop) -> Meeting:
    with asyncio.Runner(loop_factory=new_loop) as runner:
        return runner.run(work)


@pytest.mark.parametrize("new_loop", LOOPS)
def test_a_known_authority_and_the_right_name_connect_over_http_1_1_only(site: Site, new_loop: NewLoop) -> None:
    client = tls.client_context(ClientTls(ca_file=site.ca_file))
    client.set_alpn_protocols(["h2", "http/1.1"])
    met = run(meet(tls.server_context(site.listen("gateway.example")), client), new_loop)
    assert met.answer == b"False http/1.1 TLSv1.3"


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
def test_nothing_older_than_tls_1_2_is_offered_or_accepted(site: Site, version: ssl.TLSVersion) -> None:
    server = tls.server_context(site.listen("gateway.example"))
    client = tls.client_context(ClientTls(ca_file=site.ca_file))
    assert server.minimum_version == client.minimum_version == ssl.TLSVersion.TLSv1_2 > version


@pytest.mark.parametrize("new_loop", LOOPS)
def test_an_unknown_authority_is_named_as_such(site: Site, stranger: Site, new_loop: NewLoop) -> None:
    client = tls.client_context(ClientTls(ca_file=stranger.ca_file))
    met = run(meet(tls.server_context(site.listen("gateway.example")), client), new_loop)
    assert met.reason == "tls"
    assert "authority that is not trusted here; put that authority into ca_file" in met.words


@pytest.mark.parametrize("new_loop", LOOPS)
def test_without_ca_file_the_systems_authorities_are_trusted_and_no_others(site: Site, new_loop: NewLoop) -> None:
    met = run(meet(tls.server_context(site.listen("gateway.example")), tls.client_context(ClientTls())), new_loop)
    assert met.reason == "tls"
    assert "put that authority into ca_file" in met.words


def test_a_self_signed_certificate_is_named_as_such(site: Site) -> None:
    cert = site.folder / "ca-as-server.pem"
    cert.write_bytes(site.ca.cert_pem.bytes())
    key = site.folder / "ca.key"
    site.ca.private_key_pem.write_to_path(str(key))
    server = tls.server_context(ListenTls(cert_file=cert, key_file=key))
    assert "self-signed" in run(meet(server, tls.client_context(ClientTls()))).words


@pytest.mark.parametrize("new_loop", LOOPS)
def test_a_certificate_for_another_name_says_which_name_was_expected(site: Site, new_loop: NewLoop) -> None:
    client = tls.client_context(ClientTls(ca_file=site.ca_file))
    server = tls.server_context(site.listen("other.example"))
    met = run(meet(server, client), new_loop)
    assert met.reason == "tls"
    assert "not for gateway.example" in met.words
    assert "tls.server_name" in met.words
    assert "not for 127.0.0.1" in run(meet(server, client, "127.0.0.1"), new_loop).words


@pytest.mark.parametrize("new_loop", LOOPS)
def test_an_expired_certificate_is_named_as_such(site: Site, new_loop: NewLoop) -> None:
    cert, key = site.issue("gateway.example", days=-1)
    server = tls.server_context(ListenTls(cert_file=cert, key_file=key))
    met = run(meet(server, tls.client_context(ClientTls(ca_file=site.ca_file))), new_loop)
    assert met.reason == "tls"
    assert "has expired" in met.words


def test_verify_false_accepts_whatever_the_peer_shows(site: Site) -> None:
    cert, key = site.issue("other.example", days=-1)
    server = tls.server_context(ListenTls(cert_file=cert, key_file=key))
    assert run(meet(server, tls.client_context(ClientTls(verify=False)))).answer


@pytest.mark.parametrize("new_loop", LOOPS)
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_peer_that_demands_a_client_certificate_is_understood(
    site: Site, new_loop: NewLoop, version: ssl.TLSVersion
) -> None:
    server = tls.server_context(site.listen("gateway.example", client_ca_file=site.ca_file))
    server.verify_mode = ssl.CERT_REQUIRED
    server.maximum_version = version
    met = run(meet_strict(server, tls.client_context(ClientTls(ca_file=site.ca_file))), new_loop)
    assert met.reason == "tls"
    assert "demands a client certificate" in met.words
    assert "tls.cert_file" in met.words


@pytest.mark.parametrize("new_loop", LOOPS)
def test_a_client_certificate_is_shown_and_recognised(site: Site, new_loop: NewLoop) -> None:
    server = tls.server_context(site.listen("gateway.example", client_ca_file=site.ca_file))
    cert, key = site.issue("crm.example", file="client")
    client = tls.client_context(ClientTls(ca_file=site.ca_file, cert_file=cert, key_file=key))
    assert run(meet(server, client), new_loop).answer.startswith(b"True ")


@pytest.mark.parametrize("new_loop", LOOPS)
def test_a_client_without_a_certificate_gets_through_the_handshake_to_be_told_in_words(
    site: Site, new_loop: NewLoop
) -> None:
    server = tls.server_context(site.listen("gateway.example", client_ca_file=site.ca_file))
    met = run(meet(server, tls.client_context(ClientTls(ca_file=site.ca_file))), new_loop)
    assert met.answer.startswith(b"False ")


@pytest.mark.parametrize("new_loop", LOOPS)
def test_a_client_certificate_of_an_unknown_authority_fails_the_handshake(
    site: Site, stranger: Site, new_loop: NewLoop
) -> None:
    server = tls.server_context(site.listen("gateway.example", client_ca_file=site.ca_file))
    cert, key = stranger.issue("crm.example", file="client")
    client = tls.client_context(ClientTls(ca_file=site.ca_file, cert_file=cert, key_file=key))
    assert run(meet(server, client), new_loop).reason == "reset"
    met = run(meet_strict(server, client), new_loop)
    assert met.reason == "tls"
    assert "does not know the authority" in met.words


@pytest.mark.parametrize("new_loop", LOOPS)
def test_tls_towards_a_plain_port_is_understood(new_loop: NewLoop) -> None:
    async def plain_http() -> Meeting:
        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read(1)
            writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
            await writer.drain()
            writer.close()

        listener = await asyncio.start_server(answer, "127.0.0.1", 0)
        host, port = listener.sockets[0].getsockname()
        try:
            await asyncio.open_connection(host, port, ssl=tls.client_context(ClientTls()), server_hostname="x.example")
        except OSError as exc:
            return Meeting(exc)
        finally:
            listener.close()
        raise AssertionError("a plain port completed a handshake")

    met = run(plain_http(), new_loop)
    assert met.reason == "tls"
    assert "does not speak TLS on this port" in met.words


@pytest.mark.parametrize("new_loop", LOOPS)
def test_a_renewed_certificate_is_served_after_a_reload(site: Site, new_loop: NewLoop) -> None:
    listen = site.listen("old.example")
    server = tls.server_context(listen)
    client = tls.client_context(ClientTls(ca_file=site.ca_file))
    assert "not for new.example" in run(meet(server, client, "new.example"), new_loop).words
    site.issue("new.example")
    tls.reload(server, listen)
    assert run(meet(server, client, "new.example"), new_loop).answer
    assert "not for 127.0.0.1" in run(meet(server, client, "127.0.0.1"), new_loop).words  # a handshake without SNI
    site.issue("newest.example")
    tls.reload(server, listen)
    assert run(meet(server, client, "newest.example"), new_loop).answer


@pytest.mark.parametrize("new_loop", LOOPS)
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_an_authority_that_is_taken_back_admits_no_client_after_a_reload(
    site: Site, stranger: Site, new_loop: NewLoop, version: ssl.TLSVersion
) -> None:
    authorities = site.folder / "clients.pem"
    authorities.write_bytes(site.ca.cert_pem.bytes() + stranger.ca.cert_pem.bytes())
    listen = site.listen("gateway.example", client_ca_file=authorities)
    server = tls.server_context(listen)
    cert, key = stranger.issue("crm.example", file="client")
    client = tls.client_context(ClientTls(ca_file=site.ca_file, cert_file=cert, key_file=key))
    client.maximum_version = version
    assert run(meet(server, client), new_loop).answer.startswith(b"True ")
    authorities.write_bytes(site.ca.cert_pem.bytes())
    tls.reload(server, listen)
    assert run(meet(server, client), new_loop).reason == "reset"


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_session_cannot_be_resumed_past_the_check_of_its_client_certificate(
    site: Site, version: ssl.TLSVersion
) -> None:
    """Over memory, for asyncio gives no session out: the second handshake offers the first one's session."""
    server = tls.server_context(site.listen("gateway.example", client_ca_file=site.ca_file))
    cert, key = site.issue("crm.example", file="client")
    client = tls.client_context(ClientTls(ca_file=site.ca_file, cert_file=cert, key_file=key))
    client.maximum_version = version
    first = handshake(server, client, None)
    assert not handshake(server, client, first.session).session_reused


def handshake(server: ssl.SSLContext, client: ssl.SSLContext, session: ssl.SSLSession | None) -> ssl.SSLObject:
    """The client's end of a finished handshake, after a byte each way (TLS 1.3 sends tickets with the data)."""
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    here = client.wrap_bio(down, up, server_hostname="gateway.example", session=session)
    there = server.wrap_bio(up, down, server_side=True)
    waiting = [here, there]
    while waiting:
        for end in list(waiting):
            try:
                end.do_handshake()
                waiting.remove(end)
            except ssl.SSLWantReadError:
                pass
    here.write(b"?")
    assert there.read(1) == b"?"
    there.write(b"!")
    assert here.read(1) == b"!"
    return here


@pytest.mark.parametrize("new_loop", LOOPS)
def test_a_reload_of_faulty_files_changes_nothing(site: Site, stranger: Site, new_loop: NewLoop) -> None:
    listen = site.listen("gateway.example")
    server = tls.server_context(listen)
    stranger.issue("gateway.example")
    listen.key_file.write_bytes((stranger.folder / "server.key").read_bytes())
    with pytest.raises(ConfigError, match="is not the key of the certificate"):
        tls.reload(server, listen)
    assert run(meet(server, tls.client_context(ClientTls(ca_file=site.ca_file))), new_loop).answer


def _missing(file: Path) -> None:
    file.unlink()


def _folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


def _empty(file: Path) -> None:
    file.write_bytes(b"")


def _der(file: Path) -> None:
    file.write_bytes(b"\x30\x82\x01\x02\xff\xfe")


def _broken(file: Path) -> None:
    lines = file.read_text().splitlines()
    file.write_text("\n".join([lines[0], "AAAA", lines[-1]]))


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (_missing, "does not exist"),
        (_folder, "cannot be read"),
        (_empty, "PEM form"),
        (_der, "PEM form"),
        (_broken, "cannot be read"),
    ],
)
@pytest.mark.parametrize("field", ["cert_file", "key_file", "client_ca_file"])
def test_a_faulty_file_is_named_with_what_was_expected(
    site: Site, field: str, spoil: Callable[[Path], None], words: str
) -> None:
    authority = site.folder / "clients.pem"
    authority.write_bytes(site.ca.cert_pem.bytes())
    listen = site.listen("gateway.example", client_ca_file=authority)
    file: Path = getattr(listen, field)
    spoil(file)
    with pytest.raises(ConfigError) as caught:
        tls.server_context(listen)
    (fault,) = caught.value.faults
    assert str(file) in fault.message
    assert words in fault.message
    assert fault.path.startswith("listen.tls.")


def test_the_faults_of_a_clients_files_carry_the_path_of_their_section(site: Site) -> None:
    with pytest.raises(ConfigError) as caught:
        tls.client_context(ClientTls(ca_file=site.folder / "none.pem"), "routes.0.tls")
    assert caught.value.faults[0].path == "routes.0.tls.ca_file"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_is_named(site: Site) -> None:
    listen = site.listen("gateway.example")
    listen.key_file.chmod(0)
    with pytest.raises(ConfigError, match="may not be read by this user"):
        tls.server_context(listen)


def test_a_key_with_a_passphrase_is_refused_and_never_asked_for(site: Site) -> None:
    listen = site.listen("gateway.example")
    key = load_pem_private_key(listen.key_file.read_bytes(), None)
    for form in (PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL):
        listen.key_file.write_bytes(key.private_bytes(Encoding.PEM, form, BestAvailableEncryption(b"secret")))
        with pytest.raises(ConfigError, match="passphrase"):
            tls.server_context(listen)


def test_a_key_may_lie_in_the_certificates_file(site: Site) -> None:
    cert, key = site.issue("crm.example", file="client")
    cert.write_bytes(key.read_bytes() + cert.read_bytes())
    tls.client_context(ClientTls(ca_file=site.ca_file, cert_file=cert, key_file=cert))


def aiohttp_wraps(inner: OSError) -> Exception:
    """As aiohttp's connector raises it: an OSError that has the cause's errno, from the cause."""
    try:
        try:
            raise inner
        except OSError as exc:
            key = aiohttp.client_reqrep.ConnectionKey("h", 443, True, True, None, None, None)
            raise aiohttp.ClientConnectorError(key, exc) from exc
    except aiohttp.ClientConnectorError as wrapped:
        return wrapped


MANY = (
    "Multiple exceptions: [Errno 111] Connect call failed ('::1', 9, 0, 0), [Errno {}] Connect call failed ('::2', 9)"
)


@pytest.mark.parametrize(
    ("error", "reason", "proxy_error", "words"),
    [
        (ConnectionRefusedError(errno.ECONNREFUSED, "x"), "connect", "connection_refused", "nothing listens"),
        (OSError(MANY.format(111)), "connect", "connection_refused", "nothing listens"),
        (OSError(MANY.format(101)), "connect", "connection_refused", "no route"),
        (OSError(MANY.format(101).replace("111", "113")), "connect", "destination_ip_unroutable", "no route"),
        (socket.gaierror(socket.EAI_NONAME, "x"), "connect", "dns_error", "not known"),
        (socket.gaierror(socket.EAI_AGAIN, "x"), "connect", "dns_error", "name server does not answer"),
        (OSError(errno.EHOSTUNREACH, "x"), "connect", "destination_ip_unroutable", "no route"),
        (OSError(errno.ENETUNREACH, "x"), "connect", "destination_ip_unroutable", "no route"),
        (OSError(errno.EMFILE, "x"), "connect", "destination_unavailable", "ulimit"),
        (OSError(errno.EINVAL, "x"), "connect", "destination_unavailable", os.strerror(errno.EINVAL)),
        (OSError("\xff\xfe"), "connect", "destination_unavailable", "the connection failed"),
        (TimeoutError(), "timeout", "connection_timeout", "no answer came in time"),
        (TimeoutError(errno.ETIMEDOUT, "x"), "timeout", "connection_timeout", "no answer came in time"),
        (
            ConnectionAbortedError("SSL handshake is taking longer"),
            "timeout",
            "connection_timeout",
            "handshake was not finished in time",
        ),
        (ConnectionResetError(errno.ECONNRESET, "x"), "reset", "connection_terminated", "broke the connection off"),
        (BrokenPipeError(errno.EPIPE, "x"), "reset", "connection_terminated", "broke the connection off"),
        (asyncio.IncompleteReadError(b"secret", 9), "reset", "connection_terminated", "broke the connection off"),
        (ssl.SSLEOFError(8, "x"), "reset", "connection_terminated", "without ending TLS"),
        (ssl.SSLError(1, "x"), "tls", "tls_protocol_error", "TLS failed (no reason given)"),
        (ValueError("secret"), "protocol", "destination_unavailable", "the exchange failed"),
    ],
)
def test_every_failure_has_a_reason_and_words_also_inside_a_librarys_error(
    error: Exception, reason: str, proxy_error: str, words: str
) -> None:
    wrapped = [aiohttp_wraps(error)] if isinstance(error, OSError) else []
    for found in (error, *wrapped):
        assert (tls.reason(found), tls.proxy_error(found)) == (reason, proxy_error)
        assert words in tls.explain(found)
        assert "secret" not in tls.explain(found)


def test_an_error_that_causes_itself_is_still_explained() -> None:
    first, second = ValueError(), ValueError()
    first.__cause__, second.__cause__ = second, first
    assert tls.explain(first) == "the exchange failed"


@pytest.mark.parametrize("new_loop", LOOPS)
def test_a_refused_connection_is_explained_as_the_loops_raise_it(new_loop: NewLoop) -> None:
    async def knock(host: str) -> Meeting:
        with socket.socket() as bound:  # bound and not listening: nobody else gets the port meanwhile
            bound.bind(("127.0.0.1", 0))
            try:
                await asyncio.open_connection(host, bound.getsockname()[1])
            except OSError as exc:
                return Meeting(exc)
        raise AssertionError("somebody listens on a port that is bound here")

    for host in ("127.0.0.1", "localhost"):
        met = run(knock(host), new_loop)
        assert met.reason == "connect"
        assert "nothing listens" in met.words
