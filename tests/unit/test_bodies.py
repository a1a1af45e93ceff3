"""Bodies, as literal bytes: the same pieces wherever the stream is split, and everything that is refused."""

import random
import re
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.gateway.bodies import BodyReader, ChunkedReader, EofReader, LengthReader, encode_chunk
from proxy.gateway.fields import MessageError


class Outcome:
    """What a reader makes of a stream that comes in these pieces."""

    def __init__(self, reader: BodyReader, *pieces: bytes) -> None:
        self.body, self.rest, self.words = b"", b"", ""
        try:
            for piece in pieces:
                if reader.done:
                    self.rest += piece
                else:
                    self.body += b"".join(reader.feed(piece))
                    while reader.more:
                        self.body += b"".join(reader.feed(b""))
                    self.rest = reader.rest
        except MessageError as error:
            self.body, self.words = b"", error.words
        self.done = reader.done
        self.trailers = [line for line, _ in reader.trailers]

    def __repr__(self) -> str:
        return repr(vars(self))


def chunked(*pieces: bytes) -> Outcome:
    return Outcome(ChunkedReader(), *pieces)


@pytest.mark.parametrize(
    ("stream", "body", "rest", "trailers"),
    [
        (b"0\r\n\r\n", b"", b"", []),
        (b"3\r\nabc\r\n0\r\n\r\n", b"abc", b"", []),
        (b"003\r\nabc\r\n00\r\n\r\nGET /", b"abc", b"GET /", []),
        (b"A\r\n0123456789\r\na\r\n0123456789\r\n0\r\n\r\n", b"01234567890123456789", b"", []),
        (b"2\r\n\r\n\r\n0\r\n\r\n", b"\r\n", b"", []),
        (b'1;a=b;c="d"\r\nx\r\n0;e\r\n\r\n', b"x", b"", []),
        (b"1 \t;a\r\nx\r\n0\r\n\r\n", b"x", b"", []),
        (b"0\r\nA: 1\r\nB:\r\n\r\nrest", b"", b"rest", [b"A: 1\r\n", b"B:\r\n"]),
    ],
)
def test_a_chunked_body_is_read_to_its_end_and_no_further(
    stream: bytes, body: bytes, rest: bytes, trailers: list[bytes]
) -> None:
    found = chunked(stream)
    assert (found.body, found.rest, found.trailers, found.done) == (body, rest, trailers, True)


@pytest.mark.parametrize(
    "stream",
    [
        b"\r\n",
        b" 3\r\nabc\r\n0\r\n\r\n",
        b"3 \r\nabc\r\n0\r\n\r\n",
        b"+3\r\nabc\r\n0\r\n\r\n",
        b"-3\r\nabc\r\n0\r\n\r\n",
        b"0x3\r\nabc\r\n0\r\n\r\n",
        b"3_0\r\nabc\r\n0\r\n\r\n",
        b"g\r\nabc\r\n0\r\n\r\n",
        b"\xd9\xa3\r\nabc\r\n0\r\n\r\n",
        b"3,\r\nabc\r\n0\r\n\r\n",
        b"FFFFFFFFFFFFFFFF\r\nabc",
        b"0000000000000003\r\nabc\r\n0\r\n\r\n",
        b"3\nabc\n0\n\n",
        b"3\nabc\r\n0\r\n\r\n",
        b"3\rabc\r\n0\r\n\r\n",
        b"3;a\x00b\r\nabc\r\n0\r\n\r\n",
        b"3;a\nb\r\nabc\r\n0\r\n\r\n",
        b"3;a\r\rb\r\nabc\r\n0\r\n\r\n",
        b"3\r\nabcd\r\n0\r\n\r\n",
        b"3\r\nab\r\n0\r\n\r\n",
        b"3\r\nabc\n0\r\n\r\n",
        b"3\r\nabc\r0\r\n\r\n",
        b"3\r\nabc0\r\n\r\n",
        b"0\r\nA : 1\r\n\r\n",
        b"0\r\n A: 1\r\n\r\n",
        b"0\r\nA: 1\r\n B\r\n\r\n",
        b"0\r\nA: \x00\r\n\r\n",
        b"0\r\nA\r\n\r\n",
        b"0\r\nA: 1\nB: 2\r\n\r\n",
        b"0\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
    ],
)
def test_what_is_not_exactly_chunked_is_refused(stream: bytes) -> None:
    assert chunked(stream).words
    assert chunked(*(stream[at : at + 1] for at in range(len(stream)))).words


@pytest.mark.parametrize(
    "stream",
    [
        b"1;" + b"a" * 5000 + b"\r\nx\r\n0\r\n\r\n",
        b"1;" + b"a" * 5000,
        b"0" * 5000,
        (b"1;" + b"a" * 90 + b"\r\nx\r\n") * 200,
        b"000000000000001\r\nx\r\n" * 7000,
        b"0\r\n" + b"A: " + b"a" * 17000 + b"\r\n\r\n",
        b"0\r\n" + b"A: 1\r\n" * 4000,
    ],
)
def test_extensions_and_trailers_are_bounded(stream: bytes) -> None:
    assert chunked(stream).words


