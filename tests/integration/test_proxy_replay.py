"""A rejected token costs the CRM nothing: one refresh, the same request once more, and that answer (B1 to B4)."""

import asyncio
import gzip
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from proxy.sandbox.faults import Fault
from tests.support.gateway import until
from tests.support.rawclient import ask, client
from tests.support.rawserver import OK, Message, Wire
from tests.support.relay import GET
from tests.support.signed import REFUSED, Signed, signed

pytestmark = pytest.mark.asyncio(loop_scope="module")

BODY = b'{"resultCode":"99999:403","localeMessage":"none"}'
JSON = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def here(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Signed]:
    routes: list[dict[str, Any]] = [
        {"path": "/small", "replay_limit": "1KiB"},
        {"path": "/unsigned", "identity": None},
        {"path": "/adm", "upstream": "sandbox"},
        {"path": "/deaf", "rejected": {"statuses": [], "result_codes": []}},
    ]
    async with signed(tmp_path_factory.mktemp("gateway"), routes) as running:
        yield running


def sized(body: bytes, head: bytes = JSON) -> bytes:
    return head + b"Content-Length: %d\r\n\r\n" % len(body) + body


def chunks(*pieces: bytes) -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in (*pieces,)) + b"0\r\n\r\n"


def without_credential(message: Message) -> bytes:
    lines = [line for line in message.head.split(b"\r\n") if not line.lower().startswith(b"authorization:")]
    return b"\r\n".join(lines) + message.body + message.trailers


REFUSALS = {
    "401": REFUSED,
    "403 with a body": sized(BODY, b"HTTP/1.1 403 Forbidden\r\nContent-Type: application/json\r\n"),
    "401 in chunks": b"HTTP/1.1 401 No\r\n" + CHUNKED + chunks(b"n", b"o"),
    "401 without a body": b"HTTP/1.1 401 No\r\nContent-Length: 0\r\n\r\n",
    "the code in 200": sized(BODY),
    "the code in 500": sized(BODY, JSON.replace(b"200 OK", b"500 Oops")),
    "the code in chunks": JSON + CHUNKED + chunks(BODY[:5], BODY[5:20], BODY[20:]),
    "the code in gzip": sized(gzip.compress(BODY), JSON + b"Content-Encoding: gzip\r\n"),
    "the code in gzip in chunks": JSON + b"Content-Encoding: gzip\r\n" + CHUNKED + chunks(gzip.compress(BODY)),
    "the code escaped": sized(BODY.replace(b":403", b"\\u003a403")),
    "the code in 64 KiB": sized(BODY[:-1] + b',"x":"' + b"x" * (65536 - len(BODY) - 7) + b'"}'),
}


@pytest.mark.parametrize("name", REFUSALS)
async def test_a_rejection_is_cured_by_one_refresh_and_the_same_request_again(here: Signed, name: str) -> None:
    await here.begin(REFUSALS[name])
    async with here.costing(refreshes=1, replayed=1):
        found = await ask(here.url, b"GET /a%2Fb?c HTTP/1.1\r\nHost: gw\r\nX-A: 1\r\nx-a: 2\r\n\r\n")
    assert (found.status, found.body) == (200, b"ok")
    first, second = here.raw.requests
    assert first.values(b"authorization") != second.values(b"authorization")
    assert without_credential(first) == without_credential(second)


@pytest.mark.parametrize("name", ["401", "the code in 200", "the code in chunks"])
@pytest.mark.parametrize("pause", [0.0, 0.02])
async def test_a_rejection_may_come_in_any_number_of_reads(here: Signed, name: str, pause: float) -> None:
    refusal = REFUSALS[name]

    async def dripping(wire: Wire) -> None:
        for start in range(0, len(refusal), 40 if pause else 1):
            wire.send(refusal[start : start + (40 if pause else 1)])
            await asyncio.sleep(pause)

    await here.begin(dripping)
    async with here.costing(refreshes=1, replayed=1):
        assert (await ask(here.url, GET)).body == b"ok"


async def test_a_rejection_that_ends_with_its_connection_counts(here: Signed) -> None:
    async def until_the_end(wire: Wire) -> None:
        wire.send(JSON + b"\r\n" + BODY)
        wire.close()

    await here.begin(until_the_end)
    async with here.costing(refreshes=1, replayed=1):
        assert (await ask(here.url, GET)).body == b"ok"


async def test_a_rejection_of_known_length_may_take_its_time(here: Signed) -> None:
    async def slowly(wire: Wire) -> None:
        wire.send(sized(BODY)[:-10])
        await asyncio.sleep(0.5)
        wire.send(BODY[-10:])

    await here.begin(slowly)
    async with here.costing(refreshes=1, replayed=1):
        assert (await ask(here.url, GET)).body == b"ok"


