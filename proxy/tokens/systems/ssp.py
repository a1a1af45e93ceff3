"""SSP, OpenTV's second scheme for operator calls: the caller signs its tokens itself, and nobody is asked.

Header ``{typ: JWT, alg: HS256, kid: <credentialId>}``, payload ``{typ: "AuthN", ver: "1.0", exp}``, nothing beside
them (vendor: "Authentication Management"). Pure but for reading the credentials file.
"""

import binascii
import hashlib
import hmac
import json
from base64 import b64decode, urlsafe_b64encode

from proxy.config import SecretValue, SspIdentity
from proxy.errors import SecretError
from proxy.tokens.pair import Grant
from proxy.tokens.systems.base import Local


class Ssp(Local):
    def __init__(self, identity: SspIdentity) -> None:
        self._file = SecretValue(path=identity.credentials_file)
        self._lifetime = identity.lifetime

    @property
    def place(self) -> str:
        return str(self._file.path)

    def mint(self, wall: float) -> Grant:
        credential, key = self._credentials()
        expires = int(wall + self._lifetime)
        header = _part({"typ": "JWT", "alg": "HS256", "kid": credential})
        signed = f"{header}.{_part({'typ': 'AuthN', 'ver': '1.0', 'exp': expires})}"
        signature = hmac.digest(key, signed.encode(), hashlib.sha256)
        return Grant(f"{signed}.{_base64(signature)}", refresh=None, lifetime=expires - wall)

    def _credentials(self) -> tuple[str, bytes]:
        """credentialId and signing key."""
        try:
            content = json.loads(self._file.read())
        except (ValueError, RecursionError):
            raise SecretError(f"the credentials file {self.place} is no JSON") from None
        fields = content if isinstance(content, dict) else {}
        credential, encoded = fields.get("credentialId"), fields.get("signingKey")
        if not isinstance(credential, str | int) or isinstance(credential, bool) or not str(credential):
            raise SecretError(f"the credentials file {self.place} has no credentialId")
        try:
            key = b64decode(encoded, validate=True) if isinstance(encoded, str) else b""
        except (binascii.Error, ValueError):
            key = b""
        if not key:
            raise SecretError(f"the credentials file {self.place} has no signingKey in base64")
        return str(credential), key


def _part(content: dict[str, object]) -> str:
    return _base64(json.dumps(content, separators=(",", ":")).encode())


def _base64(data: bytes) -> str:
    return urlsafe_b64encode(data).decode("ascii").rstrip("=")
