"""Which answers say "bad token", and which of them cannot be told by their head."""

import gzip
import json
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.gateway.http1 import ResponseHead, parse_response
from proxy.gateway.rejection import INSPECT_MAX, Look, RejectionRules, is_event_stream

RULES = RejectionRules([401, 403], ["99999:403"])
REFUSED = b'{"resultCode": "99999:403", "localeMessage": "none"}'
JSON = b"Content-Type: application/json\r\n"


def head(lines: bytes = b"", status: int = 200, method: bytes = b"GET") -> ResponseHead:
    data = b"HTTP/1.1 %d Words\r\n%b\r\n" % (status, lines)
    return parse_response(data, len(data) - 4, method)


@pytest.mark.parametrize("status", [401, 403])
def test_a_configured_status_is_a_rejection_whatever_the_body(status: int) -> None:
    assert RULES.first_look(head(status=status)) is Look.REJECTED
    assert RULES.first_look(head(JSON + b"Content-Length: 999999\r\n", status=status)) is Look.REJECTED
    assert RULES.first_look(head(status=status, method=b"HEAD")) is Look.REJECTED


@pytest.mark.parametrize("status", [200, 302, 400, 404, 407, 500, 503])
def test_any_other_status_alone_is_none(status: int) -> None:
    assert RULES.first_look(head(status=status)) is Look.CLEAR


@pytest.mark.parametrize(
    "content_type",
    [
        b"application/json",
        b"Application/JSON",
        b"application/json;charset=utf-8",
        b"application/json ; charset=utf-8",
        b"application/problem+json",
        b"application/vnd.nagra.v1+json; q=1",
    ],
)
def test_a_small_json_body_is_suspect(content_type: bytes) -> None:
    assert RULES.first_look(head(b"Content-Type: %b\r\nContent-Length: 60\r\n" % content_type)) is Look.SUSPECT


@pytest.mark.parametrize("status", [200, 201, 400, 500])
def test_a_body_is_looked_at_with_any_status(status: int) -> None:
    assert RULES.first_look(head(JSON + b"Content-Length: 60\r\n", status=status)) is Look.SUSPECT


@pytest.mark.parametrize(
    "lines",
    [
        b"",
        b"Content-Length: 60\r\n",
        b"Content-Type: text/html\r\nContent-Length: 60\r\n",
        b"Content-Type: text/event-stream\r\n",
        b"Content-Type: application/x-ndjson\r\n",
        b"Content-Type: application/jsonp\r\n",
        b"Content-Type: text/plain; x=application/json\r\n",
        JSON + b"Content-Length: 0\r\n",
        JSON + b"Content-Length: %d\r\n" % (INSPECT_MAX + 1),
    ],
)
def test_an_answer_whose_head_rules_out_a_small_json_body_is_clear(lines: bytes) -> None:
    assert RULES.first_look(head(lines)) is Look.CLEAR


def test_the_largest_body_that_is_looked_at_has_64_kib() -> None:
    assert RULES.first_look(head(JSON + b"Content-Length: %d\r\n" % INSPECT_MAX)) is Look.SUSPECT
    assert INSPECT_MAX == 64 * 1024


def test_json_of_unknown_length_is_suspect() -> None:
    assert RULES.first_look(head(JSON + b"Transfer-Encoding: chunked\r\n")) is Look.SUSPECT
    assert RULES.first_look(head(JSON)) is Look.SUSPECT


@pytest.mark.parametrize(("status", "method"), [(200, b"HEAD"), (204, b"GET"), (304, b"GET")])
def test_an_answer_that_has_no_body_is_clear(status: int, method: bytes) -> None:
    assert RULES.first_look(head(JSON + b"Content-Length: 60\r\n", status, method)) is Look.CLEAR


def test_without_result_codes_no_body_is_looked_at() -> None:
    assert RejectionRules([401], []).first_look(head(JSON + b"Content-Length: 60\r\n")) is Look.CLEAR


