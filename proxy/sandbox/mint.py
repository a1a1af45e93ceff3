"""The bodies of Keycloak's 200 replies: which claims the tokens carry and how long they live."""

import uuid

from proxy.sandbox.settings import Client, User
from proxy.sandbox.signing import Claims, Signer
from proxy.sandbox.state import SandboxState, Session


class Mint:
    """Makes tokens of one sandbox and remembers which access tokens it made."""

    def __init__(self, state: SandboxState, signer: Signer) -> None:
        self._state = state
        self._signer = signer

    def pair(self, session: Session, issuer: str, scope: str | None = None) -> Claims:
        """A new pair of the session. Both lifetimes shrink as its end comes near; an offline one says 0: no expiry."""
        now = int(self._state.now())
        scope = session.scope if scope is None else scope
        ends = self._state.session_ends(session)
        left = None if ends is None else max(0, ends - now)
        life = self._state.settings.access_life if left is None else min(self._state.settings.access_life, left)
        user = self._state.users[session.username]
        access = {**self._access_claims(issuer, session.client_id, user, scope, life), "sid": session.sid}
        self._state.remember_access(access["jti"], session.sid)
        return {
            "access_token": self._signer.access(access),
            "expires_in": life,
            "refresh_expires_in": left or 0,
            "refresh_token": self._signer.refresh(self._refresh_claims(session, issuer, access["sub"], ends)),
            "token_type": "bearer",
            "not-before-policy": self._state.not_before,
            "session_state": session.sid,
            "scope": scope,
        }

    def service_account(self, client: Client, issuer: str, scope: str) -> Claims:
        """An access token for the client itself: no session, no refresh token, and yet ``refresh_expires_in`` 0."""
        life = self._state.settings.access_life
        account = User(f"service-account-{client.client_id}", password="")
        claims = self._access_claims(issuer, client.client_id, account, scope, life)
        self._state.remember_access(claims["jti"], None)
        return {
            "access_token": self._signer.access({**claims, "client_id": client.client_id}),
            "expires_in": life,
            "refresh_expires_in": 0,
            "token_type": "bearer",
            "not-before-policy": self._state.not_before,
            "scope": scope,
        }

    def _refresh_claims(self, session: Session, issuer: str, subject: str, ends: int | None) -> Claims:
        claims: Claims = {
            "iat": int(self._state.now()),
            "nbf": 0,
            "jti": str(uuid.uuid4()),
            "iss": issuer,
            "aud": issuer,
            "sub": subject,
            "typ": "Offline" if session.offline else "Refresh",
            "azp": session.client_id,
            "sid": session.sid,
            "scope": session.scope,
        }
        return claims if ends is None else {"exp": ends, **claims}

    def _access_claims(self, issuer: str, client_id: str, user: User, scope: str, life: int) -> Claims:
        now = int(self._state.now())
        return {
            "exp": now + life,
            "nbf": 0,
            "iat": now,
            "auth_time": 0,
            "jti": str(uuid.uuid4()),
            "iss": issuer,
            "aud": "account",
            "sub": str(uuid.uuid5(uuid.NAMESPACE_URL, f"{issuer}/users/{user.username}")),
            "typ": "Bearer",
            "azp": client_id,
            "acr": "1",
            "realm_access": {"roles": list(user.roles)},
            "resource_access": {"account": {"roles": ["manage-account", "view-profile"]}},
            "scope": scope,
            "email_verified": True,
            "preferred_username": user.username,
        }
