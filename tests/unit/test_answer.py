"""From an upstream's response to the client's bytes: head, framing, end; nothing invented, nothing lost."""

import pytest

from proxy.gateway.answer import Answer, interim, switching
from proxy.gateway.fields import Fields
from proxy.gateway.headers import Origins
from proxy.gateway.http1 import ResponseHead, parse_response

ORIGINS = Origins("http", "up.example", 8080, b"/base", b"")
CHUNKED = b"Transfer-Encoding: chunked\r\n"


def response(lines: bytes = b"", status: int = 200, method: bytes = b"GET") -> ResponseHead:
    data = b"HTTP/1.1 %d Words\r\n%b\r\n" % (status, lines)
    return parse_response(data, len(data) - 4, method)


def head(
    lines: bytes = b"",
    status: int = 200,
    method: bytes = b"GET",
    *,
    minor: int = 1,
    keep_alive: bool = True,
    origins: Origins = ORIGINS,
) -> bytes:
    """The head for the client, its status line and correlation id taken off."""
    got = response(lines, status, method)
    sent = Answer(got, minor).head(b"cid", origins, b"http://gw", keep_alive=keep_alive)
    assert sent.startswith(b"HTTP/1.1 %d Words\r\n" % status)
    assert sent.endswith(b"\r\n\r\n")
    return sent.split(b"\r\n", 1)[1].replace(b"x-correlation-id: cid\r\n", b"", 1).removesuffix(b"\r\n")


def body(lines: bytes, *pieces: bytes, minor: int = 1, trailers: Fields | None = None, status: int = 200) -> bytes:
    answer = Answer(response(lines, status), minor)
    out = [answer.body([piece], [], done=False) for piece in pieces]
    return b"".join(b"".join(part) for part in [*out, answer.body([], trailers or [], done=True)])


def test_fields_pass_as_the_bytes_they_are_in_order_and_none_is_invented() -> None:
    lines = b"server:x\r\nSet-Cookie: b=2\r\nX-Odd:\t v \xe9 \r\nset-cookie: a=1\r\nSet-Cookie: b=2\r\n"
    lines += b"Content-Length: 3\r\n"
    assert head(lines) == lines


def test_without_any_field_there_is_only_the_correlation_id_and_the_framing() -> None:
    assert head(b"Content-Length: 0\r\n") == b"Content-Length: 0\r\n"
    assert head(b"") == b"Transfer-Encoding: chunked\r\n"


def test_hop_by_hop_fields_end_here_and_so_do_those_that_connection_names() -> None:
    lines = (
        b"Connection: X-Hop, keep-alive\r\nKeep-Alive: timeout=5\r\nX-Hop: 1\r\nx-hop: 2\r\nProxy-Connection: x\r\n"
        b"Proxy-Authenticate: Basic\r\nTE: trailers\r\nUpgrade: h2c\r\nConnection: X-Late\r\nX-Late: 3\r\n"
        b"X-Kept: 4\r\nContent-Length: 0\r\n"
    )
    assert head(lines) == b"X-Kept: 4\r\nContent-Length: 0\r\n"


def test_connection_cannot_take_the_length_of_a_body_away() -> None:
    assert head(b"Connection: Content-Length\r\nContent-Length: 3\r\n") == b"Content-Length: 3\r\n"


@pytest.mark.parametrize("lines", [b"", b"Connection: x-correlation-id\r\nX-Correlation-Id: theirs\r\n"])
def test_an_answer_always_has_a_correlation_id(lines: bytes) -> None:
    got = response(lines + b"Content-Length: 0\r\n")
    sent = Answer(got, 1).head(b"cid", ORIGINS, b"http://gw", keep_alive=True)
    assert sent == b"HTTP/1.1 200 Words\r\nContent-Length: 0\r\nx-correlation-id: cid\r\n\r\n"


def test_an_upstreams_own_correlation_id_wins() -> None:
    got = response(b"X-Correlation-ID: theirs\r\nContent-Length: 0\r\n")
    sent = Answer(got, 1).head(b"cid", ORIGINS, b"http://gw", keep_alive=True)
    assert sent == b"HTTP/1.1 200 Words\r\nX-Correlation-ID: theirs\r\nContent-Length: 0\r\n\r\n"


@pytest.mark.parametrize(
    ("line", "reason"),
    [(b"HTTP/1.1 299 \r\n", b" "), (b"HTTP/1.1 299\r\n", b" "), (b"HTTP/1.1 299 A b \r\n", b" A b ")],
)
def test_status_and_reason_pass_whatever_they_are(line: bytes, reason: bytes) -> None:
    data = line + b"Content-Length: 0\r\n\r\n"
    got = parse_response(data, len(data) - 4, b"GET")
    sent = Answer(got, 1).head(b"c", ORIGINS, b"", keep_alive=True)
    assert sent.startswith(b"HTTP/1.1 299" + reason + b"\r\n")


def test_a_body_of_known_length_passes_as_it_is() -> None:
    assert body(b"Content-Length: 5\r\n", b"ab", b"cde") == b"abcde"


