"""Who is let in, over real sockets: what admitted a client never travels on, and nobody else reaches the upstream."""

import asyncio
from base64 import b64encode
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from tests.support.gateway import until
from tests.support.proxied import Scene, is_problem, scene
from tests.support.rawclient import client, dial

pytestmark = pytest.mark.asyncio(loop_scope="module")

KEY, PASSWORD = "k-5f0c1b7e2d", "p-93ab71cc05"
BASIC = b"Authorization: Basic " + b64encode(b"crm:" + PASSWORD.encode())
API_KEY = b"X-Api-Key: " + KEY.encode()


def routes(upstream: str) -> list[dict[str, Any]]:
    return [
        {"path": "/", "upstream": upstream, "identity": "opentv"},
        {"path": "/nv", "upstream": upstream, "identity": "nv"},
        {"path": "/plain", "upstream": upstream, "identity": None},
        {"path": "/fwd", "upstream": upstream, "identity": None, "forwarded": True},
    ]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[Scene, Scene]]:
    """One gateway that asks for credentials, and one behind a load balancer, with few connections for an address."""
    keys = tmp_path_factory.mktemp("keys") / "keys"
    keys.write_text(f"# the CRM's\n{KEY}\n")
    asking = {"basic": {"crm": {"password": PASSWORD}}, "api_keys": {"header": "X-Api-Key", "keys_file": str(keys)}}
    behind = {"trusted_proxies": ["127.0.0.1/32"], "allow_from": ["10.1.0.0/16"]}
    few = {"connections_per_address": 5}
    async with (
        scene(routes, tmp_path_factory.mktemp("asking"), {"clients": asking}) as asks,
        scene(routes, tmp_path_factory.mktemp("behind"), {"clients": behind, "limits": few}) as balanced,
    ):
        yield asks, balanced


@pytest.fixture
def proxy(shared: tuple[Scene, Scene]) -> Scene:
    shared[0].upstream.begin()
    return shared[0]


@pytest.fixture
def balanced(shared: tuple[Scene, Scene]) -> Scene:
    shared[1].upstream.begin()
    return shared[1]


def get(path: str, *lines: bytes) -> bytes:
    return b"\r\n".join([b"GET " + path.encode() + b" HTTP/1.1", b"Host: gw", *lines]) + b"\r\n\r\n"


@pytest.mark.parametrize("path", ["/a", "/nv", "/plain"])
@pytest.mark.parametrize("line", [BASIC, API_KEY, API_KEY.lower(), BASIC.replace(b"Basic", b"bAsIc")])
async def test_what_admits_a_client_is_not_forwarded(proxy: Scene, path: str, line: bytes) -> None:
    got = await proxy.passed(get(path, line, b"Connection: x-api-key"))
    for secret in (KEY.encode(), BASIC[-12:], b"x-api-key"):
        assert secret not in got.raw.replace(b"X-Api-Key", b"x-api-key")
    assert len(got.values(b"authorization")) == (path == "/a")


@pytest.mark.parametrize("spelling", [b"X-Api-Key", b"x_api_key", b"X_API-KEY"])
async def test_no_spelling_of_a_key_travels_on_not_even_as_a_trailer(proxy: Scene, spelling: bytes) -> None:
    line = spelling + b": " + KEY.encode()
    lines = [b"Transfer-Encoding: chunked", BASIC, *([line] if b"_" in spelling else [])]
    got = await proxy.passed(
        get("/plain", *lines).replace(b"GET", b"POST") + b"0\r\n" + line + b"\r\nDigest: d\r\n\r\n"
    )
    assert KEY.encode() not in got.raw
    assert got.trailers == b"Digest: d\r\n"


async def test_another_partys_authorization_passes_beside_a_key(proxy: Scene) -> None:
    got = await proxy.passed(get("/plain", API_KEY, b"Authorization: Bearer theirs"))
    assert got.values(b"authorization") == [b"Bearer theirs"]


@pytest.mark.parametrize(
    "lines",
    [
        [],
        [b"Authorization: Basic " + b64encode(b"crm:wrong")],
        [b"Authorization: Basic " + b64encode(b"other:" + PASSWORD.encode())],
        [b"Authorization: Basic =="],
        [b"Authorization: Bearer " + PASSWORD.encode()],
        [BASIC, BASIC],
        [b"X-Api-Key: wrong"],
        [b"X-Api-Key:"],
        [API_KEY, API_KEY],
        [API_KEY + b"x"],
        [b"X_Api_Key: " + KEY.encode()],
    ],
)
async def test_everybody_else_is_asked_for_a_credential(proxy: Scene, lines: list[bytes]) -> None:
    answer = await proxy.refused(get("/a", *lines), 401, "client")
    assert {value.split(b" ")[0] for value in answer.values(b"www-authenticate")} == {b"Basic", b"ApiKey"}
    assert KEY.encode() not in answer.raw
    assert PASSWORD.encode() not in answer.raw


async def test_each_request_of_a_connection_is_judged_by_itself(proxy: Scene) -> None:
    async with client(proxy.gateway.url) as wire:
        wire.send(get("/a", API_KEY) + get("/b") + get("/c", BASIC))
        assert [(await wire.response()).status for _ in range(3)] == [200, 401, 200]
    assert [got.target for got in proxy.upstream.requests] == [b"/a", b"/c"]


