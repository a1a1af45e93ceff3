"""Pure: a failed exchange with a token endpoint, in words its operator can act on.

The adapters already say what happened; here the reply is looked at once more for what only a first set-up meets: the
wrong path, a page in the provider's place, which of two credentials is the wrong one.
"""

import re
from collections.abc import Iterable
from typing import Final
from urllib.parse import urlsplit

from proxy.checks import realm
from proxy.checks.finding import Finding, Where, plain, problem, who_answered
from proxy.config import AgsIdentity, KeycloakIdentity, RemoteIdentity, TokenEndpointIdentity
from proxy.config.web import without_query
from proxy.errors import RefreshResult, TokenError
from proxy.tokens.systems.base import Reply
from proxy.tokens.systems.keycloak import KNOWN
from proxy.tokens.systems.replies import json_object

_ANSWERED: Final = " (the provider answered "
_URL_KEY: Final = re.compile(r"(?<![.\w])(?:token|base)_url\b")
_TITLE: Final = re.compile(rb"<title[^>]*>([^<]{1,200})", re.IGNORECASE)

_ADVICE: Final[dict[RefreshResult, str]] = {
    "invalid_credentials": "compare user name and password with the provider's. A locked user, and a second login at "
    "that moment, get this answer too: wait a minute before the next try",
    "rate_limited": "wait, then run check again",
    "http_error": "look at the provider's own health and log, and at the load balancer in front of it",
    "timeout": "the provider is slow, or something on the way keeps its answer; {section}.timeout is how long it has",
    "malformed": "check that {url} is the token endpoint itself",
}


def whereabouts(name: str, identity: RemoteIdentity) -> Where:
    key = "base_url" if isinstance(identity, AgsIdentity) else "token_url"
    return Where(f"identity {name}", f"identities.{name}", key)


def astray(identity: RemoteIdentity, error: TokenError, reply: Reply | None) -> bool:
    """Whether this may be no answer of a realm's token endpoint, so that it is worth looking for that elsewhere."""
    if not isinstance(identity, KeycloakIdentity) or reply is None or 300 <= reply.status < 400 or reply.status >= 500:
        return False
    fields = json_object(reply) or {}
    return error.result in ("http_error", "malformed") or (
        reply.status in (404, 405) and fields.get("error") != _NO_REALM
    )


def explained(
    where: Where,
    identity: RemoteIdentity,
    error: TokenError,
    reply: Reply | None,
    *,
    secrets: Iterable[str] = (),
    elsewhere: str = "",
) -> Finding:
    """The problem that ``error`` stands for. reply: what the provider said, where it said something. secrets: of the
    request, in case a page repeats them. elsewhere: where the realm's token endpoint was found."""
    if reply is not None:
        found = _by_reply(where, identity, reply, elsewhere, _seen(reply, secrets))
        if found is not None:
            return found
    finding, advice, evidence = _parts(error.words)
    if error.result == "malformed":
        finding = error.words
    evidence = evidence or (_seen(reply, secrets) if reply is not None else without_query(identity.endpoint))
    if error.result == "network":
        return _broken_off(where, identity, error.words)
    if error.result == "invalid_credentials" and _has_user(identity):
        evidence = f"user {identity.account}; {evidence}"
    if error.result in _ADVICE:
        advice = _ADVICE[error.result].format(section=where.section, url=where.url)
    advice = _URL_KEY.sub(where.url, advice)
    if error.result == "operator" and not advice:
        advice = f"compare {where.section} with what the provider knows"
    return problem(where.subject, finding, evidence, advice)


def _has_user(identity: RemoteIdentity) -> bool:
    return not isinstance(identity, TokenEndpointIdentity) or identity.username is not None


def _parts(words: str) -> tuple[str, str, str]:
    """What happened, what to do, what was seen: an adapter writes ``finding: advice (the provider answered …)``."""
    told, _, answer = words.partition(_ANSWERED)
    finding, _, advice = told.partition(": ")
    return finding, advice, answer.removesuffix(")")


def _broken_off(where: Where, identity: RemoteIdentity, words: str) -> Finding:
    """A connection there was, before."""
    advice = f"look at what stands between here and the provider, and at the provider's log ({where.url})"
    if identity.tls.cert_file is not None:
        advice = "the provider may refuse the certificate that it is shown: see that it knows its authority"
    return problem(where.subject, words, without_query(identity.endpoint), where.written_out(advice))


def _by_reply(where: Where, identity: RemoteIdentity, reply: Reply, elsewhere: str, seen: str) -> Finding | None:
    subject, status = where.subject, reply.status
    if status == 407:
        advice = f"give it {where.section}.proxy.username and .password_file, or write proxy: none for a direct way"
        return problem(subject, "a proxy on the way asks for a login", seen, advice)
    if 300 < status < 400:
        return _redirected(where, identity, reply)
    if elsewhere:
        advice = f"the realm answers at another path: set {where.url} to {elsewhere}"
        return problem(subject, "there is no token endpoint at this address", seen, advice)
    fields = json_object(reply)
    if fields is None:
        return _page(where, identity, reply, seen)
    if isinstance(identity, KeycloakIdentity) and (found := _of_keycloak(where, identity, status, fields)):
        return found
    if fields.get("error") == "invalid_scope" and isinstance(identity, TokenEndpointIdentity):
        advice = f"mend {where.section}.scope, or have the provider give client {identity.client_id} that scope"
        return problem(
            subject, "the provider does not know the configured scope", f"HTTP {status}, invalid_scope", advice
        )
    return None


