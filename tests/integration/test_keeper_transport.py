"""The exchange with a token endpoint, over real sockets, byte for byte on the other side."""

import asyncio
import contextlib
import gzip
import ssl
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
import trustme

from proxy import tls
from proxy.config import ClientTls
from proxy.errors import TokenError
from proxy.tokens.systems.base import TokenRequest
from proxy.tokens.transport import HttpTransport

Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
HTML = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"


class Endpoint:
    """A server that does what its script says. heads: the request heads it got; bodies likewise."""

    def __init__(self, script: Script | bytes) -> None:
        self._script = script
        self.heads: list[bytes] = []
        self.bodies: list[bytes] = []
        self.url = ""
        self.tasks: set[asyncio.Task[None]] = set()

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.tasks.add(asyncio.ensure_future(self.serve(reader, writer)))

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._serve(reader, writer)
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError, ssl.SSLError):
                await writer.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            self.heads.append(head)
            length = next(int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if b"content-length" in line)
            self.bodies.append(await reader.readexactly(length))
            if isinstance(self._script, bytes):
                writer.write(self._script)
                await writer.drain()
            else:
                await self._script(reader, writer)


@contextlib.asynccontextmanager
async def endpoint(script: Script | bytes, context: ssl.SSLContext | None = None) -> AsyncIterator[Endpoint]:
    made = Endpoint(script)
    server = await asyncio.start_server(made.accept, "127.0.0.1", 0, ssl=context)
    scheme = "http" if context is None else "https"
    made.url = f"{scheme}://127.0.0.1:{server.sockets[0].getsockname()[1]}/realms/a%2Fb/token?x=%41"
    async with server:
        yield made
    for task in made.tasks:
        task.cancel()
    await asyncio.gather(*made.tasks, return_exceptions=True)


@contextlib.asynccontextmanager
async def transport(timeout: float = 5.0, **how: object) -> AsyncIterator[HttpTransport]:  # noqa: ASYNC109 - its option
    made = HttpTransport(timeout, explain=tls.explain, **how)  # type: ignore[arg-type]  # any option
    try:
        yield made
    finally:
        await made.close()


def request(url: str) -> TokenRequest:
    headers = (("Content-Type", "application/x-www-form-urlencoded"), ("Accept", "application/json"))
    return TokenRequest("POST", url, headers, b"grant_type=password&password=hunter2", ("hunter2",))


async def failure(script: Script | bytes, seconds: float = 5.0) -> TokenError:
    async with endpoint(script) as there, transport(seconds) as here:
        with pytest.raises(TokenError) as caught:
            await here.exchange(request(there.url), "id-1")
    assert "hunter2" not in str(caught.value)
    return caught.value


async def test_the_request_goes_out_as_it_was_built() -> None:
    async with endpoint(HTML) as there, transport() as here:
        reply = await here.exchange(request(there.url), "id-1")
    assert (reply.status, reply.body, reply.headers["content-length"]) == (200, b"{}", "2")
    line, *fields = there.heads[0].decode().strip().split("\r\n")
    assert line == "POST /realms/a%2Fb/token?x=%41 HTTP/1.1"
    names = {field.split(":")[0].lower() for field in fields}
    assert "x-correlation-id: id-1" in fields
    assert "Accept-Encoding: identity" in fields
    assert "cookie" not in names
    assert there.bodies == [b"grant_type=password&password=hunter2"]


async def test_cookies_are_not_kept_and_connections_neither() -> None:
    answer = b"HTTP/1.1 200 OK\r\nSet-Cookie: a=b; Path=/\r\nContent-Length: 2\r\n\r\n{}"
    async with endpoint(answer) as there, transport() as here:
        await here.exchange(request(there.url), "id-1")
        await here.exchange(request(there.url), "id-2")
    assert len(there.heads) == 2
    assert b"ookie" not in there.heads[1]


async def test_a_redirect_is_not_followed() -> None:
    answer = b"HTTP/1.1 307 Elsewhere\r\nLocation: /other\r\nContent-Length: 0\r\n\r\n"
    async with endpoint(answer) as there, transport() as here:
        assert (await here.exchange(request(there.url), "id-1")).status == 307
    assert len(there.heads) == 1


