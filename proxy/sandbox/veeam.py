"""Veeam Backup for Azure: ``POST /api/oauth2/token``, with its own names of fields and grants.

After the vendor's page "Obtaining Token". It gives a refusal's status and no words, so that is all a caller sees; the
words are in the events.
"""

import secrets
import uuid
from datetime import UTC, datetime
from typing import Any

from proxy.sandbox.forms import read_form, same
from proxy.sandbox.replies import RefusalError, Reply
from proxy.sandbox.settings import User
from proxy.sandbox.signing import Claims, Signer, expired
from proxy.sandbox.state import SandboxState, Session

ACCESS_AUDIENCE = "veeam-backup-azure"
GRANTS = ("Password", "Refresh_token")

_REFRESH_AUDIENCE = "auth/refresh/"


class Veeam:
    """The protocol over one sandbox's state. Names are taken to the letter: ``Username`` is there, ``username`` not."""

    def __init__(self, state: SandboxState, signer: Signer) -> None:
        self._state = state
        self._signer = signer

    def token(self, body: bytes) -> Reply:
        grant = ""
        try:
            form = read_form(body)
            grant = form.get("grant_type", "")
            if grant == "Password":
                return self._password(form)
            if grant == "Refresh_token":
                return self._refresh(form)
            raise _refusal(400, "grant_type is neither Password nor Refresh_token")
        except RefusalError as refusal:
            self._state.count("veeam", "refusals")
            words = refusal.description or ""
            self._state.record("refused", system="veeam", grant=grant[:40], status=refusal.status, words=words)
            return refusal.bare()

    def _password(self, form: dict[str, str]) -> Reply:
        user = self._user(form)
        if self._state.settings.veeam.mfa:
            self._state.record("mfa", system="veeam", user=user.username)
            return Reply(200, {"mfa_token": secrets.token_urlsafe(32), "mfa_enabled": True})
        session = self._state.open_session("", "", user.username, "", "veeam")
        self._state.count("veeam", "logins")
        self._state.record("login", system="veeam", user=user.username)
        return Reply(200, self._pair(session))

    def _refresh(self, form: dict[str, str]) -> Reply:
        if not form.get("refresh_token"):
            raise _refusal(400, "refresh_token is missing")
        user = self._user(form) if self._state.settings.veeam.refresh_credentials else None
        session, jti = self._presented(form["refresh_token"])
        if user is not None and user.username != session.username:
            raise _refusal(401, "Username is not that of the login")
        owner = self._state.users.get(session.username)
        if owner is None or not owner.enabled:
            raise _refusal(401, "the user is disabled")
        reused = self._state.spend(session, jti)
        if reused is not None:
            raise _refusal(401, reused)
        session.last_refresh = int(self._state.now())
        self._state.count("veeam", "refreshes")
        self._state.record("refresh", system="veeam", user=session.username)
        return Reply(200, self._pair(session))

    def _user(self, form: dict[str, str]) -> User:
        if not form.get("Username") or not form.get("Password"):
            raise _refusal(400, "Username or Password is missing")
        user = self._state.users.get(form["Username"])
        if user is None or not user.enabled or not same(user.password, form["Password"]):
            raise _refusal(401, "wrong user name or password, or the user is disabled")
        return user

    def _presented(self, token: str) -> tuple[Session, str]:
        """The living session of a refresh token, and the token's jti."""
        claims = self._signer.read_veeam(token)
        if claims is None or not str(claims["aud"]).startswith(_REFRESH_AUDIENCE):
            raise _refusal(401, "refresh_token is none")
        if expired(claims, self._state.now()):
            raise _refusal(401, "the refresh token is expired")
        session = self._state.sessions.get(str(claims["aud"]).removeprefix(_REFRESH_AUDIENCE))
        if session is None or session.detached or not self._state.session_alive(session):
            raise _refusal(401, "the session is over")
        return session, str(claims["jti"])

    def _pair(self, session: Session) -> dict[str, Any]:
        """The reply; ``.issued`` and ``.expires`` have seven digits after the point, as .NET writes them."""
        settings = self._state.settings.veeam
        at, now = self._state.now(), int(self._state.now())
        who: Claims = {"iss": "veeam-backup-azure", "sub": session.username, "nbf": now, "iat": now}
        access = {**who, "aud": ACCESS_AUDIENCE, "exp": now + settings.access_life, "jti": str(uuid.uuid4())}
        self._state.remember_access(access["jti"], session.sid)
        refresh = {**who, "aud": _REFRESH_AUDIENCE + session.sid, "exp": now + settings.refresh_life}
        return {
            "access_token": self._signer.veeam(access),
            "token_type": "bearer",
            "refresh_token": self._signer.veeam({**refresh, "jti": str(uuid.uuid4())}),
            "expires_in": settings.access_life,
            ".issued": _dotnet_time(at),
            ".expires": _dotnet_time(at + settings.access_life),
            "userId": str(uuid.uuid5(uuid.NAMESPACE_URL, f"veeam/users/{session.username}")),
            "username": session.username,
            "roleName": "Portal Administrator",
            "userType": "Internal",
            "mfa_enabled": False,
            "shortLived": False,
        }


def _refusal(status: int, words: str) -> RefusalError:
    return RefusalError(status, "", words)


def _dotnet_time(at: float) -> str:
    moment = datetime.fromtimestamp(at, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond:06d}0Z"
