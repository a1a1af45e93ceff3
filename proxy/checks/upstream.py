"""One route's upstream: a connection and an answer to ``HEAD``, without a token and, where there is one, with it."""

from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import urlsplit

from proxy import tls
from proxy.checks.finding import Finding, clock_drift, duration, faults, hint, ok, problem, shown
from proxy.checks.probe import Answer, Peer, ProbeError, head
from proxy.config import Inject, Route
from proxy.errors import ConfigError

_RENEW_WITHIN = 14 * 86400.0


@dataclass(frozen=True, slots=True)
class Signature:
    """How an identity signs. access: the token, None when none was had."""

    inject: Inject
    access: str | None


async def asked(index: int, route: Route, signature: Signature | None, now: float) -> list[Finding]:
    """signature: None for a route without an identity. now: Unix seconds."""
    subject = f"route {route.path}"
    secure = urlsplit(route.upstream).scheme == "https"
    try:
        context = tls.client_context(route.tls, f"routes.{index}.tls") if secure else None
    except ConfigError as error:
        return faults(subject, error)
    peer = Peer(route.upstream, context, route.tls.server_name, route.timeouts.connect)
    where, headers = target(route), dict(route.headers.set)
    try:
        bare = await head(peer, where, headers)
        signed = None
        if signature is not None and signature.access is not None:
            value = f"{signature.inject.scheme} {signature.access}".lstrip()
            signed = await head(peer, where, {**headers, signature.inject.header: value})
    except ProbeError as error:
        advice = f"check routes.{index}.upstream" + (f" and routes.{index}.tls" if secure else "")
        return [problem(subject, str(error), shown(route.upstream), advice)]
    found = [*_reached(subject, route, bare), *_certificate(subject, bare, now)]
    found += clock_drift(subject, bare.drift, "the upstream's clock")
    if signature is not None:
        found += judged(subject, route, where, bare.status, signed.status if signed else None)
    return found


def target(route: Route) -> str:
    """Where a request for the route's own prefix goes."""
    base = urlsplit(route.upstream).path.rstrip("/")
    return base + ("/" if route.strip_prefix else route.path)


def _reached(subject: str, route: Route, bare: Answer) -> Iterator[Finding]:
    evidence = f"HTTP {bare.status}" + (f", {bare.tls}" if bare.tls else "")
    if bare.status >= 500:
        advice = "look at the upstream's own health: it is reached, and passes this error on to clients"
        yield hint(subject, f"{shown(route.upstream)} answers with an error", evidence, advice)
    elif bare.status == 400 and not bare.tls:
        advice = "if this port speaks TLS, write https:// in the upstream"
        yield hint(subject, f"{shown(route.upstream)} calls the request malformed", evidence, advice)
    else:
        yield ok(subject, f"{shown(route.upstream)} answers", evidence)


def _certificate(subject: str, bare: Answer, now: float) -> Iterator[Finding]:
    if bare.expires is not None and bare.expires - now < _RENEW_WITHIN:
        yield hint(subject, f"the upstream's certificate expires in {duration(bare.expires - now)}", advice="renew it")


def judged(subject: str, route: Route, where: str, bare: int, signed: int | None) -> Iterator[Finding]:
    """What the two statuses say of the token. HEAD may be forbidden by itself, so a refusal is a hint."""
    statuses = route.rejected.statuses
    listed = ", ".join(str(status) for status in statuses) or "no status"
    question = f"HEAD {where.partition('?')[0]}"
    if bare in (401, 403) and bare not in statuses:
        advice = f"if that is how it refuses a bad token, add {bare} to rejected.statuses: else nothing is refreshed"
        evidence = f"rejected.statuses has {listed}"
        yield hint(subject, f"the upstream answers {bare} to {question} without a token", evidence, advice)
    if signed is None:
        return
    if signed in (401, 403) or signed in statuses:
        yield hint(
            subject,
            f"the upstream refuses {question} with the fresh token",
            f"HTTP {signed}, {bare} without a token",
            "perhaps only this question is forbidden; if real requests fail too, it does not take this token: compare "
            "its issuer and roles (opentv-proxy token) with what the upstream expects",
        )
    elif bare in statuses:
        yield ok(subject, "the upstream takes the token", f"HTTP {signed}, {bare} without a token")
