"""Pure: what a JWT says about itself, read without verifying it (RFC 7519).

The gateway is no audience of these tokens: whether one is good is for the platform to say. Claims are read only to
learn times and to warn about a missing role, so everything unexpected reads as "not known", never as an error.
"""

import binascii
import json
import math
from base64 import urlsafe_b64decode
from collections.abc import Mapping
from typing import Final

LONGEST: Final = 64 * 1024
_MILLISECONDS: Final = 1e11
"""A NumericDate above this (year 5138) is in milliseconds: older AGS deployments write ``exp`` that way."""

Claims = Mapping[str, object]


def decode(token: str) -> Claims:
    """The payload of a JWS in compact form; empty for anything else (an opaque token, an encrypted one)."""
    parts = token.split(".")
    if len(parts) != 3 or len(token) > LONGEST:
        return {}
    try:
        padded = parts[1] + "=" * (-len(parts[1]) % 4)
        claims = json.loads(urlsafe_b64decode(padded.encode("ascii")))
    except (binascii.Error, ValueError, RecursionError):
        return {}
    return claims if isinstance(claims, dict) else {}


def moment(claims: Claims, name: str) -> float | None:
    """A NumericDate in Unix seconds; None when absent, not a number, or 0 or less (Keycloak's "unset")."""
    value = number(claims.get(name))
    if value is None or value <= 0:
        return None
    return value / 1000 if value > _MILLISECONDS else value


def lifetime(claims: Claims) -> float | None:
    """``exp`` minus ``iat`` in seconds (0 or less for a token that was dead when it was made); None without both."""
    issued, expires = moment(claims, "iat"), moment(claims, "exp")
    return None if issued is None or expires is None else expires - issued


def roles(claims: Claims) -> frozenset[str]:
    """Every role the token names: Keycloak's ``realm_access`` and ``resource_access``, and a plain ``roles``."""
    holders: list[object] = [claims.get("realm_access"), claims]
    resources = claims.get("resource_access")
    if isinstance(resources, dict):
        holders += resources.values()
    lists = [holder.get("roles") for holder in holders if isinstance(holder, Mapping)]
    return frozenset(role for some in lists if isinstance(some, list) for role in some if isinstance(role, str))


def number(value: object) -> float | None:
    """A finite number written as one or as its decimal text; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        result = float(value)
    except (ValueError, OverflowError):
        return None
    return result if math.isfinite(result) else None
