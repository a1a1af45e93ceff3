"""The gateway's own answers: RFC 9457 bodies with RFC 9209 Proxy-Status. Pure."""

import json
from email.utils import formatdate
from http import HTTPStatus
from typing import Final

from proxy.errors import ProblemKind, TokenUnavailableError

_TITLES: Final[dict[ProblemKind, str]] = {
    "request": "The request is not acceptable",
    "limit": "The request exceeds a limit of the gateway",
    "client": "This client may not use the gateway",
    "allow": "The gateway does not let this request through",
    "route": "No route leads to an upstream",
    "token": "The gateway has no usable token",
    "upstream": "The upstream failed",
    "timeout": "The upstream or the client took too long",
}
_REASONS: Final = {413: "Content Too Large", 499: "Client Closed Request"}


class Problem:
    """An answer of the gateway's own.

    kind: the last part of ``type``. error: RFC 9209 2.3 error type. detail: words for the person who runs the client,
    never the peer's bytes. lines: further complete header lines. hold: seconds that it is held back. client: whom it
    is for, where that is not the peer itself. broken_off: nobody can be told, as an answer had begun.
    """

    broken_off = False
    hold = 0.0
    client = ""

    def __init__(
        self,
        kind: ProblemKind,
        status: int,
        error: str,
        detail: str,
        *,
        retry_after: float | None = None,
        lines: tuple[bytes, ...] = (),
    ) -> None:
        self.kind: ProblemKind = kind
        self.status = status
        self.error = error
        self.detail = detail
        self.retry_after = retry_after
        self.lines = lines


def no_token(error: TokenUnavailableError) -> Problem:
    """No usable token, and none could be had."""
    return Problem("token", 503, "destination_unavailable", error.words, retry_after=error.retry_after)


def upstream_failed(reason: str, error: str, words: str) -> Problem:
    """No answer came. reason: the metric's label; error: RFC 9209's."""
    if reason == "timeout":
        return Problem("timeout", 504, error, words)
    return Problem("upstream", 502, error, words)


def internal_error() -> Problem:
    """A fault of the gateway itself: nothing of it but the fact goes out."""
    return Problem("upstream", 502, "proxy_internal_error", "The gateway failed on this request; its log says why.")


def upstream_slow(seconds: float) -> Problem:
    """Nothing came within the route's ``timeouts.response``."""
    return Problem("timeout", 504, "http_response_timeout", f"The upstream did not answer within {seconds:g} s.")


def shutting_down() -> Problem:
    """The gateway ends before the answer came. Not 503: the upstream may have done what was asked."""
    words = "The gateway is shutting down and could not wait any longer for the upstream's answer."
    return Problem("timeout", 504, "http_response_timeout", words)


def upstream_silent(seconds: float) -> Problem:
    """Nothing more came within the route's ``timeouts.idle``."""
    words = f"The upstream fell silent in the middle of its answer, for {seconds:g} s."
    return Problem("timeout", 504, "http_response_timeout", words)


def head_slow(seconds: float) -> Problem:
    """The client stopped in the middle of its request's head (``limits.head_time``)."""
    return Problem("timeout", 408, "http_request_error", f"The head took longer than {seconds:g} s.")


def body_slow(seconds: float) -> Problem:
    """The client stopped in the middle of its request (``limits.body_idle``)."""
    return Problem("timeout", 408, "http_request_error", f"No byte of the request's body came for {seconds:g} s.")


def body_too_large(limit: int) -> Problem:
    """More than the route's ``max_body``."""
    return Problem("limit", 413, "http_request_error", f"The request's body is larger than {limit} bytes.")


def reason_phrase(status: int) -> str:
    """The status's standard phrase."""
    try:
        return _REASONS.get(status) or HTTPStatus(status).phrase
    except ValueError:
        return "Unknown"


def render(problem: Problem, correlation_id: bytes, *, now: float, keep_alive: bool, head_only: bool = False) -> bytes:
    """The whole response, ready to be written. now: Unix seconds, for the Date that an origin owes (RFC 9110 6.6.1)."""
    name = correlation_id.decode("latin-1")
    body = json.dumps(
        {
            "type": f"urn:opentv-proxy:problem:{problem.kind}",
            "title": _TITLES[problem.kind],
            "status": problem.status,
            "detail": problem.detail,
            "correlation_id": name,
        }
    ).encode()
    lines = [
        f"HTTP/1.1 {problem.status} {reason_phrase(problem.status)}",
        f"Date: {formatdate(now, usegmt=True)}",
        "Content-Type: application/problem+json",
        f"Content-Length: {len(body)}",
        "Cache-Control: no-store",
        f"Proxy-Status: opentv-proxy; error={problem.error}",
        f"x-correlation-id: {name}",
    ]
    if problem.retry_after is not None:
        # Whole seconds, rounded up: a client that comes back on time must not come too early (RFC 9110 10.2.3).
        lines.append(f"Retry-After: {max(1, -int(-problem.retry_after // 1))}")
    if not keep_alive:
        lines.append("Connection: close")
    head = "\r\n".join(lines).encode("latin-1") + b"\r\n" + b"".join(problem.lines) + b"\r\n"
    return head if head_only else head + body


def body_size(response: bytes) -> int:
    """Of what ``render`` gave."""
    return len(response) - response.index(b"\r\n\r\n") - 4