HARMLESS = {
    "another type": sized(BODY, b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n"),
    "no type": sized(BODY, b"HTTP/1.1 200 OK\r\n"),
    "another code": sized(b'{"resultCode":"0","note":"not 99999:403"}'),
    "a nested code": sized(b'{"result":%b}' % BODY),
    "a list": sized(b"[%b]" % BODY),
    "half of it": sized(BODY[:-1]),
    "more than 64 KiB": sized(BODY[:-1] + b',"x":"' + b"x" * 65536 + b'"}'),
    "more than 64 KiB in chunks": JSON + CHUNKED + chunks(BODY[:-1] + b',"x":"', b"x" * 65536, b'"}'),
    "a coding we do not read": sized(BODY, JSON + b"Content-Encoding: br\r\n"),
    "gzip that is none": sized(BODY, JSON + b"Content-Encoding: gzip\r\n"),
    "404": b"HTTP/1.1 404 No\r\nContent-Length: 2\r\n\r\nno",
    "407": b"HTTP/1.1 407 No\r\nContent-Length: 2\r\n\r\nno",
    "an empty body": sized(b""),
}


@pytest.mark.parametrize("name", HARMLESS)
async def test_anything_else_passes_as_it_is(here: Signed, name: str) -> None:
    await here.begin(HARMLESS[name])
    async with here.costing(refreshes=0):
        found = await ask(here.url, GET)
    assert len(here.raw.requests) == 1
    assert found.start == HARMLESS[name].split(b"\r\n")[0]
    assert found.body == (await _body(HARMLESS[name]))


async def test_a_bomb_that_may_hold_the_code_is_not_unpacked_beyond_what_is_looked_at(here: Signed) -> None:
    """Less than 64 KiB on the wire, 50 MiB unpacked: it is looked at, and passes as it is."""
    packed = gzip.compress(b'{"resultCode": "' + bytes(50 << 20))
    await here.begin(sized(packed, JSON + b"Content-Encoding: gzip\r\n"))
    before = here.relay.forget_peak()
    async with here.costing(refreshes=0):
        for _ in range(10):
            assert (await ask(here.url, GET)).body == packed
    assert here.relay.resident() - before < 4 << 20


async def _body(raw: bytes) -> bytes:
    wire = Wire()
    wire.data_received(raw)
    return (await wire.response()).body


async def test_streamed_json_is_not_held_back(here: Signed) -> None:
    loop = asyncio.get_running_loop()
    for first, most in ((b"[1,", 0.2), (b'{"items":[', 0.6)):
        released = asyncio.Event()

        async def streaming(wire: Wire, first: bytes = first, released: asyncio.Event = released) -> None:
            wire.send(JSON + CHUNKED + chunks(first)[:-5])
            await released.wait()
            wire.send(chunks(b"2]"))

        await here.begin(streaming)
        async with client(here.url) as wire:
            wire.send(GET)
            begun = loop.time()
            await wire.read_until(first)
            assert loop.time() - begun < most
            released.set()
            await wire.read_until(b"0\r\n\r\n")


# -- bodies ---------------------------------------------------------------------------------------------------------


def post(body: bytes, path: bytes = b"/", extra: bytes = b"") -> bytes:
    return b"POST %b HTTP/1.1\r\nHost: gw\r\n%bContent-Length: %d\r\n\r\n" % (path, extra, len(body)) + body


async def test_a_body_goes_out_again_whole(here: Signed) -> None:
    body = bytes(range(256)) * 4096
    await here.begin()
    async with here.costing(refreshes=1, replayed=1):
        assert (await ask(here.url, post(body))).body == b"ok"
    first, second = here.raw.requests
    assert first.body == second.body == body
    assert without_credential(first) == without_credential(second)


async def test_a_chunked_body_goes_out_again_with_its_trailers(here: Signed) -> None:
    await here.begin()
    request = b"POST / HTTP/1.1\r\nHost: gw\r\nTransfer-Encoding: chunked\r\n\r\n"
    async with here.costing(refreshes=1, replayed=1), client(here.url) as wire:
        wire.send(request)
        for piece in (b"3\r\nabc\r\n", b"2;x\r\nde\r\n", b"0\r\nX-T: 1\r\n\r\n"):
            wire.send(piece)
            await asyncio.sleep(0.01)
        assert (await wire.response()).body == b"ok"
    first, second = here.raw.requests
    assert (first.body, first.trailers) == (second.body, second.trailers) == (b"abcde", b"X-T: 1\r\n")


async def test_a_refusal_before_the_end_of_the_body_is_replayed_with_all_of_it(here: Signed) -> None:
    async def take(wire: Wire) -> None:
        assert await wire.read(1000) == b"x" * 1000
        wire.send(OK)

    await here.begin(REFUSED, take, whole=False)
    async with here.costing(refreshes=1, replayed=1), client(here.url) as wire:
        wire.send(post(b"x" * 1000)[:-600])
        await until(lambda: here.raw.received.count(b"Authorization: ") == 2, 2.0, "the replay to begin")
        wire.send(b"x" * 600)
        assert (await wire.response()).body == b"ok"
    assert here.raw.faults == []


async def test_a_body_beyond_the_limit_is_not_sent_again_and_the_next_request_has_a_new_token(here: Signed) -> None:
    await here.begin()
    before = await here.refreshes()
    async with here.costing(refreshes=1, not_replayable=1):
        found = await ask(here.url, post(b"x" * 1025, b"/small"))
        assert (found.start, found.body) == (b"HTTP/1.1 401 Unauthorized", b"no")
        assert found.values(b"proxy-status") == []
        await here.refreshed(before + 1)
        assert (await ask(here.url, post(b"x", b"/small"))).body == b"ok"
    assert len(here.raw.requests) == 2


async def test_a_body_of_exactly_the_limit_is_sent_again(here: Signed) -> None:
    await here.begin()
    async with here.costing(refreshes=1, replayed=1):
        assert (await ask(here.url, post(b"x" * 1024, b"/small"))).body == b"ok"


async def test_a_chunked_body_that_outgrows_the_limit_is_not_sent_again(here: Signed) -> None:
    await here.begin()
    request = b"POST /small HTTP/1.1\r\nHost: gw\r\nTransfer-Encoding: chunked\r\n\r\n"
    async with here.costing(refreshes=1, not_replayable=1):
        assert (await ask(here.url, request + chunks(b"x" * 1000, b"x" * 1000))).body == b"no"


# -- Expect: 100-continue -------------------------------------------------------------------------------------------


async def test_with_an_expectation_a_body_of_any_size_is_replayed(here: Signed) -> None:
    size = 8 << 20

    async def take(wire: Wire) -> None:
        wire.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        assert await wire.read(size) == b"x" * size
        wire.send(OK)

    await here.begin(REFUSED, take, whole=False)
    async with here.costing(refreshes=1, replayed=1), client(here.url) as wire:
        wire.send(b"PUT /small HTTP/1.1\r\nHost: gw\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n" % size)
        assert (await wire.response()).raw == b"HTTP/1.1 100 Continue\r\n\r\n"
        wire.send(b"x" * size)
        assert (await wire.response()).body == b"ok"
    assert here.raw.faults == []
    assert all(b"Expect: 100-continue\r\n" in wire.received for wire in here.raw.wires[:2])


async def test_an_impatient_clients_body_is_kept_for_the_replay(here: Signed) -> None:
    body = b"y" * 40_000

    async def take(wire: Wire) -> None:
        assert await wire.read(len(body)) == body
        wire.send(OK)

    await here.begin(REFUSED, take, whole=False)
    here.sandbox.state.add_fault("token", Fault("late", delay_ms=300))
    async with here.costing(refreshes=1, replayed=1), client(here.url) as wire:
        head, _, _ = post(body, b"/small", b"Expect: 100-continue\r\n").partition(body)
        wire.send(head)
        await asyncio.sleep(0.1)
        wire.send(body)
        assert (await wire.response()).body == b"ok"
    assert here.raw.faults == []


async def test_after_the_go_ahead_a_small_body_is_replayed_and_the_client_told_once(here: Signed) -> None:
    async def first_ask(wire: Wire) -> None:
        wire.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        await wire.read(4)
        wire.send(REFUSED)

    async def then_take(wire: Wire) -> None:
        wire.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        assert await wire.read(4) == b"body"
        wire.send(OK)

    await here.begin(first_ask, then_take, whole=False)
    async with here.costing(refreshes=1, replayed=1), client(here.url) as wire:
        wire.send(b"PUT / HTTP/1.1\r\nHost: gw\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n")
        assert (await wire.response()).status == 100
        wire.send(b"body")
        assert (await wire.response()).raw.startswith(b"HTTP/1.1 200 OK")
    assert here.raw.faults == []


# -- when it does not help ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["401", "the code in 200", "401 in chunks"])
async def test_a_second_rejection_is_passed_on_as_it_is(here: Signed, name: str) -> None:
    await here.begin(REFUSALS[name], REFUSALS[name])
    async with here.costing(refreshes=1, replayed=1, passed_on=1):
        found = await ask(here.url, GET)
    assert found.start == REFUSALS[name].split(b"\r\n")[0]
    assert found.values(b"proxy-status") == []
    assert found.body == await _body(REFUSALS[name])
    assert len(here.raw.requests) == 2
    async with here.costing(refreshes=0, passed_on=3):  # B4: not again so soon
        for _ in range(3):
            assert (await ask(here.url, GET)).start == found.start
    assert len(here.raw.requests) == 5


async def test_a_refresh_that_fails_passes_the_rejection_on(here: Signed) -> None:
    await here.begin()
    here.sandbox.state.add_fault("token", Fault("reply", times=None, status=503, body="{}"))
    async with here.costing(refreshes=None, passed_on=1):
        found = await ask(here.url, GET)
    assert (found.status, found.body) == (401, b"no")
    assert len(here.raw.requests) == 1


async def test_where_nothing_counts_as_a_rejection_nothing_is_one(here: Signed) -> None:
    await here.begin()
    async with here.costing(refreshes=0):
        assert (await ask(here.url, GET.replace(b"/ ", b"/deaf "))).status == 401


async def test_an_unsigned_route_knows_no_rejection(here: Signed) -> None:
    await here.begin()
    request = b"GET /unsigned HTTP/1.1\r\nHost: gw\r\nAuthorization: " + next(iter(here.dead)) + b"\r\n\r\n"
    async with here.costing(refreshes=0):
        assert (await ask(here.url, request)).status == 401


async def test_a_token_endpoints_own_words_do_not_reach_the_client(here: Signed) -> None:
    await here.begin()
    here.sandbox.state.add_fault("token", Fault("html", times=None, status=200))
    found = await ask(here.url, GET)
    assert (found.status, found.body) == (401, b"no")


async def test_an_upstream_that_breaks_off_a_rejection_changes_nothing(here: Signed) -> None:
    async def torn(wire: Wire) -> None:
        wire.send(b"HTTP/1.1 401 No\r\nContent-Length: 100\r\n\r\nhalf")
        await asyncio.sleep(0.02)
        wire.reset()

    await here.begin(torn)
    here.sandbox.state.add_fault("token", Fault("late", delay_ms=200))
    async with here.costing(refreshes=1, replayed=1):
        assert (await ask(here.url, GET)).body == b"ok"


async def test_a_long_rejection_is_given_up_for_the_replay(here: Signed) -> None:
    async def long(wire: Wire) -> None:
        await wire.write(b"HTTP/1.1 403 No\r\nContent-Length: %d\r\n\r\n" % (64 << 20) + b"x" * (64 << 20))

    await here.begin(long)
    here.sandbox.state.add_fault("token", Fault("late", delay_ms=300))
    before = here.relay.forget_peak()
    async with here.costing(refreshes=1, replayed=1):
        assert (await ask(here.url, GET)).body == b"ok"
    assert here.relay.resident() - before < 16 << 20


async def test_a_long_rejection_that_is_passed_on_arrives_whole(here: Signed) -> None:
    size = 8 << 20

    async def long(wire: Wire) -> None:
        await wire.write(b"HTTP/1.1 403 No\r\nContent-Length: %d\r\n\r\n" % size + b"x" * size)

    await here.begin(long, long)
    async with here.costing(refreshes=1, replayed=1, passed_on=1):
        assert (await ask(here.url, GET)).body == b"x" * size


async def test_a_head_request_is_replayed(here: Signed) -> None:
    await here.begin(b"HTTP/1.1 401 No\r\nContent-Length: 9\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n")
    async with here.costing(refreshes=1, replayed=1):
        found = await ask(here.url, b"HEAD / HTTP/1.1\r\nHost: gw\r\n\r\n")
    assert (found.status, found.values(b"content-length"), found.body) == (200, [b"7"], b"")


async def test_a_sites_own_way_of_refusing_works_end_to_end(here: Signed) -> None:
    state = here.sandbox.state
    await here.begin()
    for style in ("401", "403", "200"):
        state.settings.reject = style
        state.revoke_access_tokens()
        async with here.costing(refreshes=1, replayed=1):
            found = await ask(here.url, post(b'{"uid":7}', b"/adm/v1/a"))
        assert (found.status, json.loads(found.body)["resultCode"]) == (201, "0")


@pytest.mark.parametrize(("sent", "passed"), [(b"crm-4711", True), (b"\xe9t\xe9", False), (b"x" * 129, False)])
async def test_the_token_endpoint_is_told_the_id_of_the_request_that_needs_a_token(
    here: Signed, sent: bytes, passed: bool
) -> None:
    await here.begin()
    await ask(here.url, b"GET /a HTTP/1.1\r\nHost: gw\r\nx-correlation-id: %b\r\n\r\n" % sent)
    ids = [value for name, value in here.sandbox.state.token_calls[-1].headers if name.lower() == b"x-correlation-id"]
    assert (ids == [sent]) is passed
    assert len(ids) == 1
