"""Any RFC 6749 token endpoint: grants password, client_credentials and refresh_token. Pure but for reading secrets."""

from base64 import b64encode
from collections.abc import Iterator
from contextlib import suppress
from hashlib import sha256
from typing import ClassVar, Protocol
from urllib.parse import quote_plus, urlencode

from proxy.config import TokenEndpointIdentity
from proxy.errors import SecretError, TokenError
from proxy.tokens.pair import Grant
from proxy.tokens.systems.base import Reply, Step, TokenRequest
from proxy.tokens.systems.refusals import ELSEWHERE, Known, grant_fields, new_seed, refusal
from proxy.tokens.systems.replies import read_grant

Fields = dict[str, str]
_SHORT = 5  # characters


class Proof(Protocol):
    """How a client proves itself anew in each request (``Assertions``). Known by its shape: importing what signs takes
    a twentieth of the start, and most clients need none."""

    def fields(self) -> Fields:
        """Form fields. Raises SecretError."""

    def heard(self, date: str, wall: float) -> None:
        """A reply came. date: its ``Date``. wall: Unix time when it came."""


class OAuth2:
    """One identity at one token endpoint. Client authentication is as configured, never probed: a probe would spend
    the refresh token (K13). assertions: of client_auth private_key_jwt."""

    known: ClassVar[Known] = {}

    def __init__(self, identity: TokenEndpointIdentity, assertions: Proof | None = None) -> None:
        self._identity = identity
        self._assertions = assertions

    @property
    def seed(self) -> str | None:
        if self._identity.grant != "refresh_token":
            return None
        secret = self._identity.secret("refresh_token")
        return str(secret.path) if secret and secret.path else "refresh_token"

    def seed_digest(self) -> str | None:
        if self._identity.grant != "refresh_token":
            return None
        return sha256(self._seed_token().encode()).hexdigest()

    def login(self, client_id: str | None = None) -> TokenRequest:  # noqa: ARG002 (for systems that know devices)
        identity = self._identity
        fields: Fields = {"grant_type": identity.grant}
        secrets: tuple[str, ...] = ()
        if identity.grant == "password":
            secrets = (self._secret("password"),)
            fields |= {"username": identity.username or "", "password": secrets[0]}
        elif identity.grant == "refresh_token":
            secrets = (self._seed_token(),)
            fields |= {"refresh_token": secrets[0]}
        if identity.scope:
            fields["scope"] = identity.scope
        return self._request(identity.token_url, fields, secrets)

    def refresh(self, refresh_token: str) -> TokenRequest:
        # No scope: RFC 6749 6 then means the one granted before, and a wider one is refused or ignored.
        fields = {"grant_type": "refresh_token", "refresh_token": refresh_token}
        return self._request(self._identity.token_url, fields, (refresh_token,))

    def logout(self, access_token: str, refresh_token: str) -> TokenRequest | None:  # noqa: ARG002 (OAuth 2.0 has none)
        return None

    def read(self, reply: Reply, request: TokenRequest, step: Step, wall: float) -> Grant:
        if self._assertions is not None:
            self._assertions.heard(reply.headers.get("date", ""), wall)
        fields = grant_fields(reply)
        if fields is not None:
            return read_grant(fields, wall)
        # A seed is a refresh token: refusing it says nothing about a password.
        judged = "refresh" if self.seed else step
        error = refusal(reply, request, judged, self.known, self._identity.client_id, wall)
        if self.seed and step == "login" and error.result == "invalid_grant":
            raise self._seed_refused(error, self.seed) from error
        raise error

    @staticmethod
    def _seed_refused(error: TokenError, seed: str) -> TokenError:
        if error.words.startswith(ELSEWHERE):  # then another seed would be refused as well
            return TokenError("operator", error.words, retry_after=error.retry_after, status=error.status)
        words = f"the seed refresh token is dead or spent: {new_seed(seed)}; {error.words}"
        return TokenError(error.result, words, retry_after=error.retry_after, status=error.status)

    def _request(self, url: str, fields: Fields, secrets: tuple[str, ...]) -> TokenRequest:
        """The form (RFC 6749 appendix B) with the client's authentication (2.3.1) and the configured additions."""
        identity = self._identity
        headers = [("Content-Type", "application/x-www-form-urlencoded"), ("Accept", "application/json")]
        if identity.client_auth == "basic":
            secret = self._secret("client_secret")
            # 2.3.1: both parts are form-encoded before base64. Left out, a raw % or + in a secret is refused.
            pair = f"{quote_plus(identity.client_id)}:{quote_plus(secret)}"
            basic = b64encode(pair.encode()).decode("ascii")
            headers.append(("Authorization", f"Basic {basic}"))
            secrets = (*secrets, secret, basic)
        else:
            fields = fields | {"client_id": identity.client_id}
        if identity.client_auth == "post":
            secret = self._secret("client_secret")
            fields = fields | {"client_secret": secret}
            secrets = (*secrets, secret)
        if self._assertions is not None:
            proof = self._assertions.fields()
            fields = fields | proof
            secrets = (*secrets, proof["client_assertion"])
        headers += identity.headers.items()
        # Free-form additions may be secrets too, and a provider may quote them; a short one would tear its words apart.
        free = (*identity.extra.values(), *identity.headers.values())
        secrets = (*secrets, *(value for value in free if len(value) > _SHORT))
        body = urlencode(identity.extra | fields)
        secrets = (*secrets, *self._others())
        return TokenRequest("POST", url, tuple(headers), body.encode("ascii"), secrets)

    def _others(self) -> Iterator[str]:
        """Secrets that this request does not carry, and that a provider may know, and quote, all the same."""
        for name in ("password", "client_secret", "refresh_token"):
            secret = self._identity.secret(name)
            if secret is not None:
                with suppress(SecretError):
                    value = secret.read().strip()
                    if len(value) > _SHORT:
                        yield value

    def _seed_token(self) -> str:
        return self._secret("refresh_token").strip()

    def _secret(self, name: str) -> str:
        secret = self._identity.secret(name)
        if secret is None:
            raise SecretError(f"{name} is not configured")
        return secret.read()
