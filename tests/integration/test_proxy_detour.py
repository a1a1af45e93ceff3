"""An HTTP proxy on the way: to upstreams and to token endpoints, with TLS and without, asked as a person configured."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import trustme

from proxy.sandbox import Sandbox
from tests.support.gateway import Gateway, running_gateway, until
from tests.support.httpproxy import HttpProxy, http_proxy
from tests.support.proxied import identity
from tests.support.rawclient import ask
from tests.support.rawserver import Message, RawServer, answering, raw_server
from tests.support.relay import problem

pytestmark = pytest.mark.asyncio(loop_scope="module")

PASSWORD = "p-of-the-proxy-93ab71cc05"


class Detour:
    """way: the HTTP proxy. plain, secure: upstreams without and with TLS. word: the file of the proxy's password."""

    def __init__(self, way: HttpProxy, plain: RawServer, secure: RawServer, word: Path) -> None:
        self.way, self.plain, self.secure, self.word = way, plain, secure, word
        self.gateway: Gateway

    def begin(self) -> None:
        """A new test."""
        self.plain.begin()
        self.secure.begin()
        self.way.asked.clear()
        self.way.heads.clear()
        self.way.answer = self.way.wants = None

    async def errors(self) -> float:
        """``upstream_errors_total`` of the route ``/secure``, for want of a connection."""
        request = b"GET /metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
        lines = (await ask(self.gateway.admin_url, request)).body.decode().splitlines()
        mark = 'opentv_proxy_upstream_errors_total{reason="connect",route="/secure"} '
        return float(next(line.removeprefix(mark) for line in lines if line.startswith(mark)))

    async def ask(self, path: str, *lines: str) -> Message:
        head = "".join(f"{line}\r\n" for line in (f"GET {path} HTTP/1.1", "Host: gw", *lines))
        return await ask(self.gateway.url, head.encode() + b"\r\n")


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=[True, False], ids=["uvloop", "asyncio"])
async def shared(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Detour]:
    folder, ca = tmp_path_factory.mktemp("gateway"), trustme.CA()
    ca.cert_pem.write_to_path(str(folder / "ca.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("localhost").configure_cert(context)
    (folder / "word").write_text(PASSWORD)
    secure = RawServer()
    secure.begin()
    listener = await asyncio.get_running_loop().create_server(secure._connected, "127.0.0.1", 0, ssl=context)
    port = listener.sockets[0].getsockname()[1]
    async with http_proxy() as way, raw_server() as plain:
        proxy = {"url": way.url, "username": "gate", "password_file": str(folder / "word")}
        tls = {"ca_file": str(folder / "ca.pem"), "server_name": "localhost"}
        https = f"https://127.0.0.1:{port}"
        routes: list[dict[str, Any]] = [
            {"path": "/plain", "upstream": f"{plain.url}/base", "proxy": proxy, "strip_prefix": True},
            {"path": "/secure", "upstream": https, "proxy": proxy, "tls": tls},
            {"path": "/stranger", "upstream": https, "proxy": proxy},
            {"path": "/gone", "upstream": https, "proxy": "http://127.0.0.1:1", "tls": tls},
            {"path": "/gone-plain", "upstream": plain.url, "proxy": "http://127.0.0.1:1"},
            {"path": "/direct", "upstream": plain.url, "proxy": "none"},
        ]
        config = {"routes": [{**route, "identity": None} for route in routes], "uvloop": request.param}
        there = Detour(way, plain, secure, folder / "word")
        async with running_gateway(config, folder) as there.gateway:
            yield there
    listener.close()
    await secure.close()


@pytest.fixture
def here(shared: Detour) -> Detour:
    shared.begin()
    return shared


async def test_a_plain_upstream_is_asked_for_through_the_proxy_by_its_whole_url(here: Detour) -> None:
    here.way.wants = f"gate:{PASSWORD}"
    found = await here.ask("/plain/a%2Fb?c", "Proxy-Authorization: Basic theirs", "Proxy-Connection: keep-alive")
    assert found.status == 200
    assert here.way.asked == [f"GET {here.plain.url}/base/a%2Fb?c HTTP/1.1"]
    assert here.way.heads[0].count(b"Proxy-") == 1
    assert (await here.plain.request()).target == b"/base/a%2Fb"


async def test_a_tls_upstream_is_reached_through_a_tunnel_that_sees_nothing(here: Detour) -> None:
    here.way.wants = f"gate:{PASSWORD}"
    for _ in range(3):
        assert (await here.ask("/secure/x", "Authorization: Bearer theirs")).status == 200
    place = here.way.asked[0].split(" ")[1]
    assert here.way.asked == [f"CONNECT {place} HTTP/1.1"]  # one tunnel serves all
    assert b"\r\nHost: " + place.encode() in here.way.heads[0]
    assert b"theirs" not in here.way.heads[0]
    got = await here.secure.request(3)
    assert (got.target, got.values(b"proxy-authorization")) == (b"/secure/x", [])


async def test_behind_the_proxy_the_certificate_is_checked_all_the_same(here: Detour) -> None:
    found = await here.ask("/stranger/x")
    assert found.status == 502
    assert "put that authority into ca_file" in problem(found)["detail"]
    assert here.secure.requests == []


REFUSALS = {
    "407": (b"HTTP/1.1 407 No\r\nProxy-Authenticate: Basic realm=x\r\n\r\n", "wants other credentials (407)"),
    "403": (b"HTTP/1.1 403 No\r\nContent-Length: 2\r\n\r\nno", "opens no way to 127.0.0.1:"),
    "503": (b"HTTP/1.0 503 No\r\n\r\n", "it answers 503"),
    "nothing": (b"", "broke off instead"),
    "half a head": (b"HTTP/1.1 200 OK\r\nVia", "broke off instead"),
    "no HTTP": (b"SSH-2.0-OpenSSH\r\n\r\n", "no HTTP that the gateway reads"),
    "a head without end": (b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 20_000, "no HTTP that the gateway reads"),
    "bytes nobody asked for": (b"HTTP/1.1 200 OK\r\n\r\nhello", "no HTTP that the gateway reads"),
    "interim answers, then no": (b"HTTP/1.1 100 Go\r\n\r\nHTTP/1.1 502 No\r\n\r\n", "it answers 502"),
}


@pytest.mark.parametrize("name", REFUSALS)
async def test_a_proxy_that_opens_no_tunnel_is_502_in_words_and_counted(here: Detour, name: str) -> None:
    here.way.answer, words = REFUSALS[name]
    before = await here.errors()
    found = await here.ask("/secure/x")
    assert found.status == 502
    assert words in problem(found)["detail"], problem(found)
    assert here.secure.requests == []
    assert await here.errors() == before + 1


@pytest.mark.parametrize("path", ["/gone/x", "/gone-plain/x"])
async def test_a_proxy_that_is_not_there_is_named(here: Detour, path: str) -> None:
    found = await here.ask(path)
    assert (found.status, found.values(b"proxy-status")) == (502, [b"opentv-proxy; error=connection_refused"])
    assert "the HTTP proxy 127.0.0.1:1" in problem(found)["detail"]


async def test_none_is_a_direct_way(here: Detour) -> None:
    assert (await here.ask("/direct/x")).status == 200
    assert here.way.asked == []


async def test_a_changed_password_is_in_force_without_a_restart(here: Detour) -> None:
    here.way.wants = "gate:another"
    found = await here.ask("/plain/x")
    assert (found.status, found.values(b"proxy-authenticate")) == (407, [])
    here.word.write_text("another")

    async def served() -> bool:
        here.begin()
        here.way.wants = "gate:another"
        return {(await here.ask(path)).status for path in ("/plain/x", "/secure/x")} == {200}

    await until(served, 6.0, "the new password")
    here.word.write_text(PASSWORD)


async def test_nothing_of_the_password_is_in_the_log(here: Detour) -> None:
    """The last test of this file."""
    said = "\n".join([*here.gateway.log, *here.gateway.out])
    assert PASSWORD not in said
    assert "Basic" not in said


async def test_the_environment_names_the_proxy_for_everything_but_this_machine(tmp_path: Path) -> None:
    """A name that only the proxy can reach; the token endpoint is on this machine, and asked directly."""
    async with Sandbox() as sandbox, http_proxy() as way:
        way.answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
        config = {
            "identities": {"opentv": identity(sandbox)},
            "routes": [{"path": "/", "upstream": "http://platform.invalid", "identity": "opentv"}],
        }
        async with running_gateway(config, tmp_path, {"HTTP_PROXY": way.url}) as gateway:
            found = await ask(gateway.url, b"GET /x HTTP/1.1\r\nHost: gw\r\n\r\n")
        assert found.status == 200
        assert way.asked == ["GET http://platform.invalid/x HTTP/1.1"]
        assert b"Authorization: Bearer ey" in way.heads[0]


@pytest.mark.parametrize("secure", [False, True], ids=["http", "https"])
async def test_a_token_endpoint_is_asked_through_the_proxy(tmp_path: Path, secure: bool) -> None:
    ca = trustme.CA()
    ca.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("127.0.0.1").configure_cert(context)
    sandbox = Sandbox()
    await sandbox.start(ssl_context=context if secure else None)
    try:
        async with http_proxy() as way, raw_server(answering(b"HTTP/1.1 204 No\r\n\r\n")) as raw:
            way.wants = f"gate:{PASSWORD}"
            more = {
                "proxy": {"url": way.url, "username": "gate", "password": PASSWORD},
                "tls": {"ca_file": str(tmp_path / "ca.pem")},
            }
            config = {
                "identities": {"opentv": identity(sandbox, **more)},
                "routes": [{"path": "/", "upstream": raw.url, "identity": "opentv"}],
            }
            async with running_gateway(config, tmp_path) as gateway:
                assert (await ask(gateway.url, b"GET / HTTP/1.1\r\nHost: gw\r\n\r\n")).status == 204
            if secure:
                assert {line.split(" ")[0] for line in way.asked} == {"CONNECT"}
                assert b"password" not in b"".join(way.heads)
            else:
                assert way.asked[0] == f"POST {sandbox.token_url} HTTP/1.1"
        assert PASSWORD not in "\n".join(gateway.log)
    finally:
        await sandbox.stop()


TOKEN_REFUSALS = {
    "407": (
        b"HTTP/1.1 407 No\r\nProxy-Authenticate: Basic realm=x\r\nContent-Length: 0\r\n\r\n",
        "wants other credent",
    ),
    "403": (b"HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n", "opens no way to the token endpoint: it answers 403"),
    "gone": (None, "no connection to the HTTP proxy"),
}


@pytest.mark.parametrize("name", TOKEN_REFUSALS)
async def test_a_proxy_that_does_not_lead_to_the_token_endpoint_is_told_in_words(tmp_path: Path, name: str) -> None:
    async with http_proxy() as way:
        way.answer, words = TOKEN_REFUSALS[name]
        opentv = {
            "system": "keycloak",
            "token_url": "https://idp.invalid/token",
            "client_id": "crm",
            "username": "alice",
            "password": "secret-of-alice",
            "proxy": way.url if way.answer is not None else "http://127.0.0.1:1",
        }
        routes = [{"path": "/", "upstream": "http://127.0.0.1:1", "identity": "opentv"}]
        async with running_gateway({"identities": {"opentv": opentv}, "routes": routes}, tmp_path) as gateway:
            await until(lambda: words in "\n".join(gateway.log), 5.0, f"{words!r} in the log")
            found = await ask(gateway.url, b"GET / HTTP/1.1\r\nHost: gw\r\n\r\n")
            assert found.status == 503
            assert words in problem(found)["detail"]
