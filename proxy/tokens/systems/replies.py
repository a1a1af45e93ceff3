"""Pure: a token endpoint's successful reply, checked in every part before anything of it is used (RFC 6749 5.1).

A token ends up in a header of every request: what could end that header (CR, LF), split it (white space) or be cut by
a peer (non-ASCII) is refused here. Words never quote the reply.
"""

import json
from collections.abc import Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime
from math import inf
from typing import Final

from proxy.errors import TokenError
from proxy.tokens import claims
from proxy.tokens.pair import Grant
from proxy.tokens.systems.base import Reply

LONGEST_TOKEN: Final = 32 * 1024
"""Characters of a token. Servers take 8 to 64 KiB of headers in all."""

_MOST: Final = 10 * 365 * 86400.0
_AGREEMENT: Final = 1.5
_MILLISECONDS_FROM: Final = 30 * 86400.0
"""An access lifetime above this, contradicted or not confirmed by a JWT, is taken for milliseconds. Wrong for a rare
opaque token of months, and harmlessly so: that is refreshed more often than it need be."""


def json_object(reply: Reply) -> dict[str, object] | None:
    """The reply's JSON object; None when it is anything else."""
    try:
        value = json.loads(reply.body)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def malformed(what: str) -> TokenError:
    """A reply that cannot be used although the provider said yes. Its refresh token may be spent, so it is lost."""
    return TokenError("malformed", f"the token endpoint's reply cannot be used: {what}", lost=True)


def read_grant(fields: Mapping[str, object], wall: float) -> Grant:
    """The grant in a 200 reply's JSON. Raises TokenError ``malformed``."""
    kind = fields.get("token_type", "Bearer")
    if not isinstance(kind, str) or kind.lower() != "bearer":
        raise malformed("its token_type is not Bearer")
    access = _token(fields, "access_token")
    refresh = _token(fields, "refresh_token") if fields.get("refresh_token") is not None else None
    inside = claims.decode(access)
    return Grant(
        access=access,
        refresh=refresh,
        lifetime=access_lifetime(fields.get("expires_in"), inside, wall),
        refresh_lifetime=refresh_lifetime(fields.get("refresh_expires_in"), refresh, wall),
        issued_at=claims.moment(inside, "iat"),
        not_before=claims.number(fields.get("not-before-policy")) or 0.0,
        scope=scope if isinstance(scope := fields.get("scope"), str) else "",
        roles=claims.roles(inside) if inside else None,
    )


def _token(fields: Mapping[str, object], name: str) -> str:
    token = fields.get(name)
    if token is None:
        raise malformed(f"it holds no {name}")
    if not isinstance(token, str) or not token:
        raise malformed(f"its {name} is not a non-empty string")
    if len(token) > LONGEST_TOKEN:
        raise malformed(f"its {name} is longer than {LONGEST_TOKEN} characters")
    if not all("!" <= character <= "~" for character in token):
        raise malformed(f"its {name} holds characters that no token may hold (RFC 6750 2.1)")
    return token


def access_lifetime(expires_in: object, inside: claims.Claims, wall: float) -> float:
    """Seconds the access token lives: ``expires_in``, else the JWT's ``exp`` minus ``iat``, else ``exp`` against our
    wall clock; ``inf`` when nothing tells. Raises TokenError when it is dead already, or never was alive."""
    told = claims.number(expires_in)
    if told is None and expires_in is not None and not inside:
        raise malformed("its expires_in is not a number of seconds")
    of_jwt = claims.lifetime(inside)
    expires = claims.moment(inside, "exp")
    if told is not None and told > 0:
        return min(_in_seconds(told, of_jwt), _MOST, _since_cut_off(inside, expires, wall))
    if of_jwt is None and expires is not None:
        of_jwt = expires - wall
    if of_jwt is None:
        if told is not None and told < 0:
            raise malformed("its expires_in is negative")
        return inf
    if of_jwt <= 0:
        raise malformed("its access token is expired already; compare the provider's clock with this machine's")
    return min(of_jwt, _MOST)


def _since_cut_off(inside: claims.Claims, expires: float | None, wall: float) -> float:
    """``iat`` and ``exp`` are cut to whole seconds, so a token may live up to a second shorter than it is told to.
    Where both clocks agree to within that second, ``exp`` says how much."""
    issued = claims.moment(inside, "iat")
    if issued is None or expires is None or not 0 <= wall - issued < _AGREEMENT or expires <= wall:
        return inf
    return expires - wall


def _in_seconds(told: float, of_jwt: float | None) -> float:
    if of_jwt is not None and of_jwt > 0:
        return told / 1000 if abs(told / 1000 - of_jwt) < abs(told - of_jwt) else told
    return told / 1000 if told > _MILLISECONDS_FROM else told


def refresh_lifetime(expires_in: object, token: str | None, wall: float) -> float | None:
    """Seconds the refresh token lives; ``inf`` for Keycloak's 0 (K2); None when neither reply nor JWT tells."""
    told = claims.number(expires_in)
    inside = claims.decode(token) if token else {}
    of_jwt = claims.lifetime(inside)
    if told == 0:
        return inf
    if told is not None and told > 0:
        return told / 1000 if of_jwt and abs(told / 1000 - of_jwt) < abs(told - of_jwt) else told
    if of_jwt is None and (expires := claims.moment(inside, "exp")) is not None:
        of_jwt = expires - wall
    return of_jwt


def retry_after(reply: Reply, wall: float) -> float | None:
    """RFC 9110 10.2.3: seconds, or a date against the reply's own ``Date`` where it has one (else our clock)."""
    value = reply.headers.get("retry-after", "").strip()
    if value.isascii() and value.isdigit():
        return float(value[:9])
    until = http_date(value)
    if until is None:
        return None
    now = http_date(reply.headers.get("date", ""))
    return max(until - (wall if now is None else now), 0.0)


def http_date(value: str) -> float | None:
    """Unix seconds of an HTTP date; None when it is none."""
    if not value or len(value) > 64:
        return None
    try:
        parsed = parsedate_to_datetime(value)
        return (parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None