def _redirected(where: Where, identity: RemoteIdentity, reply: Reply) -> Finding:
    location = reply.headers.get("location", "").partition("?")[0]
    ours, theirs = urlsplit(identity.endpoint), urlsplit(location)
    evidence = f"HTTP {reply.status} to {plain(location, 200) or 'nowhere'}{who_answered(reply.headers)}"
    if theirs.netloc and theirs.hostname != ours.hostname:
        advice = f"a login page or a captive portal may stand in between; else name its final address in {where.url}"
    elif (ours.scheme, theirs.scheme) == ("http", "https"):
        advice = f"write https:// in {where.url}"
    else:
        advice = f"name its final address in {where.url}"
    return problem(where.subject, "the token endpoint answers with a redirect", evidence, advice)


def _seen(reply: Reply, secrets: Iterable[str]) -> str:
    """What a reply that is no JSON shows of where it came from; a page may repeat what it was sent."""
    kind = plain(reply.headers.get("content-type", "").partition(";")[0].strip().lower(), 40)
    title = _TITLE.search(reply.body[:65536])
    words = plain(" ".join(title[1].decode("utf-8", "replace").split()), 80) if title else ""
    if any(secret in words for secret in secrets if secret):
        words = ""
    quoted = f', "{words}"' if words else ""
    return f"HTTP {reply.status}{f', {kind}' if kind else ''}{quoted}{who_answered(reply.headers)}"


def _page(where: Where, identity: RemoteIdentity, reply: Reply, seen: str) -> Finding | None:
    """What is no JSON: a page, a word in plain text, or nothing, which with AGS and Veeam is how they refuse."""
    status, html = reply.status, "html" in reply.headers.get("content-type", "").lower()
    if not html and not isinstance(identity, TokenEndpointIdentity):
        return _of_ags(where, status, f"HTTP {status}") if isinstance(identity, AgsIdentity) else None
    if status >= 500:
        finding = "the provider is not available now" if status in (502, 503, 504) else "the provider failed"
        return problem(where.subject, finding, seen, _ADVICE["http_error"])
    if status in (404, 405):
        advice = f"check the path in {where.url}"
        if isinstance(identity, KeycloakIdentity):
            advice += ": many sites have /auth or /keycloak/auth before /realms, others nothing"
        return problem(where.subject, "there is no token endpoint at this address", seen, advice)
    if status == 200 and not html:
        return None
    advice = f"a proxy, a captive portal or a login page stands in between, or {where.url} names another server"
    return problem(where.subject, "something else answers instead of the token endpoint", seen, advice)


_NO_REALM: Final = "Realm does not exist"


def _of_keycloak(where: Where, identity: KeycloakIdentity, status: int, fields: dict[str, object]) -> Finding | None:
    """What Keycloak's refusals of a client leave open, as far as the configuration tells (observed on 26.4)."""
    error, client, section = fields.get("error"), identity.client_id, where.section
    if error == _NO_REALM:
        finding = f"there is no realm {plain(realm.name_in(identity.token_url), 80)} at this provider"
        advice = f"check the realm in {where.url}; capitals matter"
        return problem(where.subject, finding, f"HTTP {status}, {_NO_REALM}", advice)
    if status != 401 or str(fields.get("error_description", "")).lower().startswith(tuple(KNOWN)):
        return None
    if error == "invalid_client" and identity.client_auth == "tls":
        finding = f"client {client} is unknown, or its certificate is not the one that Keycloak expects"
        advice = f"compare {section}.tls.cert_file with the subject DN on the client's Credentials tab"
    elif error == "invalid_client":
        finding = f"client {client} is unknown or disabled in this realm"
        advice = (
            f"check {section}.client_id, the realm in token_url, and that the client is enabled; if it proves itself "
            "by a certificate, set client_auth tls"
        )
    elif error == "unauthorized_client":
        finding, advice = _no_secret(section, identity)
    else:
        return None
    return problem(where.subject, finding, f"HTTP {status}, {plain(str(error), 40)}", advice)


def _of_ags(where: Where, status: int, seen: str) -> Finding | None:
    """AGS documents no error words: what a bare status may mean."""
    if status == 400:
        advice = (
            f"compare sign_on, auth_service_id and device in {where.section} with what the service asks for, then the"
        )
        return problem(where.subject, "AGS refused the request", seen, f"{advice} values")
    if status == 403:
        advice = f"check tenant_id and auth_service_id in {where.section}, and what the account may do"
        return problem(where.subject, "AGS forbids the request", seen, advice)
    return None


def _no_secret(section: str, identity: KeycloakIdentity) -> tuple[str, str]:
    client = identity.client_id
    match identity.client_auth:
        case "none":
            advice = f"the client is confidential: set {section}.client_auth (post or basic) and client_secret_file"
        case "post" | "basic":
            advice = f"compare {section}.client_secret with the one on the client's Credentials tab in Keycloak"
        case other:
            finding = f"client {client} proves itself by a secret, not by {other}"
            return finding, "set Client Authenticator on the client's Credentials tab, or client_auth post or basic"
    return f"the secret of client {client} is wrong or missing", advice
