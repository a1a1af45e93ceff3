"""AGS, Nagra's Authentication Gateway Service: discovery, sign-on, refresh and sign-out.

After the vendor's pages "Getting SSO services", "Signing in with SSO", "Re-authenticating using the refresh token" and
"Signing out with SSO". They give a refusal's status and no words, so that is all a caller sees; the words are in the
events.
"""

import secrets
import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

from proxy.sandbox.forms import same
from proxy.sandbox.replies import RefusalError, Reply
from proxy.sandbox.settings import User
from proxy.sandbox.signing import Claims, Signer, expired
from proxy.sandbox.state import SandboxState, Session

ACCESS, REFRESH = "DevAuthN", "RefreshAuthN"

Operation = Literal["servicediscovery", "signOn", "refresh", "signOut"]


@dataclass(frozen=True)
class AgsRequest:
    """One call. service, tenant: the headers ``x-auth-service-id`` and ``nv-tenant-id``. token: ``Authorization`` as it
    came. document: the JSON object of the body, None when it is none.
    """

    operation: Operation
    service: str | None
    tenant: str | None
    token: str | None = field(repr=False)
    document: dict[str, Any] | None = field(repr=False)


class Ags:
    """The protocol over one sandbox's state."""

    def __init__(self, state: SandboxState, signer: Signer) -> None:
        self._state = state
        self._signer = signer

    def answer(self, request: AgsRequest) -> Reply:
        settings = self._state.settings.ags
        try:
            if settings.tenant_id and request.tenant != settings.tenant_id:
                raise _refusal(403, "nv-tenant-id names another tenant")
            match request.operation:
                case "servicediscovery":
                    return self._discovery()
                case "signOn":
                    return self._sign_on(request)
                case "refresh":
                    return self._refresh(request)
                case "signOut":
                    return self._sign_out(request)
        except RefusalError as refusal:
            self._state.count("ags", "refusals")
            words = refusal.description or ""
            self._state.record("refused", system="ags", grant=request.operation, status=refusal.status, words=words)
            return refusal.bare()

    def _discovery(self) -> Reply:
        settings = self._state.settings.ags
        if not settings.services:
            raise _refusal(404, "there is no service")
        sign_on = [*_listed(settings.sign_on_parameters, True, settings.password_parameters)]
        sign_on += _listed(settings.optional_parameters, False, settings.password_parameters)
        refresh = [*_listed(settings.refresh_parameters, True, settings.password_parameters)]
        endpoints = [
            {"name": "SIGNON", "path": "/signOn", "parameterProperties": sign_on},
            {"name": "REFRESH", "path": "/refresh", "parameterProperties": refresh},
        ]
        services = [
            {"authServiceName": name, "displayAttributes": {"name": name}, "endpoints": endpoints}
            for name in settings.services
        ]
        return Reply(200, {"availableServices": services})

    def _sign_on(self, request: AgsRequest) -> Reply:
        settings = self._state.settings.ags
        service = self._service(request)
        given = _parameters(request.document, settings.sign_on_parameters)
        device = self._device(request.document or {})
        user = self._user(given)
        if device is not None and device not in self._state.devices:
            raise _refusal(404, "clientId is unknown")
        if device is not None and self._state.devices[device] != user.username:
            raise _refusal(403, "clientId belongs to another user")
        if not settings.accounts:
            raise _refusal(404, "no account matches")
        if len(settings.accounts) > 1:
            self._state.record("several_accounts", system="ags", user=user.username)
            accounts = [{"accountId": account} for account in settings.accounts]
            return Reply(300, {"userAccountToken": secrets.token_urlsafe(24), "accounts": accounts})
        if device is None:
            device = uuid.uuid4().hex
            self._state.remember_device(device, user.username)
        session = self._state.open_session(service, device, user.username, "", "ags")
        self._state.count("ags", "logins")
        self._state.record("login", system="ags", user=user.username, client=device)
        return Reply(201, self._pair(session))

    def _refresh(self, request: AgsRequest) -> Reply:
        service = self._service(request)
        given = _parameters(request.document, self._state.settings.ags.refresh_parameters)
        claims = self._claims(request.token, REFRESH, 401)
        session = self._state.sessions.get(claims["sid"])
        if session is None or session.detached or not self._state.session_alive(session):
            raise _refusal(401, "the session is over")
        if session.realm != service:
            raise _refusal(403, "x-auth-service-id is not that of the sign-on")
        user = self._state.users.get(session.username)
        if user is None or not user.enabled:
            raise _refusal(403, "the user is disabled")
        if given.get("username", session.username) != session.username:
            raise _refusal(403, "username is not that of the sign-on")
        reused = self._state.spend(session, claims["jti"])
        if reused is not None:
            raise _refusal(401, reused)
        session.last_refresh = int(self._state.now())
        self._state.count("ags", "refreshes")
        self._state.record("refresh", system="ags", user=session.username, client=session.client_id)
        return Reply(200, self._pair(session))

    def _sign_out(self, request: AgsRequest) -> Reply:
        """Ends the access token's session. The vendor lists 200, 400, 403 and 404 for this call, and no 401."""
        self._service(request)
        claims = self._claims(request.token, ACCESS, 403)
        session = self._state.sessions.pop(claims["sid"], None)
        if session is None:
            raise _refusal(404, "the session is over")
        self._state.count("ags", "logouts")
        self._state.record("logout", system="ags", client=session.client_id)
        return Reply(200, None)

    def _service(self, request: AgsRequest) -> str:
        if request.service is None:
            raise _refusal(400, "x-auth-service-id is missing")
        if request.service not in self._state.settings.ags.services:
            raise _refusal(400, "x-auth-service-id names no service")
        return request.service

    def _device(self, document: dict[str, Any]) -> str | None:
        """The client id of a device that was here before; None for a new one."""
        information, client_id = document.get("deviceInformation"), document.get("clientId")
        if information is not None and client_id is not None:
            raise _refusal(400, "deviceInformation and clientId exclude each other")
        if information is not None and not isinstance(information, dict):
            raise _refusal(400, "deviceInformation is no object")
        if client_id is not None and not isinstance(client_id, str):
            raise _refusal(400, "clientId is no string")
        if self._state.settings.ags.require_device and not information and not client_id:
            raise _refusal(400, "neither deviceInformation nor clientId")
        return client_id

    def _user(self, given: dict[str, str]) -> User:
        user = self._state.users.get(given.get("username", ""))
        if user is None or not same(user.password, given.get("password", "")):
            raise _refusal(401, "wrong user name or password")
        if not user.enabled:
            raise _refusal(403, "the user is disabled")
        return user

    def _claims(self, token: str | None, kind: str, status: int) -> Claims:
        if token is None:
            raise _refusal(400, "Authorization is missing")
        if " " in token:
            raise _refusal(status, "Authorization is not the bare token")
        claims = self._signer.read_ags(token)
        if claims is None or claims["typ"] != kind:
            raise _refusal(status, f"Authorization is no {kind} token")
        if expired_token(claims, self._state.now()):
            raise _refusal(status, "the token is expired")
        return claims

    def _pair(self, session: Session) -> dict[str, Any]:
        """A new pair of the session; both lifetimes shrink as its fixed end comes near."""
        settings = self._state.settings.ags
        now = int(self._state.now())
        ends = session.started + settings.session_max
        life, refresh_life = min(settings.access_life, ends - now), min(settings.refresh_life, ends - now)
        unit = 1000 if settings.exp_milliseconds else 1
        account = settings.accounts[0] if settings.accounts else ""
        who = {
            "ver": "1.0",
            "fixed_exp": ends * unit,
            "tenantId": settings.tenant_id or "nagra",
            "accountId": account,
            "userId": session.username,
            "deviceId": session.client_id,
            # The vendor shows no such claim; it ties the token to its session here.
            "sid": session.sid,
        }
        access: Claims = {"typ": ACCESS, "exp": (now + life) * unit, "jti": str(uuid.uuid4()), **who}
        refresh = {"typ": REFRESH, "exp": (now + refresh_life) * unit, "jti": str(uuid.uuid4()), **who}
        self._state.remember_access(access["jti"], session.sid)
        return {
            "access_token": self._signer.ags(access),
            "refresh_token": self._signer.ags(refresh),
            "client_id": session.client_id,
            "accountId": account,
            "token_type": "bearer",
            "expires_in": life,
            "refresh_expires_in": refresh_life,
            "fixed_refresh_expires_in": ends - now if settings.fixed_counts_down else settings.session_max,
        }