def test_a_chunked_body_is_chunked_again_with_its_trailers() -> None:
    trailers = [(b"Digest: x\r\n", b"Digest"), (b"Set-Cookie: y\r\n", b"Set-Cookie")]
    assert body(CHUNKED, b"ab", b"cde", trailers=trailers) == b"2\r\nab\r\n3\r\ncde\r\n0\r\nDigest: x\r\n\r\n"


def test_a_body_that_ends_with_the_connection_is_chunked_for_a_1_1_client() -> None:
    assert head(b"") == CHUNKED
    assert body(b"", b"ab") == b"2\r\nab\r\n0\r\n\r\n"


@pytest.mark.parametrize("lines", [b"", CHUNKED])
def test_a_1_0_client_gets_no_chunks_but_a_connection_that_ends(lines: bytes) -> None:
    answer = Answer(response(lines), 0)
    assert not answer.delimited
    assert head(lines, minor=0, keep_alive=False) == b"Connection: close\r\n"
    assert body(lines, b"ab", b"c", minor=0, trailers=[(b"Digest: x\r\n", b"Digest")]) == b"abc"


def test_to_head_the_framing_of_get_is_told_and_no_body_follows() -> None:
    assert head(b"Content-Length: 5\r\n", method=b"HEAD") == b"Content-Length: 5\r\n"
    assert head(CHUNKED, method=b"HEAD") == CHUNKED
    assert head(b"", method=b"HEAD") == b""
    answer = Answer(response(CHUNKED, method=b"HEAD"), 1)
    assert (answer.delimited, answer.body([], [], done=True)) == (True, [])


def test_a_1_0_client_is_told_of_no_transfer_coding_even_to_head() -> None:
    assert head(CHUNKED, method=b"HEAD", minor=0) == b""


@pytest.mark.parametrize(
    ("status", "lines", "kept"),
    [
        (304, b"Content-Length: 5\r\n", b"Content-Length: 5\r\n"),
        (304, b"ETag: x\r\n", b"ETag: x\r\n"),
        (204, b"", b""),
        # RFC 9110 8.6, RFC 9112 6.1: neither may be in a 204; a client that believes them waits for a body.
        (204, b"Content-Length: 5\r\n", b""),
        (204, CHUNKED, b""),
    ],
)
def test_an_answer_without_a_body_promises_none(status: int, lines: bytes, kept: bytes) -> None:
    answer = Answer(response(lines, status), 1)
    assert answer.delimited
    assert head(lines, status) == kept
    assert answer.body([], [], done=True) == []


def test_the_connections_end_is_announced() -> None:
    assert head(b"Content-Length: 0\r\n", keep_alive=False) == b"Content-Length: 0\r\nConnection: close\r\n"


def test_size_counts_the_body_without_its_framing() -> None:
    answer = Answer(response(CHUNKED), 1)
    answer.body([b"ab", b"c"], [], done=False)
    answer.body([b"de"], [], done=True)
    assert answer.size == 5


@pytest.mark.parametrize(
    ("status", "location", "seen"),
    [
        (302, b"http://up.example:8080/base/x?y#z", b"http://gw/x?y#z"),
        (302, b"HTTP://UP.example:8080/base/x", b"http://gw/x"),
        (302, b"http://up.example:8080/base", b"http://gw"),
        (302, b"http://up.example:8080/base?q", b"http://gw?q"),
        (302, b"http://up.example:8080/base#f", b"http://gw#f"),
        (302, b"http://up.example:8080/other", b"http://gw/other"),
        (302, b"http://up.example:8080/basement", b"http://gw/basement"),
        (302, b"http://up.example:8080", b"http://gw"),
        (201, b"http://up.example:8080/base/new", b"http://gw/new"),
        (301, b"http://up.example:8080/base/x", b"http://gw/x"),
        (308, b"http://up.example:8080/base/x", b"http://gw/x"),
        (302, b"/base/x", b"/x"),
        (302, b"x", b"x"),
        (302, b"", b""),
        (302, b"//up.example:8080/base/x", b"http://gw/x"),
        (302, b"http://up.example/base/x", b"http://up.example/base/x"),
        (302, b"https://up.example:8080/base/x", b"https://up.example:8080/base/x"),
        (302, b"http://other.example:8080/base/x", b"http://other.example:8080/base/x"),
        (302, b"http://up.example:8080@evil.example/", b"http://up.example:8080@evil.example/"),
        (302, b"http://up.example:8080.evil.example/", b"http://up.example:8080.evil.example/"),
        (302, b"http://user@up.example:8080/", b"http://user@up.example:8080/"),
        (302, b"http://up.example:8080\\@evil/", b"http://up.example:8080\\@evil/"),
        (302, b"http://up.example:%b/" % (b"9" * 5000), b"http://up.example:%b/" % (b"9" * 5000)),
        (302, b"ftp://up.example:8080/base/x", b"ftp://up.example:8080/base/x"),
        (200, b"http://up.example:8080/base/x", b"http://up.example:8080/base/x"),
    ],
)
def test_a_location_at_the_upstreams_own_origin_points_at_the_gateway(
    status: int, location: bytes, seen: bytes
) -> None:
    lines = b"Location: %b\r\nContent-Length: 0\r\n"
    assert head(lines % location, status).replace(b"Location:  ", b"Location: ") == lines % seen


