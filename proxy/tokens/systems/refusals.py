"""Pure: why a token endpoint said no, and whose move it is (RFC 6749 5.2).

Order: what is no judgement on credentials at all (429, 503), then the ``error`` code, narrowed by the known
descriptions; the bare status only where a reply holds no known code.
"""

import re
from base64 import b64encode
from collections.abc import Callable, Mapping
from typing import Final
from urllib.parse import quote_plus

from proxy.errors import RefreshResult, TokenError
from proxy.tokens.systems.base import Reply, Step, TokenRequest
from proxy.tokens.systems.replies import json_object, malformed, retry_after

Known = Mapping[str, tuple[RefreshResult, str]]
"""A description's beginning, lower case, to its result and what the operator can do. ``{client}``: the client_id."""

_OPERATOR: Final[Mapping[str, str]] = {
    "invalid_client": "the provider does not accept client {client}: check client_id, client_auth and the client "
    "secret, and that the client is enabled",
    "unauthorized_client": "the provider does not accept client {client}: check the client secret and client_auth, "
    "and that the client may use this grant",
    "invalid_scope": "the provider does not know the configured scope",
    "invalid_request": "the provider does not accept the form of the request",
    "unsupported_grant_type": "the provider does not offer this grant",
    "access_denied": "the provider denies access",
}
_TRANSIENT: Final = frozenset({"server_error", "temporarily_unavailable", "unknown_error"})

ELSEWHERE: Final = "the session was opened under another host name: login and refresh must use the same token_url"

_SHAPED_LIKE_A_SECRET: Final = re.compile(r"[A-Za-z0-9_\-+/=.~%]{32,}")
_UNPRINTABLE: Final = re.compile(r"[^ -~]+")


Verdict = tuple[RefreshResult, str, bool]
"""Result, words, and whether the request may have been carried out all the same."""


def by_status(status: int, step: Step) -> Verdict:  # noqa: ARG001 (a system without error words asks for the step)
    """A refusal without a word that OAuth knows."""
    if 300 <= status < 400:
        words = (
            "the token endpoint answered with a redirect, which is not followed: give its final address as token_url"
        )
        return "malformed", words, False
    if status in (404, 405):
        return "operator", "there is no token endpoint at this address: check token_url", False
    # Whatever this is, RFC 6749 does not know it. It may come from something in front of the provider.
    return "http_error", "the token endpoint gave no answer that OAuth knows", True


def by_bare_status(status: int, step: Step) -> Verdict:
    """A refusal where a system documents no error words (AGS, Veeam): there the status alone says it."""
    if status in (400, 401):
        if step == "refresh":
            return "invalid_grant", "the provider no longer accepts the refresh token", False
        return "invalid_credentials", "the provider refused the login", False
    if status == 403:
        return "operator", "the provider forbids it: check what the account may do", False
    return by_status(status, step)


def refusal(
    reply: Reply,
    request: TokenRequest,
    step: Step,
    known: Known,
    client: str,
    wall: float,
    last_resort: Callable[[int, Step], Verdict] = by_status,
) -> TokenError:
    """The error that a reply without a grant stands for. client: the client_id. wall: Unix time when it came.
    last_resort: judges what holds no known word."""
    fields = json_object(reply) or {}
    code, description = (_clean(fields.get(name), request) for name in ("error", "error_description"))
    quoted = ", ".join(
        part for part in (f"HTTP {reply.status}", code, f'"{description}"' if description else "") if part
    )
    pause = retry_after(reply, wall)
    verdict = _judge(reply.status, code, description, step, known, pause is not None)
    result, words, lost = verdict or last_resort(reply.status, step)
    words = f"{words.replace('{client}', client)} (the provider answered {quoted})"
    judged = code not in _TRANSIENT
    return TokenError(result, words, retry_after=pause, status=reply.status, lost=lost, judged=judged)


def _judge(status: int, code: str, description: str, step: Step, known: Known, told_to_wait: bool) -> Verdict | None:
    """None when nothing in it says."""
    if status == 429 or code == "slow_down":
        return "rate_limited", "the provider limits the rate of requests", False
    if status == 503:
        return "http_error", "the provider is not available now", not told_to_wait
    for beginning, (result, words) in known.items():
        if description.lower().startswith(beginning) or code.lower() == beginning:
            return result, words, False
    if code == "invalid_grant":
        if step == "login":
            return "invalid_credentials", "the provider refused the credentials", False
        return "invalid_grant", "the provider no longer accepts the refresh token", False
    if code in _OPERATOR:
        return "operator", _OPERATOR[code], False
    if code in _TRANSIENT or status >= 500:
        return "http_error", "the provider failed", True
    return None


def new_seed(place: str) -> str:
    """What to do when the session of a seed is over. Vendor: "Obtaining Refresh Tokens with Browser"."""
    hpe = "HPE Ezmeral Unified Analytics offers it at https://token-service.DOMAIN/refresh-token-download"
    return f"put a new refresh token into {place}, downloaded where the first one came from ({hpe})"


def grant_fields(reply: Reply) -> Mapping[str, object] | None:
    """The JSON object of a successful reply; None when the reply is a refusal. Raises TokenError ``malformed``."""
    if reply.status not in (200, 201):
        return None
    fields = json_object(reply)
    if fields is None:
        raise malformed("it is empty" if not reply.body.strip() else "it is not a JSON object")
    # Some servers refuse with status 200.
    return None if isinstance(fields.get("error"), str) and not fields.get("access_token") else fields


def _clean(value: object, request: TokenRequest) -> str:
    """A provider's words, fit for a log: one line, bounded, and without any secret that it may have quoted."""
    if not isinstance(value, str):
        return ""
    text = value[:1000]
    for secret in request.secrets:
        for form in {secret, quote_plus(secret), b64encode(secret.encode()).decode().rstrip("=")}:
            text = text.replace(form, "[redacted]") if form else text
    text = _SHAPED_LIKE_A_SECRET.sub("[redacted]", text)
    return _UNPRINTABLE.sub(" ", text)[:200].strip()
