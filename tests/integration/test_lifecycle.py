"""The end of a gateway at work, and secrets that change under it: nothing begun is lost, nothing lasts (B13)."""

import asyncio
import os
import signal
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from proxy.sandbox import Sandbox, SandboxSettings
from proxy.sandbox.faults import Fault
from tests.support.gateway import Gateway, running_gateway, until
from tests.support.proxied import is_problem
from tests.support.rawclient import ask, client, dial
from tests.support.rawserver import OK, RawServer, Wire, answering, raw_server
from tests.support.relay import GET

STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


class Site:
    """A gateway that signs every request for a raw upstream with a sandbox's token."""

    def __init__(self, sandbox: Sandbox, raw: RawServer, gateway: Gateway) -> None:
        self.sandbox = sandbox
        self.raw = raw
        self.gateway = gateway
        self.url = gateway.url

    def terminate(self) -> None:
        os.kill(self.gateway.pid, signal.SIGTERM)

    async def ended(self, seconds: float = 10.0) -> float:
        """Wait until the process is gone and its log whole; the seconds it took. A second SIGTERM changes nothing."""
        begun = asyncio.get_running_loop().time()
        await self.gateway.stop(seconds)
        return asyncio.get_running_loop().time() - begun

    def complaints(self) -> list[dict[str, Any]]:
        """Log records that are worse than information."""
        return [record for record in self.gateway.records if record["level"] in ("warning", "error", "critical")]


async def knock(url: str) -> Wire | None:
    """A connection; None when nobody listens any more (asyncio alone would leave that socket to the collector)."""
    host, port = url.removeprefix("http://").split(":")
    loop = asyncio.get_running_loop()
    sock = socket.socket()
    sock.setblocking(False)
    try:
        await loop.sock_connect(sock, (host, int(port)))
        _, wire = await loop.create_connection(Wire, sock=sock)
    except OSError:
        sock.close()
        return None
    return wire


OpenSite = Callable[..., AbstractAsyncContextManager[Site]]


@pytest.fixture
def site(tmp_path: Path) -> OpenSite:
    @asynccontextmanager
    async def open_site(settings: SandboxSettings | None = None, **config: Any) -> AsyncIterator[Site]:
        async with Sandbox(settings) as sandbox, raw_server() as raw:
            opentv = {
                "system": "keycloak",
                "token_url": sandbox.token_url,
                "client_id": sandbox.client_id,
                "username": sandbox.username,
                "password": sandbox.password,
                **config.pop("identity", {}),
            }
            whole = {
                "identities": {"opentv": {name: value for name, value in opentv.items() if value is not None}},
                "routes": [{"path": "/", "upstream": raw.url, "identity": "opentv"}],
                **config,
            }
            async with running_gateway(whole, tmp_path) as gateway:
                yield Site(sandbox, raw, gateway)

    return open_site


# -- SIGTERM --------------------------------------------------------------------------------------------------------


async def test_everything_begun_is_finished_and_the_session_logged_out(site: OpenSite) -> None:
    go_on = asyncio.Event()

    async def behave(wire: Wire) -> None:
        message = await wire.request()
        if message.target == b"/stream":
            wire.send(STREAM + b"1\r\na\r\n")
            await go_on.wait()
            wire.send(b"1\r\nb\r\n0\r\n\r\n")
        elif message.target == b"/slow":
            await go_on.wait()
            wire.send(OK)
        else:
            wire.send(OK)

    async with site() as here:
        here.raw.begin(behave)
        idle, stream, slow, upload = [await dial(here.url) for _ in range(4)]
        idle.send(GET)
        assert (await idle.response()).status == 200
        stream.send(b"GET /stream HTTP/1.1\r\nHost: gw\r\n\r\n")
        await stream.read_until(b"1\r\na\r\n")
        slow.send(b"GET /slow HTTP/1.1\r\nHost: gw\r\n\r\n")
        upload.send(b"PUT /up HTTP/1.1\r\nHost: gw\r\nContent-Length: 8\r\n\r\nhalf")
        await until(lambda: b"half" in here.raw.received and b"/slow" in here.raw.received, 3.0, "all of it upstream")

        here.terminate()
        await until(idle.ended.is_set, 3.0, "the idle connection's end")
        assert await knock(here.url) is None
        assert here.gateway.exit_code is None
        upload.send(b"half")
        answered = await upload.response()
        assert (answered.status, answered.values(b"connection")) == (200, [b"close"])
        go_on.set()
        answered = await slow.response()
        assert (answered.status, answered.body, answered.values(b"connection")) == (200, b"ok", [b"close"])
        assert await stream.read_until(b"0\r\n\r\n") == b"1\r\nb\r\n0\r\n\r\n"
        for wire in (idle, stream, slow, upload):
            wire.close()
        assert await here.ended() < 3.0
        assert here.gateway.exit_code == 0
        assert here.sandbox.state.sessions == {}
        assert here.complaints() == []