def test_the_default_port_may_be_written_or_not() -> None:
    origins = Origins("https", "up.example", 443, b"", b"")
    for authority in (b"up.example", b"up.example:443", b"up.example:"):
        lines = b"Location: https://%b/x\r\n" % authority
        assert b"Location: http://gw/x\r\n" in head(lines, 302, origins=origins)


def test_a_stripped_prefix_is_put_back() -> None:
    origins = Origins("http", "[::1]", 8080, b"/base", b"/crm")
    assert b"Location: http://gw/crm/x\r\n" in head(b"Location: http://[::1]:8080/base/x\r\n", 302, origins=origins)
    assert b"Location: http://gw/crm\r\n" in head(b"Location: http://[::1]:8080/base\r\n", 302, origins=origins)


@pytest.mark.parametrize(
    ("location", "seen"),
    [
        (b"/base/x?y", b"/crm/x?y"),
        (b"/base", b"/crm"),
        (b"//up.example:8080/base/x", b"http://gw/crm/x"),
        (b"//elsewhere/base/x", b"//elsewhere/base/x"),
        (b"x/y", b"x/y"),
        (b"?next", b"?next"),
        (b"/other", b"/other"),
        (b"http://up.example:8080/other", b"http://gw/other"),
    ],
)
def test_a_relative_location_finds_the_way_back_too(location: bytes, seen: bytes) -> None:
    origins = Origins("http", "up.example", 8080, b"/base", b"/crm")
    assert b"Location: %b\r\n" % seen in head(b"Location: %b\r\n" % location, 302, origins=origins)


@pytest.mark.parametrize(
    ("location", "seen"),
    [
        (b"http://gw.example/base/x", b"https://GW.example/crm/x"),
        (b"https://gw.example/base/x", b"https://GW.example/crm/x"),
        (b"https://gw.example:443/base/x", b"https://GW.example/crm/x"),
        (b"//gw.example/base", b"https://GW.example/crm"),
        (b"http://up.example:8080/base/x", b"https://GW.example/crm/x"),
        (b"http://gw.example:8080/base/x", b"http://gw.example:8080/base/x"),
        (b"http://gw.example:/other", b"https://GW.example/other"),
        (b"http://gw.example.com/base/x", b"http://gw.example.com/base/x"),
        (b"ftp://gw.example/base/x", b"ftp://gw.example/base/x"),
    ],
)
def test_where_the_upstream_is_told_the_clients_host_that_is_its_own_name_too(location: bytes, seen: bytes) -> None:
    told = Origins("http", "up.example", 8080, b"/base", b"/crm", host_preserved=True)
    assert told.to_gateway(location, b"https://GW.example") == seen


def test_no_other_scheme_than_the_upstreams_and_the_clients_is_its_own() -> None:
    told = Origins("http", "up.example", 8080, b"", b"/crm", host_preserved=True)
    assert told.to_gateway(b"https://gw/x", b"http://gw") == b"https://gw/x"  # a way to TLS, which the client may go
    untold = Origins("http", "up.example", 8080, b"", b"/crm")
    assert untold.to_gateway(b"http://gw/x", b"http://gw") == b"http://gw/x"


def test_an_interim_response_passes_its_own_fields_and_nothing_of_ours() -> None:
    lines = b"Link: </a.css>; rel=preload\r\nLink: </b.js>\r\nConnection: x\r\nX: y\r\nContent-Length: 5\r\n"
    assert interim(response(lines, 103), ORIGINS) == (
        b"HTTP/1.1 103 Words\r\nLink: </a.css>; rel=preload\r\nLink: </b.js>\r\n\r\n"
    )


def test_the_switch_names_the_protocol_once() -> None:
    lines = b"Connection: Upgrade\r\nUpgrade: WebSocket\r\nSec-WebSocket-Accept: a\r\n"
    assert switching(response(lines, 101), b"cid", ORIGINS, b"websocket") == (
        b"HTTP/1.1 101 Words\r\nSec-WebSocket-Accept: a\r\nx-correlation-id: cid\r\n"
        b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    )


def test_an_event_stream_may_be_silent_for_as_long_as_it_likes() -> None:
    assert Answer(response(b"Content-Type: text/event-stream\r\n"), 1).endless
    assert not Answer(response(b"Content-Type: text/plain\r\n"), 1).endless


def test_an_upstream_cannot_speak_for_the_gateway() -> None:
    """Proxy-Status tells whose error an answer is (RFC 9209): another proxy's passes, ours comes from us alone."""
    ours = b"Proxy-Status: opentv-proxy; error=connection_refused\r\nPROXY-STATUS: cdn, OpenTV-Proxy\r\n"
    another = b"Proxy-Status: cdn; error=dns_error\r\nContent-Length: 0\r\n"
    assert head(ours + another, 502) == another
