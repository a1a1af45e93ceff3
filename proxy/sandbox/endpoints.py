"""Keycloak over HTTP: ``<any base>/realms/<realm>/protocol/openid-connect/{token,logout,certs}``.

Error replies carry no ``Date`` header, success replies do (observed on 26.4.7).
"""

import re
from collections.abc import Awaitable, Callable
from typing import cast

from aiohttp import web

from proxy.sandbox.exchange import Exchange, certificate_name
from proxy.sandbox.faults import Endpoint, Fault
from proxy.sandbox.forms import read_form
from proxy.sandbox.keycloak import Keycloak, Operation, TokenRequest
from proxy.sandbox.replies import RefusalError, Reply
from proxy.sandbox.state import SandboxState, TokenCall

PATH = re.compile(r"(?P<base>.*)/realms/(?P<realm>[^/]+)/protocol/openid-connect/(?P<operation>token|logout|certs)")

_FORM = "application/x-www-form-urlencoded"
_REFUSALS = {
    "password": RefusalError(401, "invalid_grant", "Invalid user credentials"),
    "refresh_token": RefusalError(400, "invalid_grant", "Token is not active"),
    "client_credentials": RefusalError(401, "unauthorized_client", "Invalid client or Invalid client credentials"),
}


class KeycloakEndpoints:
    """The HTTP side. ``sleep`` takes seconds and passes the time of a fault's delay."""

    def __init__(self, state: SandboxState, keycloak: Keycloak, sleep: Callable[[float], Awaitable[None]]) -> None:
        self._state = state
        self._keycloak = keycloak
        self._exchange = Exchange(state, sleep, dated_errors=False)

    async def handle(self, request: web.Request, match: re.Match[str]) -> web.StreamResponse:
        operation = cast(Operation, match["operation"])
        issuer = f"{request.scheme}://{request.host}{match['base']}/realms/{match['realm']}"
        if operation == "certs":
            return await self._exchange.send(request, None, self._keycloak.certs(match["realm"], issuer))
        if request.method != "POST":
            return await self._exchange.send(request, None, Reply(405, {"error": "HTTP 405 Method Not Allowed"}))
        if request.content_type != _FORM:
            return await self._exchange.send(request, None, Reply(415, {"error": "HTTP 415 Unsupported Media Type"}))
        body = await request.read()
        authorization, certificate = request.headers.get("Authorization"), certificate_name(request)
        call = TokenRequest(match["realm"], issuer, authorization, body, certificate)

        async def handle() -> Reply:
            return self._keycloak.logout(call) if operation == "logout" else await self._keycloak.token(call)

        seen = self._seen(request, operation, call)
        return await self._exchange.answer(request, seen, handle, lambda fault: _refusal(fault, seen.grant).reply())

    def _seen(self, request: web.Request, operation: Endpoint, call: TokenRequest) -> TokenCall:
        """The attempt; its grant is "" when it is not a known one."""
        try:
            form = read_form(call.body)
        except RefusalError:
            form = {}
        grant = form.get("grant_type", "")
        grant = grant if grant in _REFUSALS else ""
        return TokenCall(self._state.now(), operation, call.realm, grant, form, request.raw_headers, call.certificate)


def _refusal(fault: Fault, grant: str) -> RefusalError:
    usual = _REFUSALS.get(grant, _REFUSALS["refresh_token"])
    return RefusalError(
        fault.status or usual.status,
        fault.error or usual.error,
        usual.description if fault.description is None else fault.description,
    )
