"""The platform behind the token: the operator API, and a few endpoints that show what a gateway does to traffic.

=================================== =================================================================================
``/adm/ /rmg/ /crm-gateway/ /cag/`` the operator API: 200, 201 for POST, 202 for POSTed entitlements; token checked
``/ags-api /veeam-api /ssp-api``    the same again, below, for the tokens of AGS, Veeam and SSP; ``settings`` moves them
``/echo/**``                        what arrived, as JSON; the token is not checked, only judged (``verdict``)
``/events?count=&interval_ms=``     server-sent events, a tick at a time
``/ws``                             a WebSocket that echoes
``/bytes/N?chunked=1``              N bytes, streamed
``/slow?ms=``                       an answer after that many milliseconds
``/sink``                           takes a body of any size, answers its size and SHA-256
anything else                       the echo, with the token checked
=================================== =================================================================================
"""

import hashlib
import itertools
import uuid
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from aiohttp import WSMsgType, web

from proxy.sandbox.faults import CANNED, Fault, take
from proxy.sandbox.misbehave import canned, close, finish, json_response
from proxy.sandbox.state import Received, SandboxState, System
from proxy.sandbox.verdicts import WORDS
from proxy.sandbox.verify import Verifier, shown_headers

_OPERATOR = ("/adm/", "/rmg/", "/crm-gateway/", "/cag/")
_BLOCK = bytes(range(256)) * 256
_EARLY = CANNED | {"reject", "close"}


class Api:
    """Answers everything that is neither a token system nor the control API. ``sleep`` takes seconds."""

    def __init__(self, state: SandboxState, verifier: Verifier, sleep: Callable[[float], Awaitable[None]]) -> None:
        self._state = state
        self._verifier = verifier
        self._sleep = sleep

    def wants_body(self, request: web.Request) -> bool:
        """Whether ``100 Continue`` is worth sending: a request that will be refused is refused before its body."""
        faults = self._state.faults["api"]
        if faults and faults[0].kind in _EARLY:
            return False
        system, path = self._verifier.system(request.rel_url.raw_path)
        return path.startswith("/echo") or self._verifier.judge(system, request)[0] == "valid"

    async def handle(self, request: web.Request) -> web.StreamResponse:
        state = self._state
        system, path = self._verifier.system(request.rel_url.raw_path)
        verdict, mark = self._verifier.judge(system, request)
        self._count(system, "api_requests")
        state.received.append(
            Received(state.now(), request.method, request.raw_path, verdict, mark, request.raw_headers, system)
        )
        fault = take(state.faults["api"]) if state.faults["api"] else None
        if fault is not None:
            early = await self._misbehave(request, system, fault)
            if early is not None:
                return early
        if path == "/echo" or path.startswith("/echo/"):
            return await finish(request, fault, 200, await self._echo(request, verdict))
        if verdict != "valid":
            return self._reject(request, system, verdict)
        if path.startswith(_OPERATOR):
            return await self._operator(request, path, fault)
        return await self._diagnostic(request, path, fault, verdict)

    def _count(self, system: System, what: str) -> None:
        """One more in all, and of the system; Keycloak's own are what is left of them."""
        self._state.counters[what] += 1
        if system != "keycloak":
            self._state.count(system, what)

    async def _misbehave(self, request: web.Request, system: System, fault: Fault) -> web.StreamResponse | None:
        """The answer of a fault that handles nothing; None lets the request through (after the fault's delay)."""
        self._state.counters["faults_api"] += 1
        self._state.record("fault", endpoint="api", fault=fault.kind)
        if fault.delay_ms:
            # The operator API changes nothing, so a late answer and a delayed one are the same here.
            await self._sleep(fault.delay_ms / 1000)
        if fault.kind in CANNED:
            return canned(fault, self._state.now())
        if fault.kind == "close":
            return close(request)
        return self._reject(request, system, "fault") if fault.kind == "reject" else None

    def _reject(self, request: web.Request, system: System, why: str) -> web.Response:
        """ "Bad token" as this site says it. A missing role is a 403 where bad tokens are a 401 (RFC 6750 3.1)."""
        self._count(system, "api_rejections")
        self._state.counters[f"api_rejections_{why}"] += 1
        self._state.record("api_rejected", system=system, why=why, method=request.method, target=request.raw_path[:200])
        style = self._state.settings.reject
        if style == "401" and why != "role":
            headers = {
                "WWW-Authenticate": f'Bearer realm="nagra", error="invalid_token", error_description="{WORDS[why]}"'
            }
            return json_response(401, {"error": "invalid_token", "error_description": WORDS[why]}, headers)
        body = {
            "resultCode": "99999:403",
            "localeMessage": "none",
            "requestId": _request_id(request),
            "result": WORDS[why],
        }
        return json_response(200 if style == "200" else 403, body)

    async def _operator(self, request: web.Request, path: str, fault: Fault | None) -> web.StreamResponse:
        size = 0
        if request.body_exists:
            async for chunk in request.content.iter_any():
                size += len(chunk)
        status = 200
        if request.method == "POST":
            status = 202 if "/entitlements" in path else 201
        result = {"method": request.method, "path": path, "bodyBytes": size}
        body = {"resultCode": "0", "localeMessage": "none", "requestId": _request_id(request), "result": result}
        return await finish(request, fault, status, body)

    async def _diagnostic(
        self, request: web.Request, path: str, fault: Fault | None, verdict: str
    ) -> web.StreamResponse:
        if path == "/events":
            return await self._events(request)
        if path == "/ws":
            return await _websocket(request)
        if path.startswith("/bytes/"):
            return await _bytes(request, path.removeprefix("/bytes/"))
        if path == "/slow":
            await self._sleep(_number(request, "ms", 1000) / 1000)
            return await finish(request, fault, 200, {"slept_ms": _number(request, "ms", 1000)})
        if path == "/sink":
            size, digest = await _drain(request)
            return await finish(request, fault, 200, {"bytes": size, "sha256": digest})
        return await finish(request, fault, 200, await self._echo(request, verdict))

    async def _echo(self, request: web.Request, verdict: str) -> dict[str, Any]:
        size, digest = await _drain(request)
        return {
            "method": request.method,
            "target": request.raw_path,
            "headers": shown_headers(request.raw_headers),
            "body": {"bytes": size, "sha256": digest},
            "verdict": verdict,
        }

    async def _events(self, request: web.Request) -> web.StreamResponse:
        count, pause = _number(request, "count", 0), _number(request, "interval_ms", self._state.settings.tick_ms)
        stream = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache"})
        await stream.prepare(request)
        for tick in itertools.count(1):
            await stream.write(f'id: {tick}\ndata: {{"tick":{tick},"at":{self._state.now():.3f}}}\n\n'.encode())
            if tick == count:
                break
            await self._sleep(pause / 1000)
        return stream


