"""AGS and Veeam over HTTP: ``/ags/{servicediscovery,signOn,refresh,signOut}`` and ``/api/oauth2/token``.

Their errors have a status and no body, and carry a ``Date``.
"""

import json
import re
from collections.abc import Awaitable, Callable
from typing import Any, cast

from aiohttp import web

from proxy.sandbox.ags import Ags, AgsRequest, Operation
from proxy.sandbox.exchange import Exchange, certificate_name
from proxy.sandbox.faults import Fault
from proxy.sandbox.forms import read_form
from proxy.sandbox.replies import RefusalError, Reply
from proxy.sandbox.state import SandboxState, TokenCall
from proxy.sandbox.veeam import GRANTS, Veeam

AGS_PATH = re.compile(r"/ags/(?P<operation>servicediscovery|signOn|refresh|signOut)")
VEEAM_PATH = "/api/oauth2/token"

_FORM = "application/x-www-form-urlencoded"


class AgsEndpoints:
    """The HTTP side. ``sleep`` takes seconds and passes the time of a fault's delay."""

    def __init__(self, state: SandboxState, ags: Ags, sleep: Callable[[float], Awaitable[None]]) -> None:
        self._state = state
        self._ags = ags
        self._exchange = Exchange(state, sleep)

    async def handle(self, request: web.Request, match: re.Match[str]) -> web.StreamResponse:
        operation = cast(Operation, match["operation"])
        if request.method != ("GET" if operation == "servicediscovery" else "POST"):
            return await self._exchange.send(request, None, Reply(405, None))
        document = _json_object(request, await request.read())
        call = AgsRequest(
            operation,
            request.headers.get("x-auth-service-id"),
            request.headers.get("nv-tenant-id"),
            request.headers.get("Authorization"),
            document,
        )
        seen = TokenCall(
            self._state.now(),
            "ags",
            call.service or "",
            operation,
            document or {},
            request.raw_headers,
            certificate_name(request),
        )

        async def handle() -> Reply:
            return self._ags.answer(call)

        return await self._exchange.answer(request, seen, handle, _rejection)


class VeeamEndpoint:
    """The HTTP side. ``sleep`` takes seconds and passes the time of a fault's delay."""

    def __init__(self, state: SandboxState, veeam: Veeam, sleep: Callable[[float], Awaitable[None]]) -> None:
        self._state = state
        self._veeam = veeam
        self._exchange = Exchange(state, sleep)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        if request.method != "POST":
            return await self._exchange.send(request, None, Reply(405, None))
        if request.content_type != _FORM:
            return await self._exchange.send(request, None, Reply(415, None))
        body = await request.read()
        try:
            form = read_form(body)
        except RefusalError:
            form = {}
        grant = form.get("grant_type", "")
        seen = TokenCall(
            self._state.now(),
            "veeam",
            "",
            grant if grant in GRANTS else "",
            form,
            request.raw_headers,
            certificate_name(request),
        )

        async def handle() -> Reply:
            return self._veeam.token(body)

        return await self._exchange.answer(request, seen, handle, _rejection)


def _json_object(request: web.Request, body: bytes) -> dict[str, Any] | None:
    """The body as an object; None when it is not announced as JSON, or is something else."""
    if request.content_type != "application/json":
        return None
    try:
        document = json.loads(body)
    except ValueError:
        return None
    return document if isinstance(document, dict) else None


def _rejection(fault: Fault) -> Reply:
    refusal = RefusalError(fault.status or 401, fault.error or "", fault.description)
    return refusal.reply() if fault.error else refusal.bare()