@pytest.mark.parametrize(
    "body",
    [
        REFUSED,
        b'{"resultCode":"99999:403"}',
        b'  \n{"a":{"resultCode":"0"},"resultCode" : "99999:403"}\n',
        b'{"resultCode":"99999\\u003a403"}',
        b'{"\\u0072esultCode":"99999:403"}',
        b'\xef\xbb\xbf{"resultCode":"99999:403"}',
        b'{"resultCode":"0","resultCode":"99999:403"}',
    ],
)
def test_a_top_level_result_code_of_ours_is_a_rejection(body: bytes) -> None:
    assert RULES.says_rejected(head(JSON), body)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"null",
        b'"99999:403"',
        b'["99999:403"]',
        b'[{"resultCode":"99999:403"}]',
        b'{"resultCode":"0"}',
        b'{"resultCode":"0","message":"not 99999:403"}',
        b'{"result":{"resultCode":"99999:403"}}',
        b'{"ResultCode":"99999:403"}',
        b'{"resultCode":["99999:403"]}',
        b'{"resultCode":{"99999:403":1}}',
        b'{"resultCode":null,"x":"99999:403"}',
        b'{"resultCode":" 99999:403"}',
        b'{"resultCode":"99999:403"',
        b'{"resultCode":"99999:403"} trailing',
        b'{"resultCode":"99999:403"}'[:-1] + b"\xff}",
        b"\xff\xfe99999:403",
        b"<html>99999:403</html>",
        b'{"resultCode":"99999:403","x":' + b"[" * 60_000,
        b'{"resultCode":"99999:403","x":' + b"9" * 60_000 + b"}",
    ],
)
def test_anything_else_is_none_and_raises_nothing(body: bytes) -> None:
    assert not RULES.says_rejected(head(JSON), body)


def test_a_code_written_as_a_number_counts_and_a_boolean_does_not() -> None:
    rules = RejectionRules([], ["403", "True", "1"])
    assert rules.says_rejected(head(JSON), b'{"resultCode":403}')
    assert not rules.says_rejected(head(JSON), b'{"resultCode":true, "x": 1}')
    assert not rules.says_rejected(head(JSON), b'{"resultCode":403.0}')


@pytest.mark.parametrize(
    ("coding", "body"),
    [
        (b"gzip", gzip.compress(REFUSED)),
        (b"GZIP", gzip.compress(REFUSED)),
        (b"x-gzip", gzip.compress(REFUSED)),
        (b"deflate", zlib.compress(REFUSED)),
        (b"identity", REFUSED),
    ],
)
def test_a_compressed_body_is_read(coding: bytes, body: bytes) -> None:
    assert RULES.says_rejected(head(JSON + b"Content-Encoding: %b\r\n" % coding), body)


@pytest.mark.parametrize(
    ("coding", "body"),
    [
        (b"gzip", REFUSED),
        (b"gzip", gzip.compress(REFUSED)[:-3]),
        (b"gzip", b""),
        (b"br", REFUSED),
        (b"zstd", REFUSED),
        (b"gzip, gzip", gzip.compress(gzip.compress(REFUSED))),
        (b"gzip", gzip.compress(b'{"resultCode":"99999:403","x":"' + b"0" * INSPECT_MAX + b'"}')),
    ],
)
def test_a_compressed_body_that_cannot_be_read_within_the_bound_is_not_judged(coding: bytes, body: bytes) -> None:
    assert not RULES.says_rejected(head(JSON + b"Content-Encoding: %b\r\n" % coding), body)


def test_codings_in_two_fields_are_not_read_as_one() -> None:
    lines = JSON + b"Content-Encoding: gzip\r\nContent-Encoding: br\r\n"
    assert not RULES.says_rejected(head(lines), gzip.compress(REFUSED))


@given(st.binary(max_size=200))
def test_no_body_whatsoever_makes_it_raise(body: bytes) -> None:
    for coding in (b"", b"Content-Encoding: gzip\r\n", b"Content-Encoding: deflate\r\n"):
        assert not RULES.says_rejected(head(JSON + coding), body + b'\\u "99999:403"')


@given(st.dictionaries(st.text(max_size=12), st.one_of(st.text(max_size=12), st.integers(), st.none()), max_size=4))
def test_it_agrees_with_a_plain_parse(document: dict[str, object]) -> None:
    document |= {"resultCode": "99999:403"} if len(document) % 2 else {}
    body = json.dumps(document).encode()
    assert RULES.says_rejected(head(JSON), body) == (str(document.get("resultCode")) == "99999:403")


@pytest.mark.parametrize(
    ("content_type", "expected"),
    [
        (b"text/event-stream", True),
        (b"Text/Event-Stream; charset=utf-8", True),
        (b"text/event-streams", False),
        (b"text/plain", False),
        (b"", False),
    ],
)
def test_an_event_stream_is_known_by_its_type(content_type: bytes, expected: bool) -> None:
    assert is_event_stream(head(b"Content-Type: %b\r\n" % content_type)) is expected