async def test_a_refused_upload_is_not_read(proxy: Scene) -> None:
    request = get("/a", b"Content-Length: 1000", b"Expect: 100-continue").replace(b"GET", b"POST")
    answer = await proxy.refused(request, 401, "client")
    assert answer.values(b"connection") == [b"close"]


async def test_a_denied_client_is_counted_and_no_secret_is_written_down(proxy: Scene) -> None:
    before = await proxy.metric("client_denied_total", reason="credential")
    answer = await proxy.refused(get("/a", b"X-Api-Key: nearly" + KEY.encode()), 401, "client")
    assert await proxy.metric("client_denied_total", reason="credential") == before + 1
    await proxy.logged(correlation_id=answer.values(b"x-correlation-id")[0].decode(), status=401)
    everything = "\n".join([*proxy.gateway.log, *proxy.gateway.out])
    assert KEY not in everything
    assert PASSWORD not in everything
    assert BASIC.decode().rpartition(" ")[2] not in everything


async def test_behind_a_trusted_proxy_the_client_it_names_is_judged_and_logged(balanced: Scene) -> None:
    named = [b"X-Forwarded-For: 6.6.6.6, 10.1.2.3", b"X-Forwarded-Proto: https", b"X-Forwarded-Host: crm.example"]
    got = await balanced.passed(get("/fwd", *named, b"x-correlation-id: behind-1"))
    assert got.values(b"x-forwarded-for") == [b"6.6.6.6, 10.1.2.3, 127.0.0.1"]
    assert got.values(b"x-forwarded-proto") == [b"https"]
    assert got.values(b"x-forwarded-host") == [b"crm.example"]
    assert (await balanced.logged(correlation_id="behind-1"))["client"] == "10.1.2.3"


@pytest.mark.parametrize("said", [b"10.2.0.1", b"10.1.2.3, 6.6.6.6", b"unknown", b"", b"10.1.2.3, x"])
async def test_behind_a_trusted_proxy_others_are_refused(balanced: Scene, said: bytes) -> None:
    await balanced.refused(get("/fwd", b"X-Forwarded-For: " + said), 403, "client")


async def test_one_address_has_only_so_many_connections(balanced: Scene) -> None:
    wires = [await dial(balanced.gateway.url) for _ in range(5)]
    try:
        async with client(balanced.gateway.url) as extra:
            is_problem(answer := await extra.response(), "limit")
            assert (answer.status, await extra.rest()) == (503, b"")
        wires.pop().close()

        async def free() -> bool:
            request = get("/fwd", b"X-Forwarded-For: 10.1.2.3")
            return (await balanced.ask(request)).status == 200

        await until(free, 2.0, "the free place")
    finally:
        for wire in wires:
            wire.close()


async def test_a_flood_of_wrong_keys_is_slowed_and_counted_while_right_ones_pass_at_once(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """From one address, as behind a NAT. Over one connection after the other, as an attacker does who must."""
    config = {"clients": {"api_keys": {"keys": [KEY]}}}
    clock = asyncio.get_running_loop().time
    over = asyncio.Event()
    tries = 0

    async def attack(there: Scene) -> None:
        nonlocal tries
        while not over.is_set():
            assert (await there.ask(get("/a", b"X-Api-Key: wrong"))).status == 401
            tries += 1

    async with scene(routes, tmp_path_factory.mktemp("flooded"), config) as there:
        attackers = [asyncio.create_task(attack(there)) for _ in range(8)]
        begun, slowest = clock(), 0.0
        while clock() - begun < 3.0:
            asked = clock()
            assert (await there.ask(get("/a", API_KEY))).status == 200
            slowest = max(slowest, clock() - asked)
            await asyncio.sleep(0.02)
        over.set()
        assert slowest < 0.5
        assert 10 <= tries <= 10 + 8 + 3 * 2
        assert await there.metric("client_denied_total", reason="credential") >= tries
        await asyncio.gather(*attackers)


async def test_two_keys_are_valid_at_once_and_one_is_taken_back_without_a_restart(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("rotating")
    keys, password = folder / "keys", folder / "password"
    keys.write_text("old-5f0c1b7e2d\n")
    password.write_text("first\n")
    config = {
        "clients": {
            "api_keys": {"keys_file": str(keys)},
            "basic": {"crm": {"password_file": str(password)}},
            "require": "all",
        }
    }

    async def admits(there: Scene, key: str, word: str) -> bool:
        lines = [f"X-Api-Key: {key}".encode(), b"Authorization: Basic " + b64encode(f"crm:{word}".encode())]
        return (await there.ask(get("/plain", *lines))).status == 200

    async with scene(routes, folder, config) as there, client(there.gateway.url) as kept:
        assert await admits(there, "old-5f0c1b7e2d", "first")
        assert (await there.ask(get("/plain", b"X-Api-Key: old-5f0c1b7e2d"))).status == 401  # all of them are required
        keys.write_text("old-5f0c1b7e2d\nnew-93ab71cc05\n")
        await until(lambda: admits(there, "new-93ab71cc05", "first"), 6.0, "the new key")
        assert await admits(there, "old-5f0c1b7e2d", "first")
        keys.write_text("new-93ab71cc05\n")
        password.write_text("second\n")
        await until(lambda: admits(there, "new-93ab71cc05", "second"), 6.0, "the new password")
        kept.send(get("/plain", b"X-Api-Key: old-5f0c1b7e2d", b"Authorization: Basic " + b64encode(b"crm:second")))
        assert (await kept.response()).status == 401
        assert not await admits(there, "new-93ab71cc05", "first")
