"""Targets: passed byte for byte, kept below the configured prefix and base path, judged by ``allow`` (A10, A12)."""

import asyncio
import string
from collections.abc import AsyncIterator, Awaitable
from typing import Any

import pytest
import pytest_asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.proxied import Scene, scene
from tests.support.rawclient import client
from tests.support.rawserver import Wire

pytestmark = pytest.mark.asyncio(loop_scope="module")


def open_routes(upstream: str) -> list[dict[str, Any]]:
    return [
        {"path": "/", "upstream": upstream, "identity": None},
        {"path": "/kept", "upstream": upstream, "identity": "nv"},
        {"path": "/kept/deeper", "upstream": upstream, "identity": "opentv"},
        {"path": "/strip", "upstream": upstream, "identity": None, "strip_prefix": True},
        {"path": "/base", "upstream": f"{upstream}/base/path", "identity": None},
        {"path": "/both", "upstream": f"{upstream}/tenant/a%20b/", "identity": None, "strip_prefix": True},
    ]


def guarded_routes(upstream: str) -> list[dict[str, Any]]:
    allow = ["GET /api/**", "POST /api/*/lock", "* /api/health"]
    return [
        {"path": "/api", "upstream": upstream, "identity": "opentv", "allow": allow},
        {"path": "/pub", "upstream": upstream, "identity": None},
    ]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[Scene, Scene]]:
    async with (
        scene(open_routes, tmp_path_factory.mktemp("open")) as open_scene,
        scene(guarded_routes, tmp_path_factory.mktemp("guarded")) as guarded_scene,
    ):
        yield open_scene, guarded_scene


@pytest.fixture
def proxy(shared: tuple[Scene, Scene]) -> Scene:
    shared[0].upstream.begin()
    return shared[0]


@pytest.fixture
def guarded(shared: tuple[Scene, Scene]) -> Scene:
    shared[1].upstream.begin()
    return shared[1]


def to(target: bytes, method: bytes = b"GET") -> bytes:
    return method + b" " + target + b" HTTP/1.1\r\nHost: gw\r\n\r\n"


TARGETS = [
    b"/%41%2f%2F%00%ff%zz%",
    b"/a//b///c/",
    b"/a/./b/../c/%2e%2E/..%2f",
    b"/..",
    b"/../../etc/passwd",
    b"/a;b=1;c/d?e=f;g&h=%20+&i=?/:@!$'()*,[]|^`{}\"<>\\",
    b"/?",
    b"/??",
    b"/a?b?c=http://evil/#".rstrip(b"#"),
    b"/caf\xc3\xa9/\xff\xfe",
    b"/\\evil\\..\\",
    b"//evil.example//a",
    b"///",
    b"/:80/@evil",
    b"/" + b"x" * 8000,
]


@pytest.mark.parametrize("target", TARGETS)
async def test_a_target_passes_byte_for_byte(proxy: Scene, target: bytes) -> None:
    assert (await proxy.passed(to(target))).target == target
    assert (await proxy.passed(to(b"http://evil.example" + target))).target == target


@pytest.mark.parametrize(
    ("target", "upstream"),
    [
        (b"/kept", b"/kept"),
        (b"/kept/x/../y", b"/kept/x/../y"),
        (b"/strip", b"/"),
        (b"/strip/", b"/"),
        (b"/strip?a=b", b"/?a=b"),
        (b"/strip/a%2fb//c?d", b"/a%2fb//c?d"),
        (b"/strip//evil.example", b"//evil.example"),
        (b"/stripped", b"/stripped"),
        (b"/base", b"/base/path/base"),
        (b"/base/a?b=/base", b"/base/path/base/a?b=/base"),
        (b"/both", b"/tenant/a%20b/"),
        (b"/both/x/./y?z", b"/tenant/a%20b/x/./y?z"),
        (b"/both?z", b"/tenant/a%20b/?z"),
    ],
)
async def test_prefixes_are_kept_or_stripped_and_base_paths_put_in_front(
    proxy: Scene, target: bytes, upstream: bytes
) -> None:
    assert (await proxy.passed(to(target))).target == upstream


CLIMBING = [
    b"/..",
    b"/../",
    b"/../x",
    b"/%2e%2e/x",
    b"/%2E./x",
    b"/.%2e",
    b"/a/../../x",
    b"/a/./../../x",
    b"/a/%2e%2e/%2E%2e/x",
    b"/..%2fx",
    b"/..%5cx",
    b"/..\\x",
    b"/..;/x",
    b"/..;a=b/x",
    b"/a/..%2f..%2fx",
    b"//../x",
    b"/a//../../x",
    b"/%c0%ae%c0%ae/x",
    b"/./../x",
    b"/a/..;/..;/x",
    b"/.;/..;/x",
]


@pytest.mark.parametrize("rest", CLIMBING)
@pytest.mark.parametrize("prefix", [b"/kept", b"/strip", b"/base", b"/both", b"/kept/deeper"])
async def test_no_spelling_of_dots_leaves_a_prefix_or_a_base_path(proxy: Scene, prefix: bytes, rest: bytes) -> None:
    await proxy.refused(to(prefix + rest), 400, "request")


async def test_the_longest_prefix_wins_on_whole_segments(proxy: Scene) -> None:
    fields = {b"/kept": b"nv-authorizations", b"/kept/deeper": b"authorization", b"/kept/deepers": b"nv-authorizations",
              b"/kept/deeper/x?y": b"authorization", b"/kepts": b"", b"/KEPT": b""}  # fmt: skip
    for target, field in fields.items():
        got = await proxy.passed(to(target))
        assert [name for name in (b"authorization", b"nv-authorizations") if got.values(name)] == [field] * bool(field)


