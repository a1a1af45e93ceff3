"""One answer held back: when it is judged, when it is replaced, and what the client gets otherwise."""

import asyncio
from collections.abc import Awaitable, Coroutine
from typing import Any, cast

import pytest

from proxy.gateway.fields import Fields
from proxy.gateway.http1 import ResponseHead, parse_response
from proxy.gateway.judge import Judge
from proxy.gateway.outgoing import Outgoing
from proxy.gateway.rejection import INSPECT_MAX, RejectionRules
from proxy.gateway.relation import UpstreamError
from proxy.metrics import RejectionOutcome
from proxy.tokens.source import Credential
from tests.support.gateway import until

RULES = RejectionRules([401], ["99999:403"])
REFUSED = b'{"resultCode":"99999:403"}'
OLD = Credential(b"Authorization", b"Authorization: Bearer old\r\n", 1, "00000001")
NEW = Credential(b"Authorization", b"Authorization: Bearer new\r\n", 2, "00000002")
BROKEN = UpstreamError("reset", "http_response_incomplete", "the upstream left")

Renewal = Credential | Awaitable[Credential | None] | None


class FakeConnection:
    def __init__(self) -> None:
        self.calls: list[str] = []

    def pause_reading(self) -> None:
        self.calls.append("pause")

    def resume_reading(self) -> None:
        self.calls.append("resume")


class FakeBody:
    replayable = True


class FakeOutgoing:
    def __init__(self) -> None:
        self.token_wait = 0.0
        self.connection: FakeConnection | None = FakeConnection()
        self.body = FakeBody()
        self.tasks: list[asyncio.Task[None]] = []

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        self.tasks.append(asyncio.create_task(work))


class FakeSource:
    """renewal: what a rejection is answered with. asked: the credentials that were reported."""

    header = b"authorization"

    def __init__(self, renewal: Renewal) -> None:
        self.renewal = renewal
        self.asked: list[Credential] = []

    def current(self) -> Credential | None:
        return OLD

    async def obtain(self, correlation_id: str = "") -> Credential:  # noqa: ARG002 - not judged here
        return OLD

    def rejected(self, credential: Credential, correlation_id: str = "") -> Renewal:  # noqa: ARG002 - not judged here
        self.asked.append(credential)
        return self.renewal

    def served(self, credential: Credential) -> None:
        raise AssertionError(f"not the judge's business: {credential}")


class Case:
    """The exchange, as a judge sees it, and a judge on it. happened: what the judge had it do, in order."""

    def __init__(
        self, renewal: Renewal = None, *, inspect: bool = False, patience: float = 5.0, lines: bytes = b""
    ) -> None:
        self.fake = FakeOutgoing()
        self.outgoing = cast("Outgoing", self.fake)
        self.replayed = False
        self.correlation_id = b"crm-1"
        self.source = FakeSource(renewal)
        self.happened: list[tuple[Any, ...]] = []
        status = b"200 OK\r\nContent-Type: application/json" if inspect else b"401 No"
        data = b"HTTP/1.1 %b\r\n%b\r\n" % (status, lines)
        self.head = parse_response(data, len(data) - 4, b"GET")
        self.judge = Judge(self, RULES, self.head, self.source, OLD, inspect=inspect, patience=patience)

    def relay(self, head: ResponseHead | None, pieces: list[bytes], trailers: Fields, *, done: bool) -> None:
        assert head is self.head
        assert trailers == []
        self.happened.append(("relay", b"".join(pieces), done))

    def replay(self, credential: Credential) -> None:
        self.happened.append(("replay", credential))

    def lost(self, error: UpstreamError) -> None:
        self.happened.append(("lost", error))

    def count_rejection(self, outcome: RejectionOutcome) -> None:
        self.happened.append(("count", outcome))

    def receive(self, *pieces: bytes, done: bool = False, first: bool = True) -> None:
        self.judge.received(list(pieces), [], done=done, first=first)

    async def settled(self) -> list[tuple[Any, ...]]:
        await asyncio.gather(*self.fake.tasks)
        return self.happened


async def brings(credential: Credential | None) -> Credential | None:
    await asyncio.sleep(0)
    return credential


async def never() -> Credential | None:
    await asyncio.Event().wait()
    return None


async def test_where_there_is_a_newer_token_already_the_request_goes_out_again_at_once() -> None:
    case = Case(NEW)
    case.receive(b"no", done=True)
    assert case.happened == [("replay", NEW)]
    assert case.source.asked == [OLD]


async def test_the_rest_of_a_refused_answer_is_not_waited_for() -> None:
    case = Case(NEW)
    case.receive()
    assert case.happened == [("replay", NEW)]


async def test_a_renewal_is_awaited_and_the_request_sent_again() -> None:
    case = Case(brings(NEW))
    case.receive(b"n")
    case.receive(b"o", done=True, first=False)
    assert await case.settled() == [("replay", NEW)]
    assert case.source.asked == [OLD]


async def test_a_renewal_that_brings_nothing_passes_the_rejection_on() -> None:
    case = Case(brings(None))
    case.receive(b"n")
    case.receive(b"o", done=True, first=False)
    assert await case.settled() == [("count", "passed_on"), ("relay", b"no", True)]


async def test_where_no_renewal_is_made_the_rejection_is_passed_on_at_once() -> None:
    case = Case(None)
    case.receive(b"no", done=True)
    assert case.happened == [("count", "passed_on"), ("relay", b"no", True)]


