"""Connections to an upstream: kept, found stale, tried again or not, queued for, refused (A26)."""

import asyncio
import os
import signal
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
import pytest_asyncio

from tests.support.gateway import until
from tests.support.rawclient import ask, client
from tests.support.rawserver import OK, Behaviour, Wire, answering
from tests.support.relay import GET, Relay, closed_port, problem, relay

pytestmark = pytest.mark.asyncio(loop_scope="module")

NARROW = b"GET /narrow HTTP/1.1\r\nHost: gw\r\n\r\n"


@pytest.fixture(scope="module")
def mute() -> Iterator[str]:
    """Where the kernel takes connections, and nobody ever says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"127.0.0.1:{listener.getsockname()[1]}"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def here(tmp_path_factory: pytest.TempPathFactory, mute: str) -> AsyncIterator[Relay]:
    routes: list[dict[str, Any]] = [
        {"path": "/narrow", "max_connections": 2, "timeouts": {"connect": "700ms", "response": "5s", "idle": "5s"}},
        {"path": "/refusing", "upstream": f"http://127.0.0.1:{closed_port()}", "max_connections": 1},
        # RFC 5737: an address for documentation, which nobody has.
        {"path": "/nowhere", "upstream": "http://192.0.2.1:9", "timeouts": {"connect": "300ms"}},
        {"path": "/mute", "upstream": f"https://{mute}", "timeouts": {"connect": "300ms"}},
        {
            "path": "/detour",
            "upstream": "https://up.example",
            "proxy": f"http://{mute}",
            "timeouts": {"connect": "300ms"},
        },
        {"path": "/unnamed", "upstream": "http://nobody.invalid", "timeouts": {"connect": "3s"}},
    ]
    async with relay(tmp_path_factory.mktemp("gateway"), routes) as running:
        yield running


def request(method: bytes, body: bytes = b"", path: bytes = b"/") -> bytes:
    length = b"Content-Length: %d\r\n" % len(body) if body or method not in (b"GET", b"HEAD", b"OPTIONS") else b""
    return b"%b %b HTTP/1.1\r\nHost: gw\r\n%b\r\n%b" % (method, path, length, body)


def leaving_at(*numbers: int, partial: bytes = b"") -> tuple[Behaviour, list[bytes]]:
    """An upstream that answers, but leaves on reading its n-th request; and the methods it read."""
    read: list[bytes] = []

    async def behave(wire: Wire) -> None:
        read.append((await wire.request()).method)
        if len(read) in numbers:
            wire.send(partial)
            wire.close()
        else:
            wire.send(OK.removesuffix(b"ok") if read[-1] == b"HEAD" else OK)

    return behave, read


async def test_a_connection_is_used_again(here: Relay) -> None:
    here.raw.begin(answering(OK))
    for _ in range(3):
        await ask(here.gateway.url, GET)
    assert len(here.raw.wires) == 1
    await here.counted(1, "upstream_connections", route="/", state="idle")
    await here.counted(0, "upstream_connections", route="/", state="active")


@pytest.mark.parametrize("method", [b"GET", b"OPTIONS", b"HEAD"])
async def test_a_safe_request_on_a_connection_that_turns_out_closed_goes_out_again(here: Relay, method: bytes) -> None:
    before = await here.errors("reset")
    behave, read = leaving_at(2)
    here.raw.begin(behave)
    async with client(here.gateway.url) as wire:
        for _ in range(2):
            wire.send(request(method))
            assert (await wire.response(method)).status == 200
    assert read == [method] * 3
    assert len(here.raw.wires) == 2
    assert await here.errors("reset") == before


@pytest.mark.parametrize("method", [b"POST", b"PUT", b"PATCH", b"DELETE"])
async def test_a_request_that_may_have_been_carried_out_does_not(here: Relay, method: bytes) -> None:
    before = await here.errors("reset")
    behave, read = leaving_at(2)
    here.raw.begin(behave)
    async with client(here.gateway.url) as wire:
        wire.send(request(method, b"x"))
        assert (await wire.response()).status == 200
        wire.send(request(method, b"x"))
        found = await wire.response()
        assert (found.status, problem(found)["type"]) == (502, "urn:opentv-proxy:problem:upstream")
    assert read == [method] * 2
    assert await here.errors("reset") == before + 1


async def test_a_request_goes_out_again_only_once(here: Relay) -> None:
    behave, read = leaving_at(2, 3)
    here.raw.begin(behave)
    async with client(here.gateway.url) as wire:
        wire.send(GET + GET)
        assert [(await wire.response()).status for _ in range(2)] == [200, 502]
    assert len(read) == 3


async def test_a_new_connection_is_not_stale_whatever_happens_on_it(here: Relay) -> None:
    behave, read = leaving_at(1)
    assert (await here.answer(behave)).status == 502
    assert len(read) == 1


@pytest.mark.parametrize("partial", [b"H", b"HTTP/1.1 100 Continue\r\n\r\n", OK[:-1]])
async def test_an_answer_that_has_begun_is_not_asked_for_again(here: Relay, partial: bytes) -> None:
    behave, read = leaving_at(2, partial=partial)
    here.raw.begin(behave)
    async with client(here.gateway.url) as wire:
        wire.send(GET + GET)
        assert (await wire.response()).status == 200
        await wire.rest() if partial == OK[:-1] else await wire.response()
    assert len(read) == 2


async def test_a_safe_request_with_more_body_than_is_kept_is_not_sent_on_a_doubtful_connection(here: Relay) -> None:
    here.raw.begin(answering(OK))
    big = request(b"GET", b"x" * (2 << 20))
    async with client(here.gateway.url) as wire:
        wire.send(GET)
        await wire.response()
        await frozen(here, wire, big, here.raw.wires[0].close)
        assert (await wire.response()).status == 200


async def frozen(here: Relay, wire: Wire, then: bytes, upstream: Callable[[], None]) -> None:
    """The gateway sees the client's request ``then`` and what the upstream does in one moment, the request first."""
    os.kill(here.gateway.pid, signal.SIGSTOP)
    try:
        wire.send(then)
        await asyncio.sleep(0.02)
        upstream()
        await asyncio.sleep(0.02)
    finally:
        os.kill(here.gateway.pid, signal.SIGCONT)


