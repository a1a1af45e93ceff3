"""Pure: a seed refresh token (grant refresh_token), looked at without being presented.

Presenting it would spend it wherever refresh tokens rotate: the running gateway's session would end, or the next start
would find a dead seed. So it is only read.
"""

from collections.abc import Iterator
from dataclasses import replace
from hashlib import sha256

from proxy.checks.finding import Finding, ago, hint, ok, plain, problem
from proxy.config import KeycloakIdentity, TokenEndpointIdentity
from proxy.errors import SecretError
from proxy.tokens import claims
from proxy.tokens.pair import fingerprint, rfc3339
from proxy.tokens.stores.base import StoredPair
from proxy.tokens.systems.refusals import new_seed

_SOON = 86400.0


def inspected(
    name: str, identity: TokenEndpointIdentity, now: float, *, kept: bool, stored: StoredPair | None = None
) -> Iterator[Finding]:
    """now: Unix seconds. kept: the store outlives the process, and the seed's successor with it. stored: what it holds
    for this identity; with that the gateway goes on, whatever became of the seed."""
    subject = f"identity {name}"
    yield hint(
        subject,
        "no login, no refresh: the seed refresh token is not presented, only read",
        advice="presenting it could end the gateway's own session; a running gateway's /status shows whether it works",
    )
    try:
        secret = identity.secret("refresh_token")
        token = secret.read().strip() if secret else ""
    except SecretError as error:
        yield problem(subject, str(error))
        return
    found = list(_contents(subject, identity, token, now))
    if stored is not None and _continued(stored, token, now):
        evidence = f"token {fingerprint(stored.access)}, {ago(stored.obtained - now)}"
        yield ok(subject, "the gateway goes on with the session that is stored, without the seed", evidence)
        found = [replace(each, severity="hint") if each.severity == "problem" else each for each in found]
    yield from found
    if not kept:
        advice = "have a fresh one at hand for each restart, or a store: file or redis"
        finding = "with store memory, a restart begins with the seed again, which a rotating provider refuses by then"
        yield hint(subject, finding, advice=advice)


def _continued(stored: StoredPair, seed: str, now: float) -> bool:
    """Whether a start goes on with what is stored: it came from this very seed, and is not over by what is known."""
    ends = [end for end in (stored.refresh_expires, stored.session_ends) if end is not None]
    same = stored.seed in (None, sha256(seed.encode()).hexdigest())
    return stored.refresh is not None and same and all(end > now for end in ends)


def _contents(subject: str, identity: TokenEndpointIdentity, token: str, now: float) -> Iterator[Finding]:
    mark = f"refresh token {fingerprint(token)}"
    inside = claims.decode(token)
    if not inside:
        yield hint(subject, "the seed cannot be read: it is opaque, so its expiry is not known", mark)
        return
    secret = identity.secret("refresh_token")
    new = new_seed(str(secret.path) if secret and secret.path else "refresh_token")
    kind, client, issuer = (inside.get(claim) for claim in ("typ", "azp", "iss"))
    if kind in ("Bearer", "ID"):
        yield problem(subject, "the seed is no refresh token", f'{mark}, a JWT of type "{kind}"', new)
        return
    expires = claims.moment(inside, "exp")
    until = f"{mark}, {rfc3339(expires)}, {ago(expires - now)}" if expires is not None else mark
    if expires is not None and expires <= now:
        yield problem(subject, "the seed refresh token has expired", until, new)
    elif expires is not None and expires - now < _SOON:
        yield hint(subject, f"the seed refresh token expires {ago(expires - now)}", until)
    else:
        evidence = f"expires {until}" if expires is not None else f"{mark}, without expiry"
        yield ok(subject, "the seed refresh token can be read and has not expired", evidence)
    if isinstance(client, str) and client != identity.client_id:
        finding = f"the seed was issued to client {plain(client, 80)}, not to {identity.client_id}"
        yield problem(subject, finding, mark, "set client_id, or get a refresh token through this client")
    if isinstance(identity, KeycloakIdentity) and isinstance(issuer, str) and not _under(identity.token_url, issuer):
        yield hint(
            subject,
            "the seed was issued under another address than token_url",
            f"issuer {plain(issuer, 200)}",
            "Keycloak refuses it unless it has a fixed host name: use the address it was issued under",
        )


def _under(url: str, issuer: str) -> bool:
    return url.startswith(issuer.rstrip("/") + "/")
