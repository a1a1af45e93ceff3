"""Request heads, as literal bytes: what is read from them, and everything that is refused."""

import contextlib
import random
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.gateway import http1
from proxy.gateway.fields import MessageError
from proxy.gateway.http1 import RequestHead, find_head_end, parse_request

HEAD_LIMIT, TARGET_LIMIT = 4096, 1024
HOST = b"Host: a\r\n"


def read(data: bytes, *, target_limit: int = TARGET_LIMIT) -> RequestHead:
    end = find_head_end(data, 0, HEAD_LIMIT)
    assert end >= 0, "the head is not whole"
    return parse_request(data, end, target_limit)


def refused(data: bytes) -> int:
    with pytest.raises(MessageError) as caught:
        read(data)
    return caught.value.status


def with_lines(*lines: bytes, method: bytes = b"POST", version: bytes = b"1.1", host: bytes = HOST) -> bytes:
    return method + b" / HTTP/" + version + b"\r\n" + host + b"".join(line + b"\r\n" for line in lines) + b"\r\n"


@pytest.mark.parametrize(
    "line",
    [
        b"GET / HTTP/1.1",
        b"get / HTTP/1.1",
        b"X!#$%&'*+-.^_`|~ / HTTP/1.1",
        b'GET /a%00b?%zz&x=[]{}|"<>^`\\ HTTP/1.1',
        b"GET /caf\xc3\xa9 HTTP/1.1",
        b"GET //a//../b/./%2e%2E;x=1 HTTP/1.1",
        b"GET /?? HTTP/1.1",
    ],
)
def test_a_request_line_keeps_every_byte_of_method_and_target(line: bytes) -> None:
    head = read(line + b"\r\nHost: a\r\n\r\n")
    assert [head.method, head.target] == line.split(b" ")[:2]


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"GET",
        b"GET /",
        b"GET /  HTTP/1.1",
        b"GET  / HTTP/1.1",
        b" GET / HTTP/1.1",
        b"GET / HTTP/1.1 ",
        b"GET\t/ HTTP/1.1",
        b"GET / http/1.1",
        b"GET / HTTP/1",
        b"GET / HTTP/1.1.1",
        b"GET / HTTP/11.1",
        b"GET / HTTP/1.10",
        b"GET / ICY/1.1",
        b"GET /a b HTTP/1.1",
        b"GET /a\x00b HTTP/1.1",
        b"GET /a\x7fb HTTP/1.1",
        b"GET /a#b HTTP/1.1",
        b"GET a HTTP/1.1",
        b"GET ?a HTTP/1.1",
        b"GET * HTTP/1.1",
        b"G(T / HTTP/1.1",
        b"G\xc3\x89T / HTTP/1.1",
        b'"GET" / HTTP/1.1',
        b"GET ftp://a/ HTTP/1.1",
        b"GET http:/a HTTP/1.1",
        b"GET http:///a HTTP/1.1",
        b"GET http://u:p@a/ HTTP/1.1",
        b"GET http://a\\@b/ HTTP/1.1",
        b"GET http://a:99999999/ HTTP/1.1",
        b"GET javascript:alert HTTP/1.1",
        b"M" * 33 + b" / HTTP/1.1",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc",
    ],
)
def test_any_other_request_line_is_malformed(line: bytes) -> None:
    assert refused(line + b"\r\nHost: a\r\n\r\n") == 400


@pytest.mark.parametrize("version", [b"0.9", b"1.2", b"2.0", b"3.0", b"9.9"])
def test_only_http_1_0_and_1_1_are_spoken(version: bytes) -> None:
    assert refused(with_lines(version=version)) == 505


@pytest.mark.parametrize(
    ("target", "host", "rest"),
    [
        (b"http://b.example", b"b.example", b"/"),
        (b"HTTPS://b.example:8443", b"b.example:8443", b"/"),
        (b"http://b?x=http://c/", b"b", b"/?x=http://c/"),
        (b"http://[::1]:80/a/../b", b"[::1]:80", b"/a/../b"),
        (b"http://b//c", b"b", b"//c"),
    ],
)
def test_the_authority_of_an_absolute_target_stands_in_for_host(target: bytes, host: bytes, rest: bytes) -> None:
    head = read(b"GET " + target + b" HTTP/1.1\r\nHost: ignored\r\n\r\n")
    assert (head.host, head.target, head.path) == (host, rest, rest.partition(b"?")[0])