def _request_id(request: web.Request) -> str:
    return request.headers.get("x-correlation-id") or str(uuid.uuid4())


def _number(request: web.Request, name: str, default: int) -> int:
    value = _query(request).get(name, "")
    return int(value) if value.isascii() and value.isdigit() and len(value) < 12 else default


def _query(request: web.Request) -> Mapping[str, str]:
    return request.rel_url.query


async def _drain(request: web.Request) -> tuple[int, str]:
    """Size and SHA-256 of the body, which is not kept."""
    digest, size = hashlib.sha256(), 0
    async for chunk in request.content.iter_any():
        digest.update(chunk)
        size += len(chunk)
    return size, digest.hexdigest()


async def _bytes(request: web.Request, wanted: str) -> web.StreamResponse:
    if not (wanted.isascii() and wanted.isdigit() and len(wanted) < 13):
        return json_response(400, {"error": "expected /bytes/N"})
    left = int(wanted)
    stream = web.StreamResponse(headers={"Content-Type": "application/octet-stream"})
    if _number(request, "chunked", 0):
        stream.enable_chunked_encoding()
    else:
        stream.content_length = left
    await stream.prepare(request)
    while left > 0 and request.method != "HEAD":
        await stream.write(_BLOCK[:left])
        left -= len(_BLOCK)
    return stream


async def _websocket(request: web.Request) -> web.StreamResponse:
    socket = web.WebSocketResponse(max_msg_size=64 * 1024 * 1024)
    await socket.prepare(request)
    async for message in socket:
        if message.type is WSMsgType.TEXT:
            await socket.send_str(message.data)
        elif message.type is WSMsgType.BINARY:
            await socket.send_bytes(message.data)
    return socket
