"""Veeam Backup for Azure: a form with names of its own (vendor: "Obtaining Token"). Pure but for reading secrets."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from math import inf
from urllib.parse import urlencode

from proxy.config import VeeamIdentity
from proxy.errors import SecretError, TokenError
from proxy.tokens.pair import Grant
from proxy.tokens.systems.base import Reply, Step, TokenRequest
from proxy.tokens.systems.refusals import by_bare_status, grant_fields, refusal
from proxy.tokens.systems.replies import read_grant


class Veeam:
    """One identity at one appliance. It documents neither error words nor a logout."""

    seed = None

    def __init__(self, identity: VeeamIdentity) -> None:
        self._identity = identity

    def seed_digest(self) -> str | None:
        return None

    def login(self, client_id: str | None = None) -> TokenRequest:  # noqa: ARG002 (for systems that know devices)
        return self._request({"grant_type": "Password"})

    def refresh(self, refresh_token: str) -> TokenRequest:
        return self._request({"grant_type": "Refresh_token", "refresh_token": refresh_token}, refresh_token)

    def logout(self, access_token: str, refresh_token: str) -> TokenRequest | None:  # noqa: ARG002 (there is none)
        return None

    def read(self, reply: Reply, request: TokenRequest, step: Step, wall: float) -> Grant:
        fields = grant_fields(reply)
        if fields is None:
            raise refusal(reply, request, step, {}, self._identity.username, wall, by_bare_status)
        if fields.get("mfa_token") and not fields.get("access_token"):
            words = (
                f"user {self._identity.username} has multi-factor authentication on, which needs a person at each "
                "login: turn it off for this user, or use an account without it"
            )
            raise TokenError("operator", words, status=reply.status)
        grant = read_grant(fields, wall)
        return replace(grant, lifetime=_told(fields, wall)) if grant.lifetime == inf else grant

    def _request(self, fields: dict[str, str], *secrets: str) -> TokenRequest:
        """The refresh carries both credentials too, as the vendor's example does."""
        identity = self._identity
        password = identity.secret("password")
        if password is None:
            raise SecretError("password is not configured")
        secrets = (password.read(), *secrets)
        body = urlencode(identity.extra | fields | {"Username": identity.username, "Password": secrets[0]})
        headers = [("Content-Type", "application/x-www-form-urlencoded"), ("Accept", "application/json")]
        headers += identity.headers.items()
        return TokenRequest(
            "POST", identity.token_url, tuple(headers), body.encode("ascii"), (*secrets, *identity.headers.values())
        )


def _told(fields: Mapping[str, object], wall: float) -> float:
    """Seconds by ``.expires`` where nothing else tells: against ``.issued``, else against our clock."""
    expires, issued = _moment(fields.get(".expires")), _moment(fields.get(".issued"))
    if expires is None:
        return inf
    life = expires - (wall if issued is None else issued)
    if life <= 0:
        raise TokenError("malformed", "the access token is expired already by .expires in the reply", lost=True)
    return life


def _moment(value: object) -> float | None:
    """Unix seconds of ISO 8601 with any number of fractional digits (.NET writes seven); UTC where no zone is told."""
    try:
        moment = datetime.fromisoformat(value) if isinstance(value, str) else None
        return None if moment is None else (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None
