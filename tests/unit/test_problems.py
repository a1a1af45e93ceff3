"""The gateway's own answers, byte for byte."""

import json

from proxy.gateway.problems import Problem, render

LIMIT = Problem("limit", 503, "connection_limit_reached", "Full.", retry_after=0.2, lines=(b"X-A: 1\r\n",))


def test_an_answer_of_our_own_is_a_whole_response_with_a_date() -> None:
    head, _, body = render(LIMIT, b"id-1", now=784111777.9, keep_alive=False).partition(b"\r\n\r\n")
    assert head.split(b"\r\n") == [
        b"HTTP/1.1 503 Service Unavailable",
        b"Date: Sun, 06 Nov 1994 08:49:37 GMT",
        b"Content-Type: application/problem+json",
        b"Content-Length: %d" % len(body),
        b"Cache-Control: no-store",
        b"Proxy-Status: opentv-proxy; error=connection_limit_reached",
        b"x-correlation-id: id-1",
        b"Retry-After: 1",
        b"Connection: close",
        b"X-A: 1",
    ]
    assert json.loads(body) == {
        "type": "urn:opentv-proxy:problem:limit",
        "title": "The request exceeds a limit of the gateway",
        "status": 503,
        "detail": "Full.",
        "correlation_id": "id-1",
    }


def test_to_head_the_length_is_told_and_no_body_follows() -> None:
    whole = render(LIMIT, b"id-1", now=0.0, keep_alive=True)
    assert render(LIMIT, b"id-1", now=0.0, keep_alive=True, head_only=True) == whole.partition(b"{")[0]