async def test_a_second_rejection_is_passed_on_and_still_told_to_the_source() -> None:
    case = Case(NEW)
    case.replayed = True
    case.receive(b"no", done=True)
    assert case.happened == [("count", "passed_on"), ("relay", b"no", True)]
    assert case.source.asked == [OLD]


@pytest.mark.parametrize("renewal", [NEW, None])
async def test_a_body_that_is_gone_is_not_sent_again_but_the_next_request_has_a_new_token(renewal: Renewal) -> None:
    case = Case(renewal)
    case.fake.body.replayable = False
    case.receive(b"no", done=True)
    assert case.happened == [("count", "not_replayable"), ("relay", b"no", True)]
    assert case.source.asked == [OLD]


async def test_a_body_that_outgrows_what_is_kept_meanwhile_is_not_sent_again() -> None:
    case = Case(brings(NEW))
    case.receive(b"no", done=True)
    case.fake.body.replayable = False
    assert await case.settled() == [("count", "not_replayable"), ("relay", b"no", True)]


async def test_a_renewal_is_waited_for_no_longer_than_an_answer_would_be() -> None:
    case = Case(never(), patience=0.01)
    case.receive(b"no", done=True)
    assert await case.settled() == [("count", "passed_on"), ("relay", b"no", True)]


async def test_a_client_that_leaves_does_not_end_the_renewal_of_the_others() -> None:
    release = asyncio.Event()

    async def renew() -> Credential | None:
        await release.wait()
        return NEW

    renewal = asyncio.create_task(renew())
    leaver, stayer = Case(renewal), Case(renewal)
    for case in (leaver, stayer):
        case.receive(b"no", done=True)
    await asyncio.sleep(0)
    leaver.fake.tasks.pop().cancel()
    await asyncio.sleep(0)
    release.set()
    assert await stayer.settled() == [("replay", NEW)]
    assert leaver.happened == []


async def test_a_long_refusal_stops_being_read_while_a_token_is_awaited_and_is_read_on_when_passed_on() -> None:
    case = Case(brings(None))
    connection = case.fake.connection
    assert connection is not None
    case.receive(b"x" * INSPECT_MAX)
    assert connection.calls == []
    case.receive(b"x", first=False)
    assert connection.calls == ["pause"]
    assert await case.settled() == [("count", "passed_on"), ("relay", b"x" * (INSPECT_MAX + 1), False)]
    assert connection.calls == ["pause", "resume"]


async def test_an_upstream_that_leaves_while_a_token_is_awaited_does_not_matter_when_one_comes() -> None:
    case = Case(brings(NEW))
    case.receive(b"n")
    case.judge.lost(BROKEN)
    assert await case.settled() == [("replay", NEW)]


async def test_an_upstream_that_leaves_while_a_token_is_awaited_is_told_when_none_comes() -> None:
    case = Case(brings(None))
    case.receive(b"n")
    case.judge.lost(BROKEN)
    assert await case.settled() == [("count", "passed_on"), ("lost", BROKEN)]


async def test_a_small_body_is_judged_once_it_is_whole() -> None:
    case = Case(NEW, inspect=True)
    case.receive(REFUSED[:7])
    case.receive(REFUSED[7:], first=False)
    assert case.happened == []
    case.receive(done=True, first=False)
    assert case.happened == [("replay", NEW)]


async def test_a_body_that_is_no_rejection_goes_out_whole() -> None:
    case = Case(NEW, inspect=True)
    case.receive(b'{"resultCode":')
    case.receive(b'"0"}', done=True, first=False)
    assert case.happened == [("relay", b'{"resultCode":"0"}', True)]
    assert case.source.asked == []


async def test_a_body_beyond_what_is_inspected_goes_out_at_once() -> None:
    case = Case(NEW, inspect=True)
    case.receive(b"{" * INSPECT_MAX)
    assert case.happened == []
    case.receive(b"{", first=False)
    assert case.happened == [("relay", b"{" * (INSPECT_MAX + 1), False)]


async def test_a_body_that_may_be_a_stream_is_held_for_a_moment_only() -> None:
    case = Case(NEW, inspect=True)
    case.receive(b'{"items":[')
    assert await until(lambda: bool(case.happened), 1.0, "its release") < 0.5
    assert case.happened == [("relay", b'{"items":[', False)]


@pytest.mark.parametrize("piece", [b"[1,", b" \n [", b'"text', b"17", b"nul"])
async def test_a_stream_that_cannot_become_an_object_is_not_held_at_all(piece: bytes) -> None:
    case = Case(NEW, inspect=True)
    case.receive(piece)
    assert case.happened == [("relay", piece, False)]


async def test_a_body_of_known_length_is_no_stream_and_is_waited_for() -> None:
    case = Case(NEW, inspect=True, lines=b"Content-Length: %d\r\n" % len(REFUSED))
    case.receive(REFUSED[:7])
    await asyncio.sleep(0.4)
    assert case.happened == []
    case.receive(REFUSED[7:], done=True, first=False)
    assert case.happened == [("replay", NEW)]


async def test_an_upstream_that_leaves_in_the_middle_of_a_held_body_is_told() -> None:
    case = Case(NEW, inspect=True)
    case.receive(b"{")
    case.judge.lost(BROKEN)
    assert case.happened == [("lost", BROKEN)]
