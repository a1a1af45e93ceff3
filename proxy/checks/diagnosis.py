"""Pure: a failed exchange with a token endpoint, in words its operator can act on.

The adapters already say what happened; here the reply is looked at once more for what only a first set-up meets: the
wrong path, a page in the provider's place, which of two credentials is the wrong one.
"""

from typing import Final

from proxy.checks.finding import Finding, plain, problem, shown
from proxy.config import AgsIdentity, KeycloakIdentity, RemoteIdentity, TokenEndpointIdentity
from proxy.errors import RefreshResult, TokenError
from proxy.tokens.systems.base import Reply
from proxy.tokens.systems.keycloak import KNOWN
from proxy.tokens.systems.replies import json_object

_ANSWERED: Final = " (the provider answered "

_ADVICE: Final[dict[RefreshResult, str]] = {
    "invalid_credentials": "compare username and password with the provider's; wait a minute before trying again, as "
    "another failure can lock the user (another login of this user at the same moment is answered like this too)",
    "rate_limited": "wait, then run check again",
    "http_error": "look at the provider's own health and log",
    "timeout": "check host and port of token_url, and the firewalls on the way; timeout is how long an answer may take",
    "malformed": "check that token_url is the token endpoint itself",
}


def explained(name: str, identity: RemoteIdentity, error: TokenError, reply: Reply | None) -> Finding:
    """The problem that ``error`` stands for. reply: what the provider said, where it said something."""
    subject = f"identity {name}"
    if reply is not None:
        found = _by_reply(subject, identity, reply)
        if found is not None:
            return found
    finding, advice, evidence = _parts(error.words)
    if error.result == "network":
        return problem(subject, error.words, shown(identity.endpoint), _network_advice(name, identity))
    if error.result == "invalid_credentials" and _has_user(identity):
        evidence = f"user {identity.account}; {evidence}"
    advice = _ADVICE.get(error.result, advice).replace("token_url", _key(identity))
    if error.result == "operator" and not advice:
        advice = f"compare identities.{name} with what the provider knows"
    return problem(subject, finding, evidence or shown(identity.endpoint), advice)


def _has_user(identity: RemoteIdentity) -> bool:
    return not isinstance(identity, TokenEndpointIdentity) or identity.username is not None


def _key(identity: RemoteIdentity) -> str:
    """The key that holds the provider's address."""
    return "base_url" if isinstance(identity, AgsIdentity) else "token_url"


def _parts(words: str) -> tuple[str, str, str]:
    """What happened, what to do, what was seen: an adapter writes ``finding: advice (the provider answered …)``."""
    told, _, answer = words.partition(_ANSWERED)
    finding, _, advice = told.partition(": ")
    return finding, advice, "the provider answered " + answer.removesuffix(")") if answer else ""


def _network_advice(name: str, identity: RemoteIdentity) -> str:
    key = _key(identity)
    if identity.endpoint.startswith("https:"):
        return f"check host and port of {key}, and identities.{name}.tls (ca_file, server_name, cert_file)"
    return f"check host and port of {key}, and that it should not begin with https://"


def _by_reply(subject: str, identity: RemoteIdentity, reply: Reply) -> Finding | None:
    if 300 < reply.status < 400:
        location = plain(reply.headers.get("location", "").partition("?")[0], 200)
        evidence = f"HTTP {reply.status} to {location or 'nowhere'}"
        advice = f"give its final address as {_key(identity)}"
        return problem(subject, "the token endpoint answers with a redirect", evidence, advice)
    fields = json_object(reply)
    if fields is None and "html" in reply.headers.get("content-type", "").lower():
        return _page(subject, identity, reply.status)
    if isinstance(identity, KeycloakIdentity) and reply.status == 401 and fields is not None:
        return _client(subject, identity, fields)
    return None


def _page(subject: str, identity: RemoteIdentity, status: int) -> Finding:
    evidence = f"HTTP {status} with an HTML page from {shown(identity.endpoint)}"
    key = _key(identity)
    if status in (404, 405):
        finding = "there is no token endpoint at this address"
        advice = f"check the path of {key}"
        if isinstance(identity, TokenEndpointIdentity):
            advice += ": many sites put /auth or /keycloak/auth in front of /realms, others nothing"
    else:
        finding = "a web page answers instead of the token endpoint"
        advice = f"a proxy, a load balancer or a login page stands in front of it, or {key} names another server"
    return problem(subject, finding, evidence, advice)


def _client(subject: str, identity: KeycloakIdentity, fields: dict[str, object]) -> Finding | None:
    """Keycloak's 401s tell an unknown client from a wrong secret (observed on 26.4)."""
    error, client = fields.get("error"), identity.client_id
    if str(fields.get("error_description", "")).lower().startswith(tuple(KNOWN)):
        return None
    if error == "invalid_client":
        advice = "check client_id and the realm in token_url, and enable the client in Keycloak"
        finding = f"client {client} is unknown or disabled in this realm"
    elif error == "unauthorized_client":
        finding = f"the secret of client {client} is wrong or missing"
        advice = (
            "the client is confidential: set client_auth (post or basic) and client_secret_file"
            if identity.client_auth == "none"
            else "compare client_secret with the one on the client's Credentials tab in Keycloak"
        )
    else:
        return None
    return problem(subject, finding, f"the provider answered HTTP 401, {error}", advice)
