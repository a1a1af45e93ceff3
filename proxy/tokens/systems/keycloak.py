"""Keycloak: RFC 6749 with a table of its own descriptions, and a logout (K11). Observed on 26.4.7."""

from typing import ClassVar

from proxy.tokens.systems.base import TokenRequest
from proxy.tokens.systems.oauth2 import OAuth2
from proxy.tokens.systems.refusals import ELSEWHERE, Known

_CLIENT = "the provider does not accept client {client}: check client_id, client_auth and the client secret"
_NO_KEY = "Keycloak cannot read a public key of client {client}: look at its Keys tab (JWKS, or the URL of one)"
_CLOCK = "the clocks differ too far for private_key_jwt: let both machines take their time from NTP"

KNOWN: Known = {
    "invalid user credentials": (
        "invalid_credentials",
        "the provider refused the user name or the password, or has locked the user for a while",
    ),
    "account temporarily disabled": ("invalid_credentials", "the provider has locked the user for a while"),
    "account is not fully set up": (
        "operator",
        "the user has required actions to complete (say, an expired password): clear them, or log in once as that user",
    ),
    "account disabled": ("operator", "the user is disabled: enable it in Keycloak"),
    "user disabled": ("operator", "the user is disabled: enable it in Keycloak"),
    "client not allowed for direct access grants": (
        "operator",
        "Direct Access Grants is off for client {client}: turn it on in Keycloak, or use another grant",
    ),
    "client not enabled to retrieve service account": (
        "operator",
        "Service Accounts is off for client {client}: turn it on in Keycloak, or use another grant",
    ),
    "public client not allowed to retrieve service account": (
        "operator",
        "client {client} is public and has no service account: turn Client Authentication on, or use another grant",
    ),
    "unexpected error when authenticating client": ("operator", _CLIENT),
    "client authentication with signed jwt failed: signature": (
        "operator",
        "client {client} has another key in Keycloak: give it the public half of private_key there",
    ),
    "client authentication with signed jwt failed": ("operator", _NO_KEY),
    "unable to load public key": ("operator", _NO_KEY),
    "invalid token audience": (
        "operator",
        "Keycloak does not take the assertion's audience: set audience to its issuer or token URL, as it names them",
    ),
    "invalid signature algorithm": (
        "operator",
        "client {client} has another signature algorithm in Keycloak: set it to RS256 for an RSA key, ES256 for P-256",
    ),
    "token was issued in the future": ("operator", _CLOCK),
    "token was issued too far in the past": ("operator", _CLOCK),
    "parameter client_assertion_type is missing": (
        "operator",
        "client {client} proves itself by a signed JWT: set client_auth private_key_jwt and private_key_file",
    ),
    "offline tokens not allowed": (
        "operator",
        "scope offline_access is not allowed: give the user the role offline_access, and client {client} the scope",
    ),
    "https required": ("operator", "the realm wants HTTPS: use https in token_url"),
    "realm does not exist": ("operator", "there is no such realm: check token_url"),
    "realm not enabled": ("operator", "the realm is disabled: enable it in Keycloak"),
    "invalid token issuer": ("invalid_grant", ELSEWHERE),
}


class Keycloak(OAuth2):
    known: ClassVar[Known] = KNOWN

    def logout(self, access_token: str, refresh_token: str) -> TokenRequest | None:  # noqa: ARG002 (for others)
        base, slash, last = self._identity.token_url.partition("?")[0].rpartition("/")
        if last != "token":
            return None
        return self._request(base + slash + "logout", {"refresh_token": refresh_token}, (refresh_token,))
