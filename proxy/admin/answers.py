"""The admin port's responses: small, complete, and of no use to a browser that was tricked into asking."""

import json
from collections.abc import Mapping
from typing import Final

from aiohttp import web

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


def answer(status: int, body: bytes, content_type: str, extra: Mapping[str, str] | None = None) -> web.Response:
    headers = {**HEADERS, "Content-Type": content_type, **(extra or {})}
    return web.Response(status=status, body=body, headers=headers)


def plain(status: int, text: str) -> web.Response:
    return answer(status, text.encode(), "text/plain; charset=utf-8")


def document(content: Mapping[str, object]) -> web.Response:
    text = json.dumps(clean(content), indent=2, allow_nan=False) + "\n"
    return answer(200, text.encode(), "application/json")


def problem(
    status: int,
    detail: str,
    kind: str = "request",
    *,
    members: Mapping[str, object] | None = None,
    headers: Mapping[str, str] | None = None,
) -> web.Response:
    """RFC 9457. kind: the last word of ``type``. members: further members of the document."""
    content: dict[str, object] = {
        "type": f"urn:opentv-proxy:problem:{kind}",
        "title": _TITLES[status],
        "status": status,
        "detail": detail,
    }
    body = json.dumps(clean({**(members or {}), **content})) + "\n"
    return answer(status, body.encode(), "application/problem+json", headers)


def clean(value: object) -> object:
    """A document whose strings hold nothing that looks like a secret (a provider's words may quote one)."""
    if isinstance(value, str):
        return scrub(value)
    if isinstance(value, Mapping):
        return {str(key): clean(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [clean(item) for item in value]
    return value
