"""SSP: the caller signs its own token with the key of its credentials file, and no provider is asked.

After the vendor's page "Authentication Management". Exactly what is agreed is taken: header ``{typ, alg, kid}``, claims
``{typ, ver, exp}``, nothing beside them.
"""

import base64
import json
from typing import Any

import jwt

from proxy.sandbox.settings import SspSettings
from proxy.sandbox.signing import expired
from proxy.sandbox.verdicts import Verdict


def credentials_file(settings: SspSettings) -> dict[str, Any]:
    """The JSON content of the file a caller is given; the signing key is in it."""
    return {
        "tenantId": settings.tenant_id,
        "credentialName": settings.credential_name,
        "credentialId": settings.credential_id,
        "signingKey": settings.signing_key,
        "privilege": list(settings.privilege),
    }


def judge_ssp(token: str, settings: SspSettings, now: float) -> Verdict:
    """now: Unix seconds."""
    try:
        header = jwt.get_unverified_header(token)
        key = base64.b64decode(settings.signing_key or "")
        payload = jwt.PyJWS(algorithms=["HS256"]).decode(token, key, algorithms=["HS256"])
        claims = json.loads(payload)
    except (jwt.PyJWTError, ValueError):
        return "signature"
    if header != {"typ": "JWT", "alg": "HS256", "kid": settings.credential_id}:
        return "agreement"
    if not isinstance(claims, dict) or claims.keys() != {"typ", "ver", "exp"}:
        return "agreement"
    if (claims["typ"], claims["ver"]) != ("AuthN", "1.0") or type(claims["exp"]) is not int:
        return "agreement"
    if expired(claims, now) or claims["exp"] <= 0:
        return "expired"
    return "agreement" if settings.max_life and claims["exp"] - now > settings.max_life else "valid"
