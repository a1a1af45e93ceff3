"""Keycloak's token and logout endpoints: grants password, refresh_token and client_credentials, as 26.4 answers them.

Error words and statuses are those observed on 26.4.7; the order of the checks is that of its ``TokenManager``. HTTP is
made of it in ``endpoints``.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Literal

from proxy.sandbox.clients import ClientRequest, authenticate
from proxy.sandbox.forms import read_form, same
from proxy.sandbox.mint import Mint
from proxy.sandbox.replies import RefusalError, Reply
from proxy.sandbox.settings import Client, User
from proxy.sandbox.signing import Claims, Signer, expired
from proxy.sandbox.state import Attempts, SandboxState

Operation = Literal["token", "logout", "certs"]

_DEFAULT_SCOPE = ("profile", "email")


@dataclass(frozen=True)
class TokenRequest:
    """One call. issuer: the realm's URL under the scheme and host name the caller used, which its tokens then carry.

    certificate: the common name of the caller's TLS certificate, "" without one.
    """

    realm: str
    issuer: str
    authorization: str | None = field(repr=False)
    body: bytes = field(repr=False)
    certificate: str = ""


def _wrong_password() -> RefusalError:
    """What an unknown user, a wrong password and a locked user all get."""
    return RefusalError(401, "invalid_grant", "Invalid user credentials")


class Keycloak:
    """The protocol over one sandbox's state. ``sleep`` takes seconds and passes the time a password check takes."""

    def __init__(self, state: SandboxState, signer: Signer, sleep: Callable[[float], Awaitable[None]]) -> None:
        self._state = state
        self._signer = signer
        self._mint = Mint(state, signer)
        self._sleep = sleep

    async def token(self, request: TokenRequest) -> Reply:
        grant = ""
        try:
            self._check_realm(request.realm, request.issuer)
            form = read_form(request.body)
            grant = form.get("grant_type", "")
            return await self._grant(request, form)
        except RefusalError as refusal:
            self._refused(refusal, grant)
            return refusal.reply()

    async def _grant(self, request: TokenRequest, form: dict[str, str]) -> Reply:
        if "grant_type" not in form:
            raise RefusalError(400, "invalid_request", "Missing form parameter: grant_type")
        client = self._client(request, form)
        match form["grant_type"]:
            case "password":
                return await self._password(request, client, form)
            case "refresh_token":
                return self._refresh(request, client, form)
            case "client_credentials":
                return self._client_credentials(request, client, form)
        raise RefusalError(400, "unsupported_grant_type", "Unsupported grant_type")

    def logout(self, request: TokenRequest) -> Reply:
        """Ends the refresh token's session; 204 also when it is gone already."""
        try:
            self._check_realm(request.realm, request.issuer)
            form = read_form(request.body)
            client = self._client(request, form)
            claims = self._refresh_claims(request, client, form, check_expiry=False)
        except RefusalError as refusal:
            self._refused(refusal, "logout")
            return refusal.reply()
        if self._state.sessions.pop(claims["sid"], None) is not None:
            self._state.counters["logouts"] += 1
            self._state.record("logout", client=client.client_id)
        return Reply(204, None)

    def certs(self, realm: str, issuer: str) -> Reply:
        try:
            self._check_realm(realm, issuer)
        except RefusalError as refusal:
            return refusal.reply()
        return Reply(200, dict(self._signer.jwks()))

    def _refused(self, refusal: RefusalError, grant: str) -> None:
        self._state.counters["token_refusals"] += 1
        words = refusal.description or ""
        self._state.record("token_refused", grant=grant[:40], status=refusal.status, error=refusal.error, words=words)

    def _client(self, request: TokenRequest, form: dict[str, str]) -> Client:
        return authenticate(
            self._state, ClientRequest(form, request.authorization, request.issuer, request.certificate)
        )

    def _check_realm(self, name: str, issuer: str) -> None:
        realm = self._state.realms.get(name)
        if realm is None:
            raise RefusalError(404, "Realm does not exist")
        if realm.require_https and not issuer.startswith("https:"):
            raise RefusalError(403, "invalid_request", "HTTPS required")
        if not realm.enabled:
            raise RefusalError(403, "access_denied", "Realm not enabled")

    async def _password(self, request: TokenRequest, client: Client, form: dict[str, str]) -> Reply:
        if not client.direct_access_grants:
            raise RefusalError(400, "unauthorized_client", "Client not allowed for direct access grants")
        scope = self._requested_scope(form)
        user = await self._check_password(form)
        offline = "offline_access" in scope.split()
        if offline and "offline_access" not in user.roles:
            raise RefusalError(400, "not_allowed", "Offline tokens not allowed for the user or client")
        session = self._state.open_session(request.realm, client.client_id, user.username, scope)
        self._state.counters["logins"] += 1
        self._state.record("login", user=user.username, client=client.client_id)
        return Reply(200, self._mint.pair(session, request.issuer))

    async def _check_password(self, form: dict[str, str]) -> User:
        if "username" not in form:
            raise RefusalError(401, "invalid_request", "Missing parameter: username")
        user = self._state.users.get(form["username"])
        if user is None:
            raise _wrong_password()
        attempts = self._state.attempts.setdefault(user.username, Attempts())
        if attempts.in_progress or self._state.now() < attempts.locked_until:
            self._state.record("user_temporarily_disabled", user=user.username)
            raise _wrong_password()
        if self._state.settings.login_time > 0:
            attempts.in_progress = True
            try:
                await self._sleep(self._state.settings.login_time)
            finally:
                attempts.in_progress = False
        if not same(user.password, form.get("password", "")):
            self._failed_login(user, attempts)
            raise _wrong_password()
        attempts.last_failure = float("-inf")
        if not user.enabled:
            raise RefusalError(400, "invalid_grant", "Account disabled")
        if not user.fully_set_up:
            raise RefusalError(400, "invalid_grant", "Account is not fully set up")
        return user

    def _failed_login(self, user: User, attempts: Attempts) -> None:
        """Keycloak's quick login check: two failures in less than ``quick_login_ms`` lock the user for a while."""
        now = self._state.now()
        settings = self._state.settings
        if (now - attempts.last_failure) * 1000 < settings.quick_login_ms:
            attempts.locked_until = now + settings.quick_login_wait
            self._state.counters["lockouts"] += 1
            self._state.record("lockout", user=user.username, seconds=settings.quick_login_wait)
        attempts.last_failure = now

    def _requested_scope(self, form: dict[str, str]) -> str:
        wanted = form.get("scope", "").split()
        known = {*self._state.settings.scopes, "openid"}
        if not known.issuperset(wanted):
            raise RefusalError(400, "invalid_scope", f"Invalid scopes: {form['scope'][:200]}")
        return " ".join(dict.fromkeys([*wanted, *_DEFAULT_SCOPE]))

    def _refresh_claims(
        self, request: TokenRequest, client: Client, form: dict[str, str], *, check_expiry: bool
    ) -> Claims:
        if "refresh_token" not in form:
            raise RefusalError(400, "invalid_request", "No refresh token")
        claims = self._signer.read_refresh(form["refresh_token"])
        if claims is None:
            raise RefusalError(400, "invalid_grant", "Invalid refresh token")
        if claims["iss"] != request.issuer:
            raise RefusalError(400, "invalid_grant", f"Invalid token issuer. Expected '{request.issuer}'")
        if check_expiry and expired(claims, self._state.now()):
            raise RefusalError(400, "invalid_grant", "Token is not active")
        if check_expiry and claims["iat"] < self._state.not_before:
            raise RefusalError(400, "invalid_grant", "Stale token")
        if claims["azp"] != client.client_id:
            words = "Invalid refresh token. Token client and authorized client don't match"
            raise RefusalError(400, "invalid_grant", words)
        return claims

    def _refresh(self, request: TokenRequest, client: Client, form: dict[str, str]) -> Reply:
        claims = self._refresh_claims(request, client, form, check_expiry=True)
        session = self._state.sessions.get(claims["sid"])
        if session is None or not self._state.session_alive(session):
            self._state.sessions.pop(claims["sid"], None)
            words = "Offline user session not found" if claims["typ"] == "Offline" else "Session not active"
            raise RefusalError(400, "invalid_grant", words)
        user = self._state.users.get(session.username)
        if user is None or not user.enabled:
            raise RefusalError(400, "invalid_grant", "User disabled")
        if session.detached:
            raise RefusalError(400, "invalid_grant", "Session doesn't have required client")
        reused = self._state.spend(session, claims["jti"])
        if reused is not None:
            raise RefusalError(400, "invalid_grant", reused)
        session.last_refresh = int(self._state.now())
        self._state.counters["refreshes"] += 1
        self._state.record("refresh", user=session.username, client=client.client_id)
        narrowed = [scope for scope in session.scope.split() if scope in form.get("scope", session.scope).split()]
        return Reply(200, self._mint.pair(session, request.issuer, " ".join(narrowed) or session.scope))

    def _client_credentials(self, request: TokenRequest, client: Client, form: dict[str, str]) -> Reply:
        if client.public:
            raise RefusalError(401, "unauthorized_client", "Public client not allowed to retrieve service account")
        if not client.service_account:
            raise RefusalError(401, "unauthorized_client", "Client not enabled to retrieve service account")
        scope = self._requested_scope(form)
        self._state.counters["client_credentials"] += 1
        self._state.record("client_credentials", client=client.client_id)
        return Reply(200, self._mint.service_account(client, request.issuer, scope))