@pytest.mark.parametrize(
    ("request_line", "rest"),
    [
        (b"OPTIONS *", b"*"),
        (b"OPTIONS http://b.example", b"*"),
        (b"OPTIONS http://b.example/", b"/"),
        (b"OPTIONS http://b.example?x", b"/?x"),
        (b"GET http://b.example", b"/"),
    ],
)
def test_options_may_ask_about_the_server_as_a_whole(request_line: bytes, rest: bytes) -> None:
    head = read(request_line + b" HTTP/1.1\r\nHost: a\r\n\r\n")
    assert (head.target, head.path) == (rest, rest.partition(b"?")[0])


@pytest.mark.parametrize(
    "host", [b"", b"Host:\r\n", b"Host: a b\r\n", b"Host: a@b\r\n", b"Host: a/b\r\n", b"Host: a:b\r\n", b"Host: a#\r\n",
             b"Host: a\r\nHost: a\r\n", b"Host: a\r\nhost: b\r\n", b"Host: [::1\r\n", b"Host: a:1:2\r\n",
             b"Host: \xff\r\n", b"Host: a:123456\r\n"]
)  # fmt: skip
def test_host_is_exactly_one_valid_host(host: bytes) -> None:
    assert refused(with_lines(host=host)) == 400


def test_http_1_0_needs_no_host() -> None:
    assert read(with_lines(version=b"1.0", host=b"")).host == b""


@pytest.mark.parametrize(
    "line",
    [
        b" folded",
        b"\tfolded",
        b"A : x",
        b"A\t: x",
        b"A",
        b": x",
        b"A B: x",
        b"A\x00: x",
        b"\xc3\xa9: x",
        b"(A): x",
        b"A: x\x00y",
        b"A: x\x0by",
        b"A: x\x1by",
        b"A: x\x7fy",
        b"A: x\ry",
        b"A: x\ny",
        b"A: x\r\n y",
        b"A: x\n",
        b"\nA: x",
        b"A: x\r",
    ],
)
def test_forbidden_bytes_in_a_field_are_refused_and_never_repaired(line: bytes) -> None:
    assert refused(with_lines(line)) == 400


def test_field_lines_stay_the_bytes_they_were_in_number_and_order() -> None:
    lines = [b"A:1", b"a: \t 2 ", b"A:", b"B: \xff\xfe \xc3\xa9", b"A:  3", b"X_y.~|`^'*!#$%&+-9: ;"]
    head = read(with_lines(*lines))
    assert [line for line, _ in head.fields] == [b"Host: a\r\n", *(line + b"\r\n" for line in lines)]


