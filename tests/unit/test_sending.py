"""The request body on its way out: what is written, what is kept, and when it can be sent again."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.gateway.http1 import RequestHead, parse_request
from proxy.gateway.sending import SendingBody

LIMIT = 10


def head(lines: bytes) -> RequestHead:
    data = b"POST / HTTP/1.1\r\nHost: x\r\n%b\r\n" % lines
    return parse_request(data, len(data) - 4, 1024)


def sized(length: int, *, expect: bool = False) -> SendingBody:
    lines = b"Content-Length: %d\r\n" % length + (b"Expect: 100-continue\r\n" if expect else b"")
    return SendingBody(head(lines), LIMIT)


def chunked(*, expect: bool = False) -> SendingBody:
    lines = b"Transfer-Encoding: chunked\r\n" + (b"Expect: 100-continue\r\n" if expect else b"")
    return SendingBody(head(lines), LIMIT)


def add(body: SendingBody, data: bytes, *, done: bool = False, connected: bool = True) -> bytes:
    return body.add([data] if data else [], [], done=done, connected=connected)


@pytest.mark.parametrize("lines", [b"", b"Content-Length: 0\r\n"])
def test_a_request_without_a_body_is_done_at_once_and_can_be_sent_again(lines: bytes) -> None:
    body = SendingBody(head(lines), LIMIT)
    assert (body.done, body.replayable, body.first(), body.first()) == (True, True, b"", b"")


def test_what_came_before_the_connection_is_written_once_it_is_there() -> None:
    body = sized(6)
    assert add(body, b"abc", connected=False) == b""
    assert body.first() == b"abc"
    assert add(body, b"def", done=True) == b"def"


def test_a_small_body_can_be_sent_again_whole() -> None:
    body = sized(6)
    body.first()
    assert add(body, b"abc") + add(body, b"def", done=True) == b"abcdef"
    assert body.replayable
    assert body.first() == b"abcdef"
    assert body.first() == b"abcdef"


def test_a_body_that_is_sent_again_half_way_goes_on_where_it_was() -> None:
    body = sized(6)
    body.first()
    add(body, b"abc")
    assert body.first() == b"abc"
    assert add(body, b"def", done=True) == b"def"


def test_a_body_of_exactly_the_limit_can_be_sent_again_and_one_byte_more_cannot() -> None:
    for length, replayable in ((LIMIT, True), (LIMIT + 1, False)):
        body = sized(length)
        assert body.replayable is replayable
        body.first()
        assert add(body, b"x" * length, done=True) == b"x" * length
        assert body.replayable is replayable
        assert body.kept == (length if replayable else 0)


def test_a_chunked_body_is_kept_until_it_exceeds_the_limit() -> None:
    body = chunked()
    body.first()
    add(body, b"x" * LIMIT)
    assert body.replayable
    assert body.kept == LIMIT
    assert add(body, b"y") == b"1\r\ny\r\n"
    assert not body.replayable
    assert body.kept == 0
    assert body.size == LIMIT + 1


def test_a_chunked_body_is_sent_again_as_the_same_bytes_with_its_end() -> None:
    body = chunked()
    assert add(body, b"ab", connected=False) == b""
    assert body.first() == b"2\r\nab\r\n"
    assert add(body, b"cd", done=True) == b"2\r\ncd\r\n0\r\n\r\n"
    assert body.first() == b"4\r\nabcd\r\n0\r\n\r\n"


def test_an_empty_chunked_body_has_its_end_whenever_it_came() -> None:
    early, late = chunked(), chunked()
    add(early, b"", done=True, connected=False)
    assert early.first() == b"0\r\n\r\n"
    assert late.first() == b""
    assert add(late, b"", done=True) == b"0\r\n\r\n"


def test_trailers_follow_the_last_chunk_without_what_may_never_be_one() -> None:
    body = chunked()
    trailers = [(b"Digest: x\r\n", b"Digest"), (b"Authorization: y\r\n", b"Authorization")]
    assert body.add([b"a"], trailers, done=True, connected=True) == b"1\r\na\r\n0\r\nDigest: x\r\n\r\n"


@pytest.mark.parametrize("body", [sized(1_000_000, expect=True), chunked(expect=True)])
def test_with_an_expectation_any_size_can_be_sent_again_before_its_first_byte(body: SendingBody) -> None:
    assert body.replayable
    assert body.first() == b""
    assert body.replayable


def test_after_the_go_ahead_a_large_body_cannot_be_sent_again() -> None:
    body = sized(100, expect=True)
    body.first()
    add(body, b"x" * 20)
    assert not body.replayable


def test_an_impatient_clients_bytes_are_held_back_and_written_later() -> None:
    body = sized(30, expect=True)
    body.first()
    assert add(body, b"x" * 20, connected=False) == b""
    assert body.replayable
    assert body.overdue() == b"x" * 20
    assert not body.replayable
    assert body.overdue() == b""
    assert add(body, b"y" * 10, done=True) == b"y" * 10


def test_nothing_is_overdue_when_nothing_was_held_back() -> None:
    body = sized(6)
    body.first()
    add(body, b"abc")
    assert body.overdue() == b""


def test_a_large_body_that_waits_for_a_connection_is_written_once_and_forgotten() -> None:
    body = sized(30)
    add(body, b"x" * 20, connected=False)
    assert body.kept == 20
    assert not body.replayable
    assert body.first() == b"x" * 20
    assert body.kept == 0


@given(
    pieces=st.lists(st.binary(min_size=1, max_size=6), max_size=6),
    connected_after=st.integers(min_value=0, max_value=6),
    replay_after=st.integers(min_value=0, max_value=6),
)
def test_every_attempt_gets_the_whole_body(pieces: list[bytes], connected_after: int, replay_after: int) -> None:
    whole = b"".join(pieces)
    body = SendingBody(head(b"Content-Length: %d\r\n" % len(whole)), 1000)
    wires = [b""]
    for number, piece in enumerate(pieces):
        if number == connected_after:
            wires[-1] += body.first()
        if number == replay_after and number > connected_after:
            wires.append(body.first())
        wires[-1] += add(body, piece, done=number == len(pieces) - 1, connected=number >= connected_after)
    if connected_after >= len(pieces):
        wires[-1] += body.first()
    assert wires[-1] == whole
    assert whole.startswith(wires[0])