async def test_options_of_the_whole_server_means_what_lies_behind_the_root(proxy: Scene) -> None:
    assert (await proxy.passed(to(b"*", b"OPTIONS"))).target == b"*"


# RFC 3986 3.3, 3.4, and what clients send raw in spite of it.
LEGAL = (string.ascii_letters + string.digits + "-._~!$&'()*+,;=:@/%?|\\^`{}[]<>\"").encode()
RANDOM = st.lists(
    st.sampled_from([*(bytes([byte]) for byte in LEGAL), b"..", b"%2e", b"%2F", b"//", b"\xc3\xa9"]), max_size=40
)


async def exchange(wire: Wire, target: bytes) -> int:
    wire.send(to(target))
    return (await wire.response()).status


def run(loop: asyncio.AbstractEventLoop, work: Awaitable[Any]) -> Any:
    async def awaited() -> Any:
        return await work

    return asyncio.run_coroutine_threadsafe(awaited(), loop).result(10)


async def test_random_targets_pass_byte_for_byte(proxy: Scene) -> None:
    loop = asyncio.get_running_loop()

    async with client(proxy.gateway.url) as wire:

        @settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
        @given(parts=RANDOM)
        def check(parts: list[bytes]) -> None:
            target = b"/t" + b"".join(parts)
            assert run(loop, exchange(wire, target)) == 200
            assert proxy.upstream.requests[-1].target == target

        await asyncio.to_thread(check)


async def test_random_climbing_never_leaves_a_base_path(proxy: Scene) -> None:
    """Whatever passes below /base still lies below /base/path for a server that decodes once and resolves dots."""
    loop = asyncio.get_running_loop()
    pieces = st.lists(
        st.sampled_from([b"..", b".", b"/", b"%2e", b"%2f", b"\\", b"%5c", b";", b"a", b"//", b"%"]), max_size=10
    )

    async with client(proxy.gateway.url) as wire:

        @settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
        @given(parts=pieces)
        def check(parts: list[bytes]) -> None:
            if run(loop, exchange(wire, b"/base/" + b"".join(parts))) == 200:
                got = proxy.upstream.requests[-1].target
                for reading in readings(got):
                    assert b"/".join(reading[:3]) == b"/base/path", got

        await asyncio.to_thread(check)


def readings(target: bytes) -> list[list[bytes]]:
    """The path's segments, as servers of several habits resolve it."""
    decoded = target.lower().replace(b"%2e", b".").replace(b"%2f", b"/").replace(b"%5c", b"\\")
    found = []
    for path in (target, decoded, decoded.replace(b"\\", b"/")):
        for merge in (False, True):
            for cut in (False, True):
                out: list[bytes] = [b""]
                for segment in path.split(b"/")[1:]:
                    name = segment.partition(b";")[0] if cut else segment
                    if name == b"..":
                        out = out[:-1] or [b""]
                    elif name != b"." and (name or not merge):
                        out.append(name)
                found.append(out)
    return found


# -- allow ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("request_line", [b"GET /api", b"GET /api/a/b?c", b"POST /api/x/lock", b"PURGE /api/health"])
async def test_what_is_allowed_passes(guarded: Scene, request_line: bytes) -> None:
    method, target = request_line.split(b" ")
    assert (await guarded.passed(to(target, method))).start == request_line + b" HTTP/1.1"


@pytest.mark.parametrize(
    "request_line",
    [
        b"POST /api/x",
        b"HEAD /api/x",
        b"post /api/x/lock",
        b"POST /api/x/y/lock",
        b"POST /api/x/lock/",
        b"DELETE /api",
        b"GET /api/../api/x",
        b"GET /api/%2e%2e/x",
        b"GET /api/a%2fb",
        b"GET /api//x",
        b"GET /api/a;b/..;/x",
        b"GET /api/a\\b",
        b"GET /api/%00",
        b"GET /api/%zz",
        b"POST /api/x%2flock",
        b"POST /api/x/lock;y",
        b"POST /api/x/LOCK",
        b"GET /api/%e0%80%ae%e0%80%ae/x",
        b"GET /api/%c0%afx",
        b"GET /api/\xc0\xae\xc0\xae/x",
        b"GET http://other/api/../api/x",
        b"POST http://other/api/x/Lock",
    ],
)
async def test_everything_else_is_403(guarded: Scene, request_line: bytes) -> None:
    method, target = request_line.split(b" ")
    await guarded.refused(to(target, method), 403, "allow")


async def test_a_refusal_is_counted_for_its_route_and_with_its_reason(guarded: Scene) -> None:
    async def counted() -> tuple[float, float]:
        return (
            await guarded.metric("client_denied_total", reason="allow"),
            await guarded.metric("requests_total", route="/api", method="other", code="403"),
        )

    denied, refused = await counted()
    await guarded.refused(to(b"/api/x", b"PROPFIND"), 403, "allow")
    assert await counted() == (denied + 1, refused + 1)


@pytest.mark.parametrize(
    "target", [b"/api%2fx", b"/pub/../api", b"/pub/%2e%2e/api", b"/pub/..;/api", b"//api/x", b"/./api"]
)
async def test_no_other_spelling_reaches_a_restricted_route(guarded: Scene, target: bytes) -> None:
    answer = await guarded.ask(to(target, b"POST"))
    assert answer.status in (400, 403, 404)
    assert guarded.upstream.received == b""


async def test_what_no_route_covers_is_404(guarded: Scene) -> None:
    for target in (b"/", b"/apis", b"/publ", b"/API", b"/elsewhere"):
        await guarded.refused(to(target), 404, "route")
    await guarded.refused(to(b"*", b"OPTIONS"), 404, "route")