FRAMING_REFUSED = [
    [b"Content-Length: 5", b"Transfer-Encoding: chunked"],
    [b"Transfer-Encoding: chunked", b"content-length: 0"],
    [b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"],
    [b"Transfer-Encoding: chunked, chunked"],
    [b"Transfer-Encoding: gzip, chunked"],
    [b"Transfer-Encoding: chunked, identity"],
    [b"Transfer-Encoding: identity"],
    [b"Transfer-Encoding: gzip"],
    [b"Transfer-Encoding:"],
    [b"Transfer-Encoding: xchunked"],
    [b"Transfer-Encoding: chunked;q=1"],
    [b"Transfer-Encoding: \x0bchunked"],
    [b"Transfer-Encoding: chunked,"],
    [b'Transfer-Encoding: "chunked"'],
    [b"Transfer-Encoding : chunked"],
    [b"Transfer-Encoding: chun\xe1\xb8\xb1ed"],
    [b"Content-Length: 5", b"Content-Length: 5"],
    [b"Content-Length: 5", b"content-length: 6"],
    [b"Content-Length: 5, 5"],
    [b"Content-Length: +5"],
    [b"Content-Length: -5"],
    [b"Content-Length: 5.0"],
    [b"Content-Length: 0x5"],
    [b"Content-Length: 5 5"],
    [b"Content-Length: 5;"],
    [b"Content-Length: 1_0"],
    [b"Content-Length: \xd9\xa5"],
    [b"Content-Length:"],
    [b"Content-Length: five"],
    [b"Content-Length: 9999999999999999999"],
]


@pytest.mark.parametrize("lines", FRAMING_REFUSED)
@pytest.mark.parametrize(("version", "host"), [(b"1.1", HOST), (b"1.0", HOST), (b"1.0", b"")])
def test_an_ambiguous_body_length_is_refused(lines: list[bytes], version: bytes, host: bytes) -> None:
    assert refused(with_lines(*lines, version=version, host=host)) == 400


@pytest.mark.parametrize("host", [HOST, b""])
def test_http_1_0_knows_no_transfer_coding(host: bytes) -> None:
    assert refused(with_lines(b"Transfer-Encoding: chunked", version=b"1.0", host=host)) == 400


@pytest.mark.parametrize(("line", "length"), [(b"Content-Length: 5", 5), (b"content-length:\t007 ", 7)])
@pytest.mark.parametrize(("version", "host"), [(b"1.1", HOST), (b"1.0", HOST), (b"1.0", b"")])
def test_a_plain_length_is_read_whatever_else_the_head_has(
    line: bytes, length: int, version: bytes, host: bytes
) -> None:
    head = read(with_lines(line, version=version, host=host))
    assert (head.length, head.chunked) == (length, False)


@pytest.mark.parametrize("line", [b"Transfer-Encoding: chunked", b"tRANSFER-eNCODING:\tCHUNKED "])
def test_chunked_is_the_one_transfer_coding(line: bytes) -> None:
    head = read(with_lines(line))
    assert (head.length, head.chunked) == (None, True)


@pytest.mark.parametrize(
    ("version", "lines", "keep_alive"),
    [
        (b"1.1", [], True),
        (b"1.1", [b"Connection: keep-alive"], True),
        (b"1.1", [b"Connection: close"], False),
        (b"1.1", [b"Connection: x", b"connection: y , CLOSE,"], False),
        (b"1.0", [], False),
        (b"1.0", [b"Connection: keep-alive"], False),
    ],
)
def test_the_connection_stays_only_where_both_sides_know_how(
    version: bytes, lines: list[bytes], keep_alive: bool
) -> None:
    assert read(with_lines(*lines, version=version)).keep_alive is keep_alive


def test_what_connection_names_is_gathered_from_all_its_lines() -> None:
    head = read(with_lines(b"Connection: A, b", b"connection: ,C ,"))
    assert head.options == {b"a", b"b", b"c"}


@pytest.mark.parametrize("value", [b"200-ok", b"100-continue, x", b"", b"100-continue;q=1", b"100"])
def test_other_expectations_fail(value: bytes) -> None:
    assert refused(with_lines(b"Expect: " + value)) == 417


@pytest.mark.parametrize(
    ("version", "lines", "expects"),
    [
        (b"1.1", [b"Expect: 100-Continue", b"Content-Length: 1"], True),
        (b"1.1", [b"Expect: 100-continue", b"Transfer-Encoding: chunked"], True),
        (b"1.1", [b"Expect: 100-continue", b"Content-Length: 0"], False),
        (b"1.1", [b"Expect: 100-continue"], False),
        (b"1.0", [b"Expect: 100-continue", b"Content-Length: 1"], False),
    ],
)
def test_only_who_has_a_body_and_speaks_1_1_waits_for_100(version: bytes, lines: list[bytes], expects: bool) -> None:
    assert read(with_lines(*lines, version=version)).expects_continue is expects


@pytest.mark.parametrize(
    ("version", "lines", "upgrade"),
    [
        (b"1.1", [b"Connection: Upgrade", b"Upgrade: websocket"], b"websocket"),
        (b"1.1", [b"Connection: keep-alive, upgrade", b"Upgrade: a", b"Upgrade: b"], b"a,b"),
        (b"1.1", [b"Upgrade: websocket"], b""),
        (b"1.1", [b"Connection: Upgrade"], b""),
        (b"1.0", [b"Connection: Upgrade", b"Upgrade: websocket"], b""),
    ],
)
def test_upgrade_counts_only_in_1_1_and_when_connection_names_it(
    version: bytes, lines: list[bytes], upgrade: bytes
) -> None:
    assert read(with_lines(*lines, version=version)).upgrade == upgrade


def test_sizes_have_limits_with_a_status_each() -> None:
    assert refused(b"GET /" + b"a" * TARGET_LIMIT + b" HTTP/1.1\r\nHost: a\r\n\r\n") == 414
    assert refused(with_lines(b"A: " + b"x" * HEAD_LIMIT)) == 431
    assert refused(with_lines(*([b"A:"] * 600))) == 431


def test_a_target_beyond_all_limits_is_414_however_it_arrives() -> None:
    data = b"GET /" + b"a" * (2 * HEAD_LIMIT) + b" HTTP/1.1\r\nHost: a\r\n\r\n"
    assert refused_in_pieces(data, [len(data)]) == 414
    assert refused_in_pieces(data, [*range(100, len(data), 100), len(data)]) == 414


def refused_in_pieces(data: bytes, ends: list[int]) -> int:
    """The status when so much of data has arrived, then so much, … as the inbound connection asks."""
    seen = 0
    try:
        for arrived in ends:
            end = find_head_end(data[:arrived], seen, HEAD_LIMIT, TARGET_LIMIT)
            if end >= 0:
                parse_request(data[:arrived], end, TARGET_LIMIT)
                return 0
            seen = arrived
    except MessageError as error:
        return error.status
    return -1


HEADS = st.lists(
    st.sampled_from(
        [
            b"GET",
            b" ",
            b"/",
            b"HTTP/1.1",
            b"\r\n",
            b"\r",
            b"\n",
            b"Host: a",
            b":",
            b"Content-Length: 5",
            b"A: x",
            b"\r\n\r\n",
        ]
    ),
    max_size=14,
).map(b"".join)


@settings(max_examples=400, deadline=None, derandomize=True)
@given(data=st.one_of(HEADS, HEADS.map(lambda junk: b"GET / HTTP/1.1\r\nHost: a\r\n" + junk)), pick=st.randoms())
def test_where_the_bytes_are_split_never_changes_the_verdict(data: bytes, pick: random.Random) -> None:
    whole = refused_in_pieces(data, [len(data)])
    cuts = sorted(pick.sample(range(len(data)), min(4, len(data))))
    in_pieces = refused_in_pieces(data, [*cuts, len(data)])
    single = refused_in_pieces(data, list(range(1, len(data) + 1)))
    assert in_pieces == whole
    assert single == whole


@pytest.mark.parametrize(
    "junk", [b"a" * 60_000, b"A: " + b"b" * 30_000 + b"\x00" + b"b" * 30_000, b"\x00" * 60_000, b"a:" * 30_000]
)
def test_no_head_costs_more_than_linear_time(junk: bytes) -> None:
    data = b"GET / HTTP/1.1\r\nHost: a\r\n" + junk + b"\r\n\r\n"
    begun = time.process_time()
    with contextlib.suppress(MessageError):
        parse_request(data, find_head_end(data, 0, 2**16), TARGET_LIMIT)
    assert time.process_time() - begun < 0.5  # milliseconds; it was 24 s


def test_the_memory_for_names_is_bounded_in_bytes_too() -> None:
    for number in range(3000):
        read(with_lines(b"%b%d: x" % (b"n" * 2000, number)))
    assert sum(map(len, http1._request_memory)) < 512 * 1024


def test_words_never_quote_what_was_sent() -> None:
    secret = b"hunter2"
    requests = [
        b"GET /" + secret + b" HTTP/3.0\r\n\r\n",
        secret + b"\r\n\r\n",
        with_lines(b"A\x00: " + secret),
        with_lines(host=b"Host: u:" + secret + b"@a\r\n"),
        with_lines(b"Content-Length: " + secret),
        with_lines(b"Transfer-Encoding: " + secret),
        with_lines(b"Expect: " + secret),
        b"GET http://u:" + secret + b"@a/ HTTP/1.1\r\nHost: a\r\n\r\n",
    ]
    for request in requests:
        with pytest.raises(MessageError) as caught:
            read(request)
        assert "hunter2" not in repr(caught.value) + str(caught.value.__context__)
