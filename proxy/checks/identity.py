"""One identity looked at: one login, one refresh; the logout comes when the routes have been asked with its token."""

from collections.abc import Callable, Iterator
from math import inf

from proxy.checks import realm
from proxy.checks.closer import looked_at
from proxy.checks.diagnosis import astray, explained, whereabouts
from proxy.checks.finding import Finding, clock_drift, duration, hint, ok, plain, problem
from proxy.checks.visit import Visit
from proxy.config import (
    AgsIdentity,
    IdentityBase,
    RemoteIdentity,
    SspIdentity,
    TokenEndpointIdentity,
    TokenFileIdentity,
)
from proxy.errors import SecretError, TokenError
from proxy.tokens.factory import margins
from proxy.tokens.pair import TokenPair, window
from proxy.tokens.systems.base import Local

Tell = Callable[[Finding], None]
_LISTED = 12


async def examine(visit: Visit, tell: Tell, progress: Callable[[str], None]) -> None:
    """Logs in and refreshes, each once, and tells what shows; the visit then has the pair, if there is one.

    Raises TokenError after telling when the login was refused as wrong credentials: nobody must try these again soon.
    """
    subject, identity = f"identity {visit.name}", visit.identity
    progress(f"{subject}: asking {visit.place} for a token")
    try:
        pair = await visit.login()
    except SecretError as error:
        tell(problem(subject, str(error), advice=_mend(visit)))
        return
    except TokenError as error:
        for finding in (await _explained(visit, error), *_drift(subject, visit)):
            tell(finding)
        if error.result == "invalid_credentials":
            raise
        return
    evidence = f"token {pair.fingerprint} from {visit.place}"
    local = isinstance(visit.system, Local)
    tell(ok(subject, "there is a token" if local else f"logged in as {visit.account}", evidence))
    lifetimes = _local_life(subject, pair) if local else _lifetimes(subject, identity, pair)
    for finding in (*_drift(subject, visit), *_roles(visit, identity, pair), *lifetimes):
        tell(finding)
    if local:
        return
    if pair.refresh is None:
        tell(_no_refresh(subject, identity))
        return
    progress(f"{subject}: refreshing the token")
    await _refresh(visit, pair, tell)


async def _refresh(visit: Visit, pair: TokenPair, tell: Tell) -> None:
    subject = f"identity {visit.name}"
    try:
        newer = await visit.refresh(pair)
    except (SecretError, TokenError) as error:
        failed = problem(subject, str(error)) if isinstance(error, SecretError) else await _explained(visit, error)
        advice = failed.advice or "the login worked: without a refresh, each renewal of the token is a new login"
        if isinstance(visit.identity, AgsIdentity) and _bare_400(error):
            advice = f"see which parameters a refresh of this site needs: identities.{visit.name}.refresh_parameters"
        tell(problem(subject, f"the refresh failed: {failed.finding}", failed.evidence, advice))
        return
    how = "rotated" if newer.refresh != pair.refresh else "unchanged"
    tell(ok(subject, "refreshed", f"token {newer.fingerprint}, refresh token {how}"))


def _bare_400(error: Exception) -> bool:
    return isinstance(error, TokenError) and (error.status, error.result) == (400, "invalid_grant")


def _mend(visit: Visit) -> str:
    """What to do about a file, or a value, that cannot be used."""
    section = f"identities.{visit.name}"
    match visit.identity:
        case TokenFileIdentity():
            return f"have the token written there ({section}.file); until then the gateway waits, and is not ready"
        case SspIdentity():
            return f"download the credentials file anew, and name it in {section}.credentials_file"
        case TokenEndpointIdentity(client_auth="private_key_jwt"):
            return "write it with: openssl pkcs8 -topk8 -nocrypt; RSA of 2048 bits or more, or P-256"
        case _:
            return f"mend it in {section}"


async def _explained(visit: Visit, error: TokenError) -> Finding:
    identity, reply = visit.identity, visit.reply
    if not isinstance(identity, RemoteIdentity):
        return problem(f"identity {visit.name}", error.words)
    where = whereabouts(visit.name, identity)
    if error.result == "network" and visit.peer is not None and (shows := await looked_at(visit.peer, where)):
        return shows
    elsewhere = await realm.token_endpoint(identity.endpoint, visit.ask) if astray(identity, error, reply) else ""
    secrets = visit.request.secrets if visit.request else ()
    return explained(where, identity, error, reply, secrets=secrets, elsewhere=elsewhere)


def _drift(subject: str, visit: Visit) -> list[Finding]:
    return clock_drift(subject, visit.drift, "the provider's clock")


def _roles(visit: Visit, identity: IdentityBase, pair: TokenPair) -> Iterator[Finding]:
    subject = f"identity {visit.name}"
    if not identity.expect_roles:
        return
    if pair.roles is None:
        yield hint(subject, "whether the expected roles are there cannot be seen", "the token cannot be read")
        return
    held = sorted(pair.roles)
    has = ", ".join(plain(role, 60) for role in held[:_LISTED]) + (" and more" if len(held) > _LISTED else "")
    service = isinstance(identity, TokenEndpointIdentity) and not identity.username
    who = f"{'client' if service else 'user'} {visit.account}".rstrip()
    for role in identity.expect_roles:
        if role not in pair.roles:
            advice = f"assign it to {who}, and see that the client's scopes put it into the token"
            yield problem(subject, f"role {role} is missing", f"the token has {has or 'no role'}", advice)


def _local_life(subject: str, pair: TokenPair) -> Iterator[Finding]:
    if pair.lifetime == inf:
        yield hint(subject, "the token does not say when it ends", advice="it is read again when its file changes")
    else:
        yield ok(subject, f"the token is good for another {duration(pair.lifetime)}")


def _lifetimes(subject: str, identity: IdentityBase, pair: TokenPair) -> Iterator[Finding]:
    life = pair.lifetime
    if pair.killed:
        advice = "lift the realm's not-before policy, or see that the provider's nodes agree on the time"
        yield problem(subject, "the token is older than the provider's own not-before policy", advice=advice)
    if life == inf:
        yield hint(subject, "the provider does not say how long the token lives", advice="it is renewed every hour")
        return
    refresh = identity.refresh
    ahead = window(life, margins(identity))
    told = f"the token lives {duration(life)}, is renewed {duration(ahead)} before its end"
    if life - ahead <= refresh.min_interval:
        advice = "let tokens live longer, or lower refresh.min_interval"
        yield hint(subject, "the token lives too short to be renewed early: requests will wait", told, advice)
    elif ahead < identity.timeout:
        advice = (
            f"a renewal may take {duration(identity.timeout)} (timeout): raise refresh.ahead, or let tokens live longer"
        )
        yield hint(subject, "a slow renewal may outlast the token", told, advice)
    else:
        yield ok(subject, told)
    until = pair.refresh_expires - pair.obtained.mono
    if pair.refresh is not None and until <= life - ahead:
        evidence = f"it lives {duration(until)}, the token {duration(life)}"
        yield hint(subject, "the refresh token ends before the token is renewed: each renewal is a login", evidence)


def _no_refresh(subject: str, identity: IdentityBase) -> Finding:
    if isinstance(identity, TokenEndpointIdentity) and identity.grant == "client_credentials":
        return ok(subject, "no refresh token, as is usual with client_credentials: each renewal is a login")
    advice = "where the provider can issue refresh tokens, have it do so: each login opens a new session"
    return hint(subject, "the provider gives no refresh token: each renewal is a login", advice=advice)
