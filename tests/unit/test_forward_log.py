"""What a request's line in the log says of answers that are the gateway's own, or that it broke off."""

import io
import json
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from proxy.accesslog import AccessLog, AccessMode
from proxy.errors import TokenUnavailableError
from proxy.gateway.relation import UpstreamError
from proxy.tokens.source import Credential
from tests.support.inmemory import FakeSource, InMemory, settled

WHY = ("problem", "error", "detail", "broken_off")
GET = b"GET /a?q=1 HTTP/1.1\r\nHost: gw\r\n\r\n"
HALF = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nfive!"
POST = b"POST /p HTTP/1.1\r\nHost: gw\r\n"


class Scene:
    """A gateway in memory with one client, and the log's lines."""

    def __init__(self, there: InMemory, stream: io.StringIO) -> None:
        self.there, self._stream = there, stream
        self.client = there.dial()

    def upstream(self, data: bytes) -> None:
        self.there.upstreams[-1].receive(data)

    def lines(self) -> list[dict[str, Any]]:
        self.there.gateway.access_log.flush()
        return [json.loads(line) for line in self._stream.getvalue().splitlines()]


def scene(mode: AccessMode = "all", *, source: FakeSource | None = None, **more: Any) -> Scene:
    stream = io.StringIO()
    limits = {"head_time": "2s", "body_idle": "2s", "target_size": 64, "head_size": 1024}
    route = {"max_body": 8, "timeouts": {"response": "3s", "idle": "4s"}, "allow": []}
    log = AccessLog(stream, mode, later=lambda _: None)
    return Scene(InMemory(source, limits=limits, route=route | more.pop("route", {}), access_log=log, **more), stream)


def closing(here: Scene) -> None:
    here.there.upstreams[-1].finish()


def late(here: Scene) -> None:
    here.there.later(60.0)


def nothing(_: Scene) -> None:
    pass


def says(data: bytes) -> Callable[[Scene], None]:
    return lambda here: here.upstream(data)


OWN: dict[str, tuple[bytes, Callable[[Scene], None], dict[str, Any]]] = {
    "the upstream closes before its answer": (
        GET,
        closing,
        {
            "status": 502,
            "problem": "upstream",
            "error": "connection_terminated",
            "detail": "the upstream closed the connection before its answer was complete",
            "method": "GET",
            "path": "/a",
        },
    ),
    "the upstream speaks no HTTP": (GET, says(b"junk\r\n\r\n"), {"status": 502, "error": "http_protocol_error"}),
    "the upstream is late": (
        GET,
        late,
        {"status": 504, "problem": "timeout", "detail": "The upstream did not answer within 3 s."},
    ),
    "a body that stops": (
        POST + b"Content-Length: 5\r\n\r\n1",
        late,
        {"status": 408, "problem": "timeout", "error": "http_request_error", "method": "POST", "path": "/p"},
    ),
    "a head that stops": (
        POST,
        late,
        {
            "status": 408,
            "problem": "timeout",
            "method": "POST",
            "path": "/p",
            "detail": "The head took longer than 2 s.",
        },
    ),
    "a body too large": (
        POST + b"Content-Length: 9\r\n\r\n123456789",
        nothing,
        {"status": 413, "problem": "limit", "detail": "The request's body is larger than 8 bytes."},
    ),
    "a head too large": (
        POST + b"X-A: " + b"a" * 2000 + b"\r\n\r\n",
        nothing,
        {"status": 431, "problem": "limit", "method": "POST", "path": "/p", "route": "/"},
    ),
    "a target too long": (
        b"GET /" + b"a" * 100 + b" HTTP/1.1\r\nHost: gw\r\n\r\n",
        nothing,
        {"status": 414, "problem": "limit", "method": "GET", "path": "/" + "a" * 100},
    ),
    "an expectation": (
        POST + b"x-Correlation-ID: mine-1\r\nExpect: more\r\nContent-Length: 1\r\n\r\n1",
        nothing,
        {"status": 417, "problem": "request", "method": "POST", "path": "/p", "correlation_id": "mine-1"},
    ),
    "an expectation of HEAD": (
        b"HEAD /p HTTP/1.1\r\nHost: gw\r\nExpect: more\r\n\r\n",
        nothing,
        {"status": 417, "method": "HEAD", "bytes_out": 0},
    ),
    "another version": (b"GET /a?q=1 HTTP/2.0\r\nHost: gw\r\n\r\n", nothing, {"status": 505, "path": "/a"}),
    "two hosts": (
        b"GET /a HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        nothing,
        {
            "status": 400,
            "problem": "request",
            "path": "/a",
            "detail": "The request was refused: the Host header is repeated or invalid.",
        },
    ),
    "an absolute target": (
        b"GET http://user:hunter2@gw/a HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        nothing,
        {"status": 400, "method": "GET", "path": ""},
    ),
    "no version": (b"GET /a\r\n\r\n", nothing, {"status": 400, "method": "GET", "path": "/a"}),
    "words": (b"hunter2 is secret\r\n\r\n", nothing, {"status": 400, "method": "other", "path": ""}),
    "no request line": (b"hello\r\n\r\n", nothing, {"status": 400, "method": "other", "path": ""}),
    "a method that is refused": (
        b"TRACE /a HTTP/1.1\r\nHost: gw\r\n\r\n",
        nothing,
        {"status": 405, "problem": "request", "error": "http_request_denied"},
    ),
}


