"""Messages that are nearly right, for hypothesis: good ones, changed in a few places, sent in any pieces."""

import os
from collections.abc import Sequence

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

SOAK = 10 if os.environ.get("SOAK") else 1
"""Multiplies the number of examples in a long run (``make soak``)."""

CUTS: st.SearchStrategy[list[int]] = st.one_of(st.just([]), st.lists(st.integers(0, 300), max_size=4))
"""Where a stream is cut into pieces."""


def examples(count: int) -> settings:
    """So many examples, times SOAK; the same ones at each run."""
    every = list(HealthCheck)
    return settings(max_examples=count * SOAK, deadline=None, derandomize=True, suppress_health_check=every)


def cut(data: bytes, places: Sequence[int]) -> list[bytes]:
    """The pieces of a stream."""
    at = sorted({min(place, len(data)) for place in places})
    return [data[left:right] for left, right in zip([0, *at], [*at, len(data)], strict=True)]


@st.composite
def bodies(draw: st.DrawFn, evil: bytes) -> bytes:
    """A message's body; some look like another message."""
    return draw(st.one_of(st.just(b""), st.just(evil), st.binary(max_size=40), st.just(b"0\r\n\r\n")))


@st.composite
def chunked(draw: st.DrawFn, evil: bytes) -> bytes:
    """A body in chunks, with its extensions and trailers."""
    body = draw(bodies(evil))
    pieces = cut(body, draw(st.lists(st.integers(0, len(body)), max_size=3)))
    extension = draw(st.sampled_from([b"", b";x", b' ;x="y"', b";"]))
    zeros = draw(st.sampled_from([b"", b"0", b"000"]))
    out = b"".join(b"%b%x%b\r\n%b\r\n" % (zeros, len(piece), extension, piece) for piece in pieces if piece)
    trailers = draw(st.sampled_from([b"", b"X-T: 1\r\n", b"Content-Length: 9\r\nHost: evil\r\nSet-Cookie: evil\r\n"]))
    return out + zeros + b"0" + extension + b"\r\n" + trailers + b"\r\n"


@st.composite
def mutated(
    draw: st.DrawFn, good: st.SearchStrategy[bytes], lines: st.SearchStrategy[bytes], odd: st.SearchStrategy[bytes]
) -> bytes:
    """``good``, changed in up to four places: a line more, odd bytes more or instead, some missing, or the end."""
    data = draw(good)
    for _ in range(draw(st.integers(0, 4))):
        kind, at = draw(st.integers(0, 4)), draw(st.integers(0, len(data)))
        if kind == 0:
            ends = [place for place in range(len(data)) if data.startswith(b"\r\n", place)]
            at = draw(st.sampled_from(ends)) if ends else 0
            data = data[:at] + b"\r\n" + draw(lines) + data[at:]
        elif kind == 1:
            data = data[:at] + draw(odd) + data[at:]
        elif kind == 2:
            data = data[:at] + draw(odd) + data[at + 1 :]
        elif kind == 3:
            data = data[:at] + data[at + draw(st.integers(1, 8)) :]
        else:
            data = data[:at]
    return data