async def endless(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 20971520\r\n\r\n")
    for _block in range(320):
        writer.write(b" " * 65536)
        await writer.drain()


async def test_a_reply_beyond_1_mib_is_refused() -> None:
    error = await failure(endless)
    assert (error.result, error.lost) == ("malformed", True)
    assert "1 MiB" in error.words


def compressed(body: bytes, coding: bytes) -> bytes:
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: " + coding + b"\r\nContent-Length: %d\r\n\r\n" % len(body)
    return head + body


async def test_a_compressed_reply_nobody_asked_for_is_still_read() -> None:
    for coding, body in ((b"gzip", gzip.compress(b'{"a": 1}')), (b"deflate", zlib.compress(b'{"a": 1}'))):
        async with endpoint(compressed(body, coding)) as there, transport() as here:
            assert (await here.exchange(request(there.url), "id-1")).body == b'{"a": 1}'


@pytest.mark.parametrize(
    ("coding", "body"),
    [(b"gzip", gzip.compress(b" " * 20_000_000)), (b"gzip", b"not gzip"), (b"br", b"x"), (b"zstd", b"x")],
    ids=["bomb", "broken", "brotli", "zstd"],
)
async def test_a_bomb_and_an_unknown_coding_are_refused(coding: bytes, body: bytes) -> None:
    assert (await failure(compressed(body, coding))).result == "malformed"


@pytest.mark.parametrize(
    ("answer", "result"),
    [
        (b"", "network"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{", "network"),
        (b"HTTP/1.1 200 OK\r\nContent-Len", "network"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "malformed"),
        (b"HTTP/1.1 200 OK\r\nA: " + b"x" * 100_000 + b"\r\n\r\n", "malformed"),
    ],
    ids=["closed", "half a body", "half a head", "not HTTP", "endless head"],
)
async def test_an_answer_that_broke_off_is_a_lost_one(answer: bytes, result: str) -> None:
    error = await failure(answer)
    assert (error.result, error.lost) == (result, True)


async def silent(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    await reader.read()


async def dripping(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n")
    while True:
        writer.write(b" ")
        await writer.drain()
        await asyncio.sleep(0.05)


@pytest.mark.parametrize("script", [silent, dripping])
async def test_an_answer_that_does_not_come_in_time_is_a_lost_one(script: Script) -> None:
    error = await failure(script, seconds=0.3)
    assert (error.result, error.lost) == ("timeout", True)


async def test_a_connection_that_never_was_spent_nothing() -> None:
    async with endpoint(HTML) as there:
        url = there.url
    async with transport() as here:
        with pytest.raises(TokenError) as caught:
            await here.exchange(request(url), "id-1")
        assert (caught.value.result, caught.value.lost) == ("network", False)
        assert "refused" in caught.value.words
        with pytest.raises(TokenError) as caught:
            await here.exchange(request("http://no-such-name.invalid/token"), "id-1")
        assert (caught.value.result, caught.value.lost) == ("network", False)


async def test_a_certificate_from_a_private_authority_needs_its_file_and_the_right_name() -> None:
    authority = trustme.CA()
    served = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("idp.example.com").configure_cert(served)
    trusting = tls.client_context(ClientTls())
    trusting_it = tls.client_context(ClientTls())
    authority.configure_trust(trusting_it)
    async with endpoint(HTML, served) as there:
        async with transport(tls=trusting_it, server_name="idp.example.com") as here:
            assert (await here.exchange(request(there.url), "id-1")).status == 200
        for context, name, word in (
            (trusting, "idp.example.com", "ca_file"),
            (trusting_it, None, "server_name"),
            (trusting_it, "other.example.com", "server_name"),
        ):
            async with transport(tls=context, server_name=name) as here:
                with pytest.raises(TokenError) as caught:
                    await here.exchange(request(there.url), "id-1")
            assert (caught.value.result, caught.value.lost) == ("network", False)
            assert word in caught.value.words
    assert len(there.heads) == 1


async def test_an_https_url_of_a_plain_port_is_said_in_words() -> None:
    async def bad_request(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_server(bad_request, "127.0.0.1", 0) as server:
        url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/token"
        async with transport(tls=tls.client_context(ClientTls())) as here:
            with pytest.raises(TokenError, match="http://") as caught:
                await here.exchange(request(url), "id-1")
    assert caught.value.lost is False


async def test_tls_files_are_read_anew_when_they_may_have_changed() -> None:
    authority = trustme.CA()
    served = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(served)
    later = tls.client_context(ClientTls())
    authority.configure_trust(later)
    async with (
        endpoint(HTML, served) as there,
        transport(tls=tls.client_context(ClientTls()), read_tls=lambda: later) as here,
    ):
        with pytest.raises(TokenError):
            await here.exchange(request(there.url), "id-1")
        here.reread_tls()
        assert (await here.exchange(request(there.url), "id-1")).status == 200