@pytest.mark.parametrize("name", OWN)
@pytest.mark.parametrize("mode", ["all", "errors"])
async def test_the_line_of_an_own_answer_says_why_and_how_much_was_sent(name: str, mode: AccessMode) -> None:
    sent, happens, expected = OWN[name]
    here = scene(mode)
    with here.there:
        here.client.receive(sent)
        happens(here)
        (line,) = here.lines()
        assert line | expected == line
        head, _, body = bytes(here.client.written).partition(b"\r\n\r\n")
        assert f"error={line['error']}".encode() in head
        assert line["bytes_out"] == len(body)
        if body:
            told = json.loads(body)
            assert told["detail"] == line["detail"]
            assert told["type"] == f"urn:opentv-proxy:problem:{line['problem']}"
            assert told["correlation_id"] == line["correlation_id"]
        assert "broken_off" not in line


@pytest.mark.parametrize(
    ("clients", "status", "problem"),
    [({"allow_from": ["10.0.0.0/8"]}, 403, "client"), ({"basic": {"crm": {"password": "k"}}}, 401, "client")],
)
async def test_who_may_not_come_in_is_told_so_in_the_log(clients: Mapping[str, Any], status: int, problem: str) -> None:
    here = scene("errors", clients=clients)
    with here.there:
        here.client.receive(GET)
        (line,) = here.lines()
        assert (line["status"], line["problem"], line["error"]) == (status, problem, "http_request_denied")
        assert line["bytes_out"] > 100


class NoToken(FakeSource):
    def current(self) -> Credential | None:
        return None

    async def obtain(self, correlation_id: str = "") -> Credential:  # noqa: ARG002 - it fails for each
        raise TokenUnavailableError("the provider said eyJhbGciOiJSUzI1NiJ9.e30.c2ln", retry_after=3.0)


async def test_the_line_of_a_missing_token_says_why_and_shows_none() -> None:
    here = scene(source=NoToken())
    with here.there:
        here.client.receive(GET)
        await settled(5)
        (line,) = here.lines()
        assert (line["status"], line["problem"], line["error"]) == (503, "token", "destination_unavailable")
        assert line["detail"] == "the provider said [redacted]"


BROKEN: dict[str, tuple[bytes, Callable[[Scene], None], str, str]] = {
    "the upstream leaves": (HALF, closing, "http_response_incomplete", "reset"),
    "the upstream falls silent": (HALF, late, "http_response_timeout", "timeout"),
    "the upstream breaks the protocol": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        says(b"nonsense\r\n"),
        "http_protocol_error",
        "protocol",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
@pytest.mark.parametrize("mode", ["all", "errors"])
async def test_an_answer_that_was_broken_off_is_no_good_one_in_the_log(name: str, mode: AccessMode) -> None:
    first, happens, error, reason = BROKEN[name]
    here = scene(mode)
    with here.there:
        here.client.receive(GET)
        here.upstream(first)
        happens(here)
        (line,) = here.lines()
        assert (line["status"], line["broken_off"], line["error"]) == (200, True, error)
        assert line["detail"]
        assert "problem" not in line
        assert here.client.ended == "aborted"
        numbers = here.there.metrics.route("/")
        assert (numbers.broken_off, numbers.upstream_errors[reason]) == (1, 1)


async def test_an_own_answer_is_none_that_was_broken_off() -> None:
    here = scene()
    with here.there:
        here.client.receive(GET)
        closing(here)
        numbers = here.there.metrics.route("/")
        assert (numbers.broken_off, numbers.upstream_errors["reset"]) == (0, 1)


async def test_lines_for_people_say_why_too() -> None:
    stream = io.StringIO()
    with InMemory(access_log=AccessLog(stream, "errors", "console", later=lambda _: None)) as there:
        for first in (b"junk\r\n\r\n", HALF):
            client = there.dial()
            client.receive(GET)
            there.upstreams[-1].receive(first)
            there.upstreams[-1].finish()
        there.gateway.access_log.flush()
    own, broken = stream.getvalue().splitlines()
    assert own.endswith(" http_protocol_error: the upstream broke the protocol: the status line is malformed")
    words = " broken off, http_response_incomplete: the upstream closed the connection before its answer was complete"
    assert broken.endswith(words)
    assert " 200 GET /a " in broken


@pytest.mark.parametrize("status", [b"200", b"404", b"502"])
async def test_the_line_of_an_upstreams_answer_gives_no_reason(status: bytes) -> None:
    here = scene()
    with here.there:
        here.client.receive(GET)
        here.upstream(b"HTTP/1.1 %b X\r\nContent-Length: 2\r\n\r\nok" % status)
        (line,) = here.lines()
        assert not set(WHY) & set(line)
        assert (line["status"], line["bytes_out"]) == (int(status), 2)


async def test_a_client_that_left_is_given_no_reason() -> None:
    here = scene()
    with here.there:
        here.client.receive(GET)
        here.client.finish()
        here.client.finish(UpstreamError("reset", "x", "y"))
        (line,) = here.lines()
        assert line["status"] == 499
        assert not set(WHY) & set(line)


async def test_mode_errors_leaves_out_a_good_answer_and_a_client_that_left() -> None:
    here = scene("errors")
    with here.there:
        here.client.receive(GET)
        here.upstream(b"HTTP/1.1 200 X\r\nContent-Length: 2\r\n\r\nok")
        here.client.receive(GET)
        here.client.finish(ConnectionResetError())
        assert here.lines() == []
