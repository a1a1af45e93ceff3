"""The admin port's responses: small, complete, and of no use to a browser that was tricked into asking."""

import json
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Final

from aiohttp import web

from proxy.admin.page import PAGE_HEADERS, notice, printable
from proxy.redact import scrub

HEADERS: Final = {
    "Server": "opentv-proxy",
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
}

_TITLES: Final = {
    400: "Bad request",
    403: "Forbidden",
    404: "Not found",
    405: "Method not allowed",
    500: "Internal error",
    502: "Refresh failed",
    503: "Refresh not possible now",
}


# An open status page asks every other second, mostly for the same words; looking through those of ten identities takes
# 15 ms, in which no request is served.
_scrubbed: Final = lru_cache(maxsize=1024)(scrub)


def answer(status: int, body: bytes, content_type: str, extra: Mapping[str, str] | None = None) -> web.Response:
    headers = {**HEADERS, "Content-Type": content_type, **(extra or {})}
    return web.Response(status=status, body=body, headers=headers)


def plain(status: int, text: str) -> web.Response:
    return answer(status, text.encode(), "text/plain; charset=utf-8")


def page(status: int, pieces: Iterable[str], extra: Mapping[str, str] | None = None) -> web.Response:
    """HTML for people."""
    body = "".join(pieces).encode()
    return answer(status, body, "text/html; charset=utf-8", {**PAGE_HEADERS, **(extra or {})})


def document(content: Mapping[str, object]) -> web.Response:
    text = json.dumps(clean_mapping(content), indent=2, allow_nan=False) + "\n"
    return answer(200, text.encode(), "application/json")


def problem(
    status: int,
    detail: str,
    kind: str = "request",
    *,
    members: Mapping[str, object] | None = None,
    headers: Mapping[str, str] | None = None,
    person: bool = False,
) -> web.Response:
    """RFC 9457, or for a person the same in words. kind: the last word of ``type``. members: further members of the
    document."""
    if person:
        return page(status, notice(_TITLES[status], printable(scrub(detail)), "bad"), headers)
    content: dict[str, object] = {
        "type": f"urn:opentv-proxy:problem:{kind}",
        "title": _TITLES[status],
        "status": status,
        "detail": detail,
    }
    body = json.dumps(clean_mapping({**(members or {}), **content})) + "\n"
    return answer(status, body.encode(), "application/problem+json", headers)


def clean_mapping(content: Mapping[str, object]) -> dict[str, object]:
    """A document whose strings hold nothing that looks like a secret (a provider's words may quote one)."""
    return {str(key): clean(item) for key, item in content.items()}


def clean(value: object) -> object:
    """The same for any value."""
    if isinstance(value, str):
        return _scrubbed(value)
    if isinstance(value, Mapping):
        return clean_mapping(value)
    if isinstance(value, (list, tuple)):
        return [clean(item) for item in value]
    return value