@pytest.mark.parametrize("method", [b"POST", b"GET"])
@pytest.mark.parametrize("age", [0.0, 0.6])
async def test_a_connection_that_was_closed_a_moment_ago_carries_no_request(
    here: Relay, method: bytes, age: float
) -> None:
    here.raw.begin(answering(OK))
    async with client(here.gateway.url) as wire:
        wire.send(GET)
        await wire.response()
        await asyncio.sleep(age)
        await frozen(here, wire, request(method), here.raw.wires[0].close)
        assert (await wire.response()).status == 200
        assert len(here.raw.wires) == 2


async def test_what_an_upstream_says_unasked_answers_nobody_even_in_the_moment_of_a_request(here: Relay) -> None:
    poison = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison"
    here.raw.begin(answering(OK))
    async with client(here.gateway.url) as wire:
        wire.send(GET)
        await wire.response()
        await frozen(here, wire, GET, lambda: here.raw.wires[0].send(poison))
        assert (await wire.response()).body == b"ok"


async def test_requests_beyond_the_limit_wait_for_a_connection(here: Relay) -> None:
    most = now = 0

    async def behave(wire: Wire) -> None:
        nonlocal most, now
        await wire.request()
        now += 1
        most = max(most, now)
        await asyncio.sleep(0.02)
        now -= 1
        wire.send(OK)

    here.raw.begin(behave)
    found = await asyncio.gather(*(ask(here.gateway.url, NARROW) for _ in range(12)))
    assert {each.status for each in found} == {200}
    assert most == 2
    assert len(here.raw.wires) == 2