async def test_readiness_goes_off_while_what_is_under_way_is_finished(site: OpenSite) -> None:
    go_on = asyncio.Event()

    async def behave(wire: Wire) -> None:
        await wire.request()
        await go_on.wait()
        wire.send(OK)

    async with site(shutdown={"drain": "5s"}) as here, client(here.url) as wire, aiohttp.ClientSession() as http:
        here.raw.begin(behave)
        wire.send(GET)
        await until(lambda: bool(here.raw.received), 3.0, "the request upstream")
        here.terminate()

        async def probe(path: str) -> int:
            async with http.get(f"{here.gateway.admin_url}{path}") as response:
                return response.status

        async def off() -> bool:
            return await probe("/readyz") == 503

        await until(off, 3.0, "readiness to go off")
        assert await probe("/livez") == 200
        go_on.set()
        assert (await wire.response()).status == 200


async def test_what_is_not_finished_in_time_is_broken_off_and_not_made_to_look_whole(site: OpenSite) -> None:
    async def behave(wire: Wire) -> None:
        message = await wire.request()
        if message.target == b"/stream":
            wire.send(STREAM + b"1\r\na\r\n")
        await wire.ended.wait()

    async with site(shutdown={"drain": "700ms"}) as here:
        here.raw.begin(behave)
        stream, silent, half = [await dial(here.url) for _ in range(3)]
        stream.send(b"GET /stream HTTP/1.1\r\nHost: gw\r\n\r\n")
        await stream.read_until(b"1\r\na\r\n")
        silent.send(GET)
        half.send(b"GET / HTTP/1.1\r\nHo")
        await until(lambda: here.raw.received.count(b"GET /") == 2, 3.0, "both requests upstream")
        here.terminate()
        assert await here.ended() < 3.0
        assert here.gateway.exit_code == 0
        assert await stream.rest() == b""
        for wire in (stream, half):
            assert isinstance(wire.broken, ConnectionResetError)
        is_problem(answer := await silent.response(), "timeout")
        assert answer.status == 504
        assert b"shutting down" in answer.body
        for wire in (stream, silent, half):
            wire.close()
        assert here.sandbox.state.sessions == {}
        assert [record for record in here.complaints() if "exception" in record] == []
        # What was broken off is counted and logged all the same; it was not the clients who left.
        statuses = sorted(record["status"] for record in here.gateway.records if "status" in record)
        assert [status for status in statuses if status != 204] == [200, 504]


