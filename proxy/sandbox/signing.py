"""The platform's tokens (RFC 7519): Keycloak's RS256 access tokens, and HS256 refresh tokens signed with a key that
never leaves; AGS's HS256 tokens, with another such key; Veeam's RS512 ones.

Expiry follows Keycloak: times are whole seconds and a token is dead once the clock's second is *past* ``exp``.
"""

import base64
import functools
import hashlib
import json
import secrets
import uuid
from typing import Any

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

Claims = dict[str, Any]


@functools.lru_cache(maxsize=1)
def process_key() -> rsa.RSAPrivateKey:
    """One RSA key a process: making one costs about 100 ms, and a suite starts hundreds of sandboxes."""
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def expired(claims: Claims, now: float) -> bool:
    """As Keycloak's ``JsonWebToken.isExpired``: no ``exp`` or 0 never expires."""
    exp = int(claims.get("exp", 0))
    return exp != 0 and int(now) > exp


def key_id(public_key: rsa.RSAPublicKey | ec.EllipticCurvePublicKey) -> str:
    """As Keycloak names a key it was given: SHA-256 of its SubjectPublicKeyInfo in base64url."""
    der = public_key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return base64.urlsafe_b64encode(hashlib.sha256(der).digest()).rstrip(b"=").decode()


class Signer:
    """Signs and reads one sandbox's tokens. Reading checks the signature only; the caller judges the claims."""

    def __init__(self, private_key: rsa.RSAPrivateKey) -> None:
        public = private_key.public_key()
        self.key_id = key_id(public)
        self._private = private_key
        self._public = public
        self._internal = secrets.token_bytes(64)
        self._internal_id = str(uuid.uuid4())
        self._ags = secrets.token_bytes(64)
        self._jws = jwt.PyJWS(algorithms=["RS256", "RS512", "HS256"])

    def access(self, claims: Claims) -> str:
        return jwt.encode(claims, self._private, algorithm="RS256", headers={"kid": self.key_id})

    def refresh(self, claims: Claims) -> str:
        return jwt.encode(claims, self._internal, algorithm="HS256", headers={"kid": self._internal_id})

    def ags(self, claims: Claims) -> str:
        return jwt.encode(claims, self._ags, algorithm="HS256", headers={"kid": "259629"})

    def veeam(self, claims: Claims) -> str:
        return jwt.encode(claims, self._private, algorithm="RS512", headers={"kid": self.key_id})

    def read_access(self, token: str) -> Claims | None:
        """The claims of an access token that was signed here, else None."""
        return self._read(token, self._public, "RS256")

    def read_refresh(self, token: str) -> Claims | None:
        """The claims of a refresh token that was signed here, else None."""
        return self._read(token, self._internal, "HS256")

    def read_ags(self, token: str) -> Claims | None:
        """The claims of an AGS token, access or refresh, that was signed here, else None."""
        return self._read(token, self._ags, "HS256")

    def read_veeam(self, token: str) -> Claims | None:
        """The claims of a Veeam token, access or refresh, that was signed here, else None."""
        return self._read(token, self._public, "RS512")

    def _read(self, token: str, key: rsa.RSAPublicKey | bytes, algorithm: str) -> Claims | None:
        try:
            payload = self._jws.decode(token, key, algorithms=[algorithm])
        except jwt.InvalidTokenError:
            return None
        claims = json.loads(payload)
        return claims if isinstance(claims, dict) else None

    def jwks(self) -> dict[str, list[dict[str, str]]]:
        """The public keys as RFC 7517 lays them out."""
        numbers = self._public.public_numbers()
        key = {"kid": self.key_id, "kty": "RSA", "alg": "RS256", "use": "sig"}
        return {"keys": [{**key, "n": _base64_uint(numbers.n), "e": _base64_uint(numbers.e)}]}


def _base64_uint(number: int) -> str:
    raw = number.to_bytes((number.bit_length() + 7) // 8, "big")
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