def test_a_stream_of_single_characters_is_never_all_framing() -> None:
    """Two hundred thousand of them; and a server that pads its sizes to four digits, as some do, is in order too."""
    assert chunked(*[b"1\r\nx\r\n" * 1000] * 200, b"0\r\n\r\n").body == b"x" * 200_000
    assert chunked(*[b"0001\r\nx\r\n" * 1000] * 20, b"0\r\n\r\n").body == b"x" * 20_000
    assert chunked(*[b"00000010\r\n0123456789abcdef\r\n" * 1000] * 20, b"0\r\n\r\n").done


@pytest.mark.parametrize("chunk", [b"1\r\nx\r\n", b"00001\r\nx\r\n", b"1\r\nx\r\n00010\r\n" + b"y" * 16 + b"\r\n"])
def test_one_read_full_of_tiny_chunks_is_read_in_many_goes(chunk: bytes) -> None:
    reader, stream = ChunkedReader(), chunk * (250_000 // len(chunk)) + b"0\r\nA: b\r\n\r\nrest"
    goes = [reader.feed(stream)]
    while reader.more:
        goes.append(reader.feed(b""))
    assert max(map(len, goes)) <= 257
    assert len(goes) > 40
    expected = b"".join(re.findall(rb"[xy]+", stream))
    assert (b"".join(map(b"".join, goes)), reader.done, reader.rest) == (expected, True, b"rest")
    assert [line for line, _ in reader.trailers] == [b"A: b\r\n"]


def test_what_comes_between_two_goes_is_read_after_them() -> None:
    reader = ChunkedReader()
    pieces = reader.feed(b"1\r\nx\r\n" * 300)
    assert reader.more
    pieces += reader.feed(b"1\r\ny\r\n" * 300)
    while reader.more:
        pieces += reader.feed(b"")
    assert b"".join(pieces) == b"x" * 300 + b"y" * 300


def test_a_size_line_of_exactly_the_limit_passes_however_it_is_split() -> None:
    line = b"1;" + b"a" * 4094
    for parts in ((line + b"\r\nx\r\n0\r\n\r\n",), (line + b"\r", b"\nx\r\n0\r\n\r\n"), (line, b"\r\nx\r\n0\r\n\r\n")):
        assert chunked(*parts).body == b"x"


@pytest.mark.parametrize(
    "stream", [b"", b"3", b"3\r", b"3\r\n", b"3\r\nab", b"3\r\nabc\r", b"0\r\n", b"0\r\n\r", b"0\r\nA: b\r\n"]
)
def test_an_unfinished_body_is_not_whole_when_the_connection_ends(stream: bytes) -> None:
    reader = ChunkedReader()
    assert not Outcome(reader, stream).words
    assert not reader.eof()


STREAMS = st.one_of(
    st.lists(
        st.sampled_from(
            [b"0", b"3", b"\r\n", b"\r", b"\n", b"abc", b";x", b" ", b"A: 1", b"A", b"0\r\n\r\n", b"3\r\nabc\r\n"]
        ),
        max_size=12,
    ).map(b"".join),
    st.tuples(
        st.lists(st.binary(min_size=1, max_size=30), max_size=4).map(
            lambda parts: b"".join(encode_chunk([part]) for part in parts)
        ),
        st.sampled_from([b"0\r\n\r\n", b"0\r\nA: 1\r\n\r\n", b"0\r\n\r\nGET / HTTP/1.1\r\n", b"", b"x"]),
    ).map(b"".join),
)


def test_feeding_nothing_between_a_chunk_and_its_end_changes_nothing() -> None:
    assert chunked(b"3\r\nabc", b"", b"\r", b"", b"\n0\r\n\r\n").body == b"abc"


@settings(max_examples=500, deadline=None, derandomize=True)
@given(stream=STREAMS, pick=st.randoms())
def test_where_the_stream_is_split_never_changes_what_is_read(stream: bytes, pick: random.Random) -> None:
    cuts = [0, *sorted(pick.sample(range(len(stream) + 1), min(3, len(stream)))), len(stream)]
    in_pieces = chunked(*(stream[left:right] for left, right in pairwise(cuts)))
    single = chunked(*(stream[at : at + 1] for at in range(len(stream))))
    whole = chunked(stream)
    assert [bool(found.words) for found in (in_pieces, single)] == [bool(whole.words)] * 2
    if not whole.words:
        assert vars(in_pieces) == vars(whole)
        assert vars(single) == vars(whole)


@given(parts=st.lists(st.binary(min_size=1, max_size=50), max_size=6), rest=st.binary(max_size=10))
def test_what_is_encoded_reads_back(parts: list[bytes], rest: bytes) -> None:
    found = chunked(b"".join(encode_chunk([part]) for part in parts) + encode_chunk([]) + b"0\r\n\r\n" + rest)
    assert (found.body, found.rest, found.done) == (b"".join(parts), rest, True)


@given(body=st.binary(max_size=60), rest=st.binary(max_size=20), cut=st.integers(0, 80))
def test_a_body_of_known_length_ends_there(body: bytes, rest: bytes, cut: int) -> None:
    stream = body + rest
    found = Outcome(LengthReader(len(body)), stream[:cut], stream[cut:])
    assert (found.body, found.rest, found.done) == (body, rest, True)


def test_a_body_of_known_length_is_not_whole_before_that() -> None:
    reader = LengthReader(3)
    assert reader.feed(b"ab") == [b"ab"]
    assert not reader.eof()


def test_a_body_without_a_length_ends_with_the_connection() -> None:
    reader = EofReader()
    assert reader.feed(b"ab") == [b"ab"]
    assert not reader.done
    assert reader.eof()
