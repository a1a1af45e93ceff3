"""private_key_jwt, as Keycloak checks it (RFC 7523 3, OpenID Connect Core 9): RS256 or ES256, as the key asks for.

Whatever is wrong with the assertion is 400 ``invalid_client``, as observed on 26.4.7. Words and order of the checks
follow Keycloak's ``AbstractBaseJWTValidator``.
"""

import json
from collections.abc import Mapping

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from proxy.sandbox.replies import RefusalError
from proxy.sandbox.settings import Client
from proxy.sandbox.signing import Claims, key_id
from proxy.sandbox.state import SandboxState

ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"

_FAILED = "Client authentication with signed JWT failed: "


def _refusal(words: str) -> RefusalError:
    return RefusalError(400, "invalid_client", words)


def claimed_client(form: Mapping[str, str]) -> str:
    """Whom the assertion names, unverified. Raises RefusalError when it is not one, or names another than the form."""
    if form.get("client_assertion_type") != ASSERTION_TYPE:
        raise _refusal("Parameter client_assertion_type is missing or has another value than expected")
    try:
        claims = jwt.decode(form["client_assertion"], options={"verify_signature": False})
    except jwt.InvalidTokenError as exc:
        raise _refusal(_FAILED + "not a JWT") from exc
    subject = claims.get("sub")
    if not isinstance(subject, str) or claims.get("iss") != subject:
        raise _refusal(_FAILED + "Issuer mismatch. The issuer should match the subject")
    if form.get("client_id", subject) != subject:
        raise _refusal("client_id parameter does not match sub claim")
    return subject


def check_assertion(state: SandboxState, client: Client, form: Mapping[str, str], issuer: str) -> None:
    """Raises RefusalError unless the form proves to come from ``client``, once. issuer: the realm's URL."""
    if "client_assertion" not in form:
        raise _refusal("Parameter client_assertion_type is missing")
    claims = _verified(client.public_key or "", form["client_assertion"])
    audience = claims.get("aud")
    audiences = audience if isinstance(audience, list) else [audience]
    if not {issuer, f"{issuer}/protocol/openid-connect/token"}.intersection(map(str, audiences)):
        raise _refusal("Invalid token audience")
    if len(audiences) > 1:
        raise _refusal("Multiple audiences not allowed")
    until = _check_times(state, claims)
    if not isinstance(claims.get("jti"), str) or not claims["jti"]:
        raise _refusal("Token jti claim is required")
    if not state.first_use(client.client_id, claims["jti"], until):
        raise _refusal("Token reuse detected")


def _verified(public_key: str, assertion: str) -> Claims:
    try:
        key = serialization.load_pem_public_key(public_key.encode())
    except ValueError as exc:
        raise _refusal("Unable to load public key") from exc
    if not isinstance(key, (rsa.RSAPublicKey, ec.EllipticCurvePublicKey)):
        raise _refusal("Unable to load public key")
    algorithm = "RS256" if isinstance(key, rsa.RSAPublicKey) else "ES256"
    header = jwt.get_unverified_header(assertion)
    if header["alg"] != algorithm:
        raise _refusal("Invalid signature algorithm")
    if header.get("kid", key_id(key)) != key_id(key):
        raise _refusal("Unable to load public key")
    try:
        payload = jwt.PyJWS(algorithms=[algorithm]).decode(assertion, key, algorithms=[algorithm])
    except jwt.PyJWTError as exc:
        raise _refusal(_FAILED + "Signature on JWT token failed validation") from exc
    claims: Claims = json.loads(payload)
    return claims


def _check_times(state: SandboxState, claims: Claims) -> float:
    """Until when this assertion could be used again, in Unix seconds."""
    now, settings = int(state.now()), state.settings
    expires, issued = claims.get("exp"), claims.get("iat")
    if not isinstance(expires, (int, float)):
        raise _refusal("Token exp claim is required")
    if now >= expires:
        raise _refusal("Token is not active")
    if issued is None:
        if expires - now > settings.assertion_life:
            raise _refusal("Token expiration is too far in the future and iat claim not present in token")
        return float(expires) + 1
    if not isinstance(issued, (int, float)) or issued - settings.assertion_skew > now:
        raise _refusal("Token was issued in the future")
    if now > issued + settings.assertion_life:
        raise _refusal("Token was issued too far in the past to be used now")
    return float(min(expires, issued + settings.assertion_life)) + 1