async def test_a_tunnel_has_the_drain_and_does_not_outlive_it(site: OpenSite) -> None:
    async def behave(wire: Wire) -> None:
        await wire.head()
        wire.send(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
        await wire.read_until(b"still there?")
        wire.send(b"still here")
        await wire.rest()

    async def gone() -> bool:
        if (other := await knock(here.url)) is not None:
            other.close()
        return other is None

    async with site(shutdown={"drain": "3s"}) as here, client(here.url) as wire:
        here.raw.begin(behave)
        wire.send(b"GET / HTTP/1.1\r\nHost: gw\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
        assert (await wire.response()).status == 101
        here.terminate()
        await until(gone, 2.0, "the listener's end")
        wire.send(b"still there?")
        assert await wire.read_until(b"still here") == b"still here"
        assert await here.ended() < 5.0
        assert here.gateway.exit_code == 0


async def test_a_request_that_waits_for_its_token_is_served_before_the_end(site: OpenSite) -> None:
    refused = b"HTTP/1.1 401 No\r\nContent-Length: 0\r\n\r\n"
    async with site() as here, client(here.url) as wire:
        here.raw.begin(answering(OK))
        assert (await ask(here.url, GET)).status == 200
        here.raw.begin(answering(refused, OK))
        here.sandbox.state.add_fault("token", Fault("late", delay_ms=800))
        wire.send(GET)
        await until(lambda: here.sandbox.state.counters["refreshes"] == 1, 3.0, "the refresh to be under way")
        here.terminate()
        assert (await wire.response()).body == b"ok"
        wire.close()
        await here.ended()
        # Logged out with the rotated token: the refresh was finished, not given up.
        assert here.sandbox.state.sessions == {}
        assert here.sandbox.state.counters["logouts"] == 1
        assert here.complaints() == []


async def test_a_refresh_nobody_waits_for_is_finished_too(site: OpenSite) -> None:
    async with site() as here, aiohttp.ClientSession() as http:
        assert (await ask(here.url, GET)).status == 200
        here.sandbox.state.add_fault("token", Fault("late", delay_ms=800))
        asking = asyncio.create_task(http.post(f"{here.gateway.admin_url}/identities/opentv/refresh"))
        await until(lambda: here.sandbox.state.counters["refreshes"] == 1, 3.0, "the refresh to be under way")
        here.terminate()
        await here.ended()
        assert here.gateway.exit_code == 0
        assert here.sandbox.state.sessions == {}
        with suppress(aiohttp.ClientError):  # the admin port may have gone first
            (await asking).release()


async def test_an_end_during_traffic_fails_no_request_that_was_let_in(site: OpenSite) -> None:
    async with site() as here:
        here.raw.begin(answering(OK))
        answered = broken = 0
        stopped = asyncio.Event()

        async def customer() -> None:
            nonlocal answered, broken
            while not stopped.is_set():
                wire = await knock(here.url)
                if wire is None:
                    return
                try:
                    for _ in range(20):
                        wire.send(GET)
                        found = await wire.response()
                        assert found.status == 200
                        answered += 1
                        if found.values(b"connection") == [b"close"]:
                            break
                except ConnectionError:
                    # Between two requests an idle connection may end; in the middle of an answer none may.
                    broken += bool(wire.unread)
                finally:
                    wire.close()

        customers = [asyncio.create_task(customer()) for _ in range(20)]
        await until(lambda: answered > 200, 10.0, "traffic")
        here.terminate()
        await here.ended()
        stopped.set()
        await asyncio.gather(*customers)
        assert here.gateway.exit_code == 0
        assert broken == 0
        assert here.complaints() == []


# -- secrets that change --------------------------------------------------------------------------------------------


def with_key(key: str) -> bytes:
    return b"GET / HTTP/1.1\r\nHost: gw\r\nX-Api-Key: %b\r\n\r\n" % key.encode()


async def test_client_keys_that_change_count_within_five_seconds_even_after_a_fault(
    site: OpenSite, tmp_path: Path
) -> None:
    keys = tmp_path / "keys"
    keys.write_text("first-key-of-some-length\n")
    async with site(clients={"api_keys": {"header": "X-Api-Key", "keys_file": str(keys)}}) as here:
        here.raw.begin(answering(OK))

        async def admitted(key: str) -> bool:
            return (await ask(here.url, with_key(key))).status == 200

        assert await admitted("first-key-of-some-length")
        keys.write_text("")
        await until(lambda: bool(here.complaints()), 5.0, "a word about the empty file")
        assert not await admitted("first-key-of-some-length")
        keys.unlink()
        keys.write_text("second-key-of-some-length\n")
        await until(lambda: admitted("second-key-of-some-length"), 5.0, "the new key to be admitted")
        assert not await admitted("first-key-of-some-length")
        assert "key-of-some-length" not in here.gateway.words()


async def test_a_password_that_is_put_right_ends_the_suspension_within_five_seconds(
    site: OpenSite, tmp_path: Path
) -> None:
    password = tmp_path / "password"
    password.write_text("wrong")
    async with site(identity={"password": None, "password_file": str(password)}) as here:
        here.raw.begin(answering(OK))
        refused = await ask(here.url, GET)
        assert refused.status == 503
        password.write_text(here.sandbox.password + "\n")

        async def served() -> bool:
            return (await ask(here.url, GET)).status == 200

        await until(served, 6.0, "the new password to be used")