async def test_a_request_that_gets_no_connection_in_time_is_504(here: Relay) -> None:
    before = await here.errors("timeout", "/narrow")
    released = asyncio.Event()

    async def behave(wire: Wire) -> None:
        await wire.request()
        await released.wait()
        wire.send(OK)

    here.raw.begin(behave)
    async with client(here.gateway.url) as one, client(here.gateway.url) as other:
        one.send(NARROW)
        other.send(NARROW)
        await until(lambda: len(here.raw.wires) == 2, 2.0, "both connections")
        late = await ask(here.gateway.url, NARROW)
        assert late.status == 504
        assert late.values(b"proxy-status") == [b"opentv-proxy; error=connection_limit_reached"]
        assert "2 connections" in problem(late)["detail"]
        released.set()
        assert (await one.response()).status == (await other.response()).status == 200
    assert await here.errors("timeout", "/narrow") == before + 1


async def test_a_client_that_leaves_the_queue_takes_nobodys_turn(here: Relay) -> None:
    released = asyncio.Event()

    async def behave(wire: Wire) -> None:
        await wire.request()
        await released.wait()
        wire.send(OK)

    here.raw.begin(behave)
    async with client(here.gateway.url) as one, client(here.gateway.url) as other, client(here.gateway.url) as last:
        one.send(NARROW)
        other.send(NARROW)
        await until(lambda: len(here.raw.wires) == 2, 2.0, "both connections")
        async with client(here.gateway.url) as leaver:
            leaver.send(NARROW)
            await asyncio.sleep(0.05)
            leaver.reset()
        last.send(NARROW)
        await asyncio.sleep(0.05)
        released.set()
        for wire in (one, other, last):
            assert (await wire.response()).status == 200
    await here.counted(0, "upstream_connections", route="/narrow", state="active")


async def test_a_broken_connection_lets_the_next_in_the_queue_open_one(here: Relay) -> None:
    async def behave(wire: Wire) -> None:
        await wire.request()
        await asyncio.sleep(0.01)
        wire.reset()

    here.raw.begin(behave)
    found = await asyncio.gather(*(ask(here.gateway.url, NARROW) for _ in range(8)))
    assert {each.status for each in found} == {502}
    await here.counted(0, "upstream_connections", route="/narrow", state="active")


async def test_an_upstream_that_refuses_connections_is_502_at_once_for_everybody(here: Relay) -> None:
    before = await here.errors("connect", "/refusing")
    begun = asyncio.get_running_loop().time()
    found = await asyncio.gather(*(ask(here.gateway.url, request(b"GET", path=b"/refusing")) for _ in range(10)))
    assert asyncio.get_running_loop().time() - begun < 2.0
    assert {each.status for each in found} == {502}
    assert found[0].values(b"proxy-status") == [b"opentv-proxy; error=connection_refused"]
    assert await here.errors("connect", "/refusing") == before + 10


async def test_an_upstream_that_does_not_take_the_connection_is_502_or_504(here: Relay) -> None:
    found = await ask(here.gateway.url, request(b"GET", path=b"/nowhere"))
    problem(found)
    # With a route to nowhere the connect times out; without any route at all the kernel says so.
    reason = {504: "timeout", 502: "connect"}[found.status]
    assert await here.errors(reason, "/nowhere") == 1


async def test_an_upstream_without_an_address_is_502(here: Relay) -> None:
    found = await ask(here.gateway.url, request(b"GET", path=b"/unnamed"))
    assert found.status == 502
    assert problem(found)["type"] == "urn:opentv-proxy:problem:upstream"
    assert found.values(b"proxy-status") == [b"opentv-proxy; error=dns_error"]
    assert await here.errors("connect", "/unnamed") == 1


LATE = {
    "/mute": "the upstream {} accepted the connection, but did not finish the TLS handshake within 0.3 s; "
    "is the URL meant to begin with http://?",
    "/detour": "the upstream up.example:443 was not reached by the HTTP proxy within 0.3 s",
}


@pytest.mark.parametrize("path", LATE)
async def test_who_accepts_a_connection_and_stays_silent_is_504_and_named(here: Relay, path: str, mute: str) -> None:
    found = await ask(here.gateway.url, request(b"GET", path=path.encode()))
    assert (found.status, problem(found)["detail"]) == (504, LATE[path].format(mute))
    assert found.values(b"proxy-status") == [b"opentv-proxy; error=connection_timeout"]
    assert await here.errors("timeout", path) == 1