def expired_token(claims: Claims, now: float) -> bool:
    """``exp`` may be in milliseconds: no date in seconds is that far away."""
    in_milliseconds = claims["exp"] > 1e11
    return expired({"exp": claims["exp"] / 1000 if in_milliseconds else claims["exp"]}, now)


def _refusal(status: int, words: str) -> RefusalError:
    return RefusalError(status, "", words)


def _listed(names: Iterable[str], mandatory: bool, passwords: Iterable[str]) -> Iterable[dict[str, Any]]:
    return ({"name": name, "mandatory": mandatory, "isPassword": name in passwords} for name in names)


def _parameters(document: dict[str, Any] | None, required: Iterable[str]) -> dict[str, str]:
    """Names and values. Raises RefusalError on another shape, a name that comes twice or a missing one."""
    if document is None:
        raise _refusal(400, "the body is no JSON object")
    listed = document.get("parameters", [])
    if not isinstance(listed, list):
        raise _refusal(400, "parameters is no list")
    given: dict[str, str] = {}
    for item in listed:
        if not isinstance(item, dict) or item.keys() != {"name", "value"} or not all(map(_is_text, item.values())):
            raise _refusal(400, "a parameter is not an object of the strings name and value")
        if item["name"] in given:
            raise _refusal(400, "a parameter comes twice")
        given[item["name"]] = item["value"]
    missing = [name for name in required if not given.get(name)]
    if missing:
        raise _refusal(400, f"mandatory parameters are missing: {', '.join(missing)}")
    return given


def _is_text(value: object) -> bool:
    return isinstance(value, str)
