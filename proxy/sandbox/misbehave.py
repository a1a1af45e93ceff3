"""Faults as HTTP: what a client sees of a ``Fault``, and the JSON answers that go out without one."""

import json
import socket
import struct
from collections.abc import Mapping
from typing import Any

from aiohttp import web

from proxy.sandbox.faults import Fault

# Set on a request whose answer is to carry no ``Date``, as Keycloak's error replies do not.
UNDATED = web.RequestKey("undated", bool)


def json_response(
    status: int, body: Mapping[str, Any] | None, headers: Mapping[str, str] | None = None
) -> web.Response:
    if body is None:
        return web.Response(status=status, headers=headers)
    raw = json.dumps(body, separators=(",", ":")).encode()
    return web.Response(status=status, body=raw, headers=headers, content_type="application/json")


def canned(fault: Fault, now: float) -> web.Response:
    status, headers, body = fault.canned(now)
    return web.Response(status=status, headers=headers, body=body)


def close(request: web.Request) -> web.StreamResponse:
    """End the connection without an answer (FIN). What is returned goes nowhere."""
    if request.transport is not None:
        request.transport.close()
    return web.Response()


def reset(request: web.Request) -> web.StreamResponse:
    """Break the connection off without an answer (RST). What is returned goes nowhere."""
    if request.transport is not None:
        sock = request.transport.get_extra_info("socket")
        # Lingering for zero seconds is what turns the close into a reset (socket(7), SO_LINGER).
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        request.transport.abort()
    return web.Response()


async def half(request: web.Request, answer: web.Response) -> web.StreamResponse:
    """The answer's head and half of its body, then the end of the connection."""
    body = answer.body if isinstance(answer.body, bytes) else b""
    cut = web.StreamResponse(status=answer.status, headers=answer.headers)
    cut.content_length = len(body)
    await cut.prepare(request)
    await cut.write(body[: len(body) // 2])
    close(request)
    return cut


async def finish(
    request: web.Request,
    fault: Fault | None,
    status: int,
    body: Mapping[str, Any] | None,
    headers: Mapping[str, str] | None = None,
) -> web.StreamResponse:
    """The answer to a request that was handled, as the fault (if any) leaves it."""
    if fault is not None and fault.kind == "rotate-then-reset":
        return reset(request)
    if fault is None or body is None:
        return json_response(status, body, headers)
    answer = json_response(status, fault.mangle(dict(body)), headers)
    return await half(request, answer) if fault.kind == "half-json" else answer
