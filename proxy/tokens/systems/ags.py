"""AGS, Nagra's Authentication Gateway Service: sign-on, refresh, sign-out, service discovery.

After the vendor's pages "Signing in with SSO", "Re-authenticating using the refresh token", "Signing out with SSO" and
"Getting SSO services". Pure but for reading secrets. ``x-correlation-id`` is the transport's.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from proxy.config import AgsIdentity, Parameter
from proxy.errors import SecretError, TokenError
from proxy.tokens import claims
from proxy.tokens.pair import Grant
from proxy.tokens.systems.base import Reply, Step, TokenRequest
from proxy.tokens.systems.refusals import Verdict, by_bare_status, grant_fields, refusal
from proxy.tokens.systems.replies import json_object, malformed, read_grant

_MILLISECONDS_FROM: Final = 366 * 86400.0
"""A session told to last longer than this is told in milliseconds: the longest of the vendor's are 30 days."""


@dataclass(frozen=True, slots=True)
class Service:
    """One sign-on service. mandatory: names of the parameters that a sign-on must bring."""

    name: str
    mandatory: tuple[str, ...]


class Ags:
    """One identity at one AGS. A refusal is a bare status there."""

    seed = None

    def __init__(self, identity: AgsIdentity) -> None:
        self._identity = identity

    def seed_digest(self) -> str | None:
        return None

    def login(self, client_id: str | None = None) -> TokenRequest:
        body, secrets = _parameters(self._identity.sign_on)
        if client_id:
            body["clientId"] = client_id
        elif self._identity.device:
            body["deviceInformation"] = self._identity.device
        return self._request("/signOn", body, secrets)

    def refresh(self, refresh_token: str) -> TokenRequest:
        body, secrets = _parameters(self._identity.refresh_parameters)
        return self._request("/refresh", body, (*secrets, refresh_token), refresh_token)

    def logout(self, access_token: str, refresh_token: str) -> TokenRequest | None:  # noqa: ARG002 (takes the other)
        return self._request("/signOut", None, (access_token,), access_token)

    @property
    def service(self) -> str:
        return self._identity.auth_service_id

    @property
    def sign_on_names(self) -> list[str]:
        return [parameter.name for parameter in self._identity.sign_on]

    def discovery(self) -> TokenRequest:
        """What asks for the sign-on services."""
        headers = (("nv-tenant-id", self._identity.tenant_id), ("Accept", "application/json"))
        return TokenRequest("GET", self._url("/servicediscovery"), (*headers, *self._identity.headers.items()), b"")

    def read(self, reply: Reply, request: TokenRequest, step: Step, wall: float) -> Grant:
        fields = grant_fields(reply)
        if fields is None:
            error = refusal(reply, request, step, {}, self._identity.account, wall, _by_status)
            if step == "login" and reply.status in (403, 404) and b'"clientId":' in request.body:
                words = f"AGS may have forgotten this device, the next sign-on introduces it anew; {error.words}"
                raise TokenError("invalid_grant", words, status=reply.status)
            raise error
        if fields.get("access_token") is None and fields.get("userAccountToken") is not None:
            raise refusal(replace(reply, status=300), request, step, {}, self._identity.account, wall, _by_status)
        grant = read_grant(fields, wall)
        client_id = fields.get("client_id")
        return replace(
            grant,
            refresh_lifetime=_seconds(grant.refresh_lifetime),
            session_lifetime=_session(fields, grant, wall),
            client_id=client_id if isinstance(client_id, str) and 0 < len(client_id) <= 1024 else None,
        )

    def _request(
        self, path: str, body: dict[str, Any] | None, secrets: tuple[str, ...], token: str | None = None
    ) -> TokenRequest:
        """token: bare in ``Authorization``, without a scheme word."""
        identity = self._identity
        headers = [("x-auth-service-id", identity.auth_service_id), ("nv-tenant-id", identity.tenant_id)]
        headers.append(("Accept", "application/json"))
        if body is not None:
            headers.append(("Content-Type", "application/json"))
        if token is not None:
            headers.append(("Authorization", token))
        content = b"" if body is None else json.dumps(body, separators=(",", ":")).encode("ascii")
        return TokenRequest(
            "POST",
            self._url(path),
            (*headers, *identity.headers.items()),
            content,
            (*secrets, *identity.headers.values()),
        )

    def _url(self, path: str) -> str:
        return self._identity.base_url.rstrip("/") + path


def _parameters(parameters: list[Parameter]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The body's first part, and the values in it. Raises SecretError."""
    values: list[str] = []
    for parameter in parameters:
        secret = parameter.secret("value")
        if secret is None:
            raise SecretError(f"the parameter {parameter.name} has no value")
        values.append(secret.read())
    pairs = zip(parameters, values, strict=True)
    return {"parameters": [{"name": parameter.name, "value": value} for parameter, value in pairs]}, tuple(values)


def _by_status(status: int, step: Step) -> Verdict:
    if status == 300:
        words = (
            "several accounts match this sign-on, and a person would have to choose: give sign_on parameters that "
            "match one account only"
        )
        return "operator", words, False
    if status in (404, 405):
        words = "AGS knows no such service, account or address: check base_url, auth_service_id and tenant_id"
        return "operator", words, False
    if 301 <= status < 400:
        return "malformed", "AGS answered with a redirect, which is not followed: give its address as base_url", False
    return by_bare_status(status, step)


def _session(fields: Mapping[str, object], grant: Grant, wall: float) -> float | None:
    """Seconds until the session's fixed end, by the reply or by the token, whichever is sooner: some deployments tell
    the whole length each time."""
    told = _seconds(claims.number(fields.get("fixed_refresh_expires_in")))
    inside = claims.decode(grant.access)
    ends, expires = claims.moment(inside, "fixed_exp"), claims.moment(inside, "exp")
    of_jwt = None
    if ends is not None:
        # Both times are of AGS' own clock, so a wrong one there or here does not matter.
        of_jwt = ends - wall if expires is None else ends - expires + grant.lifetime
    known = [seconds for seconds in (told, of_jwt) if seconds is not None and seconds > 0]
    return min(known) if known else None


def _seconds(told: float | None) -> float | None:
    return told if told is None or told <= _MILLISECONDS_FROM else told / 1000


def services(reply: Reply) -> list[Service]:
    """What ``discovery`` lists; none for a 404. Raises TokenError when the reply is not of the documented shape."""
    if reply.status == 404:
        return []
    listed = (json_object(reply) or {}).get("availableServices") if reply.status == 200 else None
    if not isinstance(listed, list):
        raise malformed("it lists no availableServices")
    return [found for entry in listed if (found := _service(entry)) is not None]


def _service(entry: object) -> Service | None:
    if not isinstance(entry, dict) or not isinstance(entry.get("authServiceName"), str):
        return None
    endpoints = entry.get("endpoints")
    parts = [
        part
        for endpoint in (endpoints if isinstance(endpoints, list) else [])
        if isinstance(endpoint, dict) and endpoint.get("name") == "SIGNON"
        for properties in (endpoint.get("parameterProperties"),)
        for part in (properties if isinstance(properties, list) else [])
    ]
    mandatory = (part.get("name") for part in parts if isinstance(part, dict) and part.get("mandatory") is True)
    return Service(entry["authServiceName"], tuple(name for name in mandatory if isinstance(name, str)))
