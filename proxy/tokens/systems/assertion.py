"""private_key_jwt: the client proves itself by a short JWT of its own (RFC 7523 2.2 and 3, OpenID Connect Core 9)."""

from collections.abc import Callable
from typing import Final

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from proxy.config import TokenEndpointIdentity
from proxy.errors import SecretError
from proxy.tokens.systems.replies import http_date

TYPE: Final = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
LIFE: Final = 60
"""Seconds. Keycloak takes none that is older, whatever its exp."""

_WEAKEST_RSA: Final = 2048


class Assertions:
    """Makes an assertion for each request. wall: reads our clock, Unix seconds. new_id: makes ``jti``.

    State: how the provider's clock differs from ours, as far as it has shown. An ``iat`` ahead of it is refused.
    """

    def __init__(self, identity: TokenEndpointIdentity, wall: Callable[[], float], new_id: Callable[[], str]) -> None:
        self._identity = identity
        self._wall = wall
        self._new_id = new_id
        self._ahead = 0.0

    def heard(self, date: str, wall: float) -> None:
        """A reply came. date: its ``Date``. wall: Unix time when it came."""
        theirs = http_date(date)
        if theirs is not None:
            # Cut to the second and a little late: their clock shows this much or a little more, never less.
            self._ahead = theirs - wall

    def fields(self) -> dict[str, str]:
        """The form fields that prove the client. Raises SecretError."""
        identity = self._identity
        secret = identity.secret("private_key")
        if secret is None:
            raise SecretError("private_key is not configured")
        key, algorithm = _signer(secret.read(), str(secret.path or "private_key"))
        issued = int(self._wall() + self._ahead)
        claims = {
            "iss": identity.client_id,
            "sub": identity.client_id,
            "aud": identity.audience or identity.token_url,
            "jti": self._new_id(),
            "iat": issued,
            "exp": issued + LIFE,
        }
        return {"client_assertion_type": TYPE, "client_assertion": jwt.encode(claims, key, algorithm=algorithm)}


def _signer(pem: str, where: str) -> tuple[RSAPrivateKey | EllipticCurvePrivateKey, str]:
    """The key, and the algorithm that it is for. Raises SecretError in words that never hold it."""
    try:
        key = load_pem_private_key(pem.encode(), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise SecretError(f"{where} holds no private key in PEM form without a passphrase") from None
    if isinstance(key, RSAPrivateKey) and key.key_size >= _WEAKEST_RSA:
        return key, "RS256"
    if isinstance(key, EllipticCurvePrivateKey) and isinstance(key.curve, SECP256R1):
        return key, "ES256"
    raise SecretError(f"the key in {where} is neither RSA of {_WEAKEST_RSA} bits or more (RS256) nor P-256 (ES256)")
