"""``check`` beyond the file: the store and every identity are looked at once, then every route's upstream is asked."""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field

from proxy.checks import realm, store
from proxy.checks.closer import unreachable
from proxy.checks.diagnosis import whereabouts
from proxy.checks.discovery import discovered
from proxy.checks.finding import Finding, certificate_times, clock_drift, faults, hint, ok, problem
from proxy.checks.identity import examine
from proxy.checks.probe import ProbeError, greeting, head
from proxy.checks.report import Report
from proxy.checks.seed import inspected
from proxy.checks.upstream import Signature, asked
from proxy.checks.visit import Visit, visit
from proxy.config import Config, RemoteIdentity, SspIdentity, TokenEndpointIdentity
from proxy.config.web import without_query
from proxy.errors import ConfigError, TokenError
from proxy.tokens.stores.base import StoredPair
from proxy.tokens.systems.ags import Ags


@dataclass
class _Tour:
    """What is known so far. refused: endpoint and user that a provider refused, with the identity it was: another try
    at once could lock the user."""

    config: Config
    report: Report
    environ: Mapping[str, str]
    stored: dict[str, StoredPair] = field(default_factory=dict)
    tokens: dict[str, str] = field(default_factory=dict)
    refused: dict[tuple[str, str], str] = field(default_factory=dict)


async def visit_all(config: Config, report: Report, environ: Mapping[str, str]) -> None:
    """Every identity, then every route. Sessions stay open until the routes were asked: a logout ends tokens too."""
    tour = _Tour(config, report, environ)
    async with _shown(report), AsyncExitStack() as leaving:
        await _stored(tour)
        guests = [guest for name in config.identities if (guest := _guest(tour, name)) is not None]
        for guest in guests:
            leaving.push_async_callback(_leave, guest, report)
        for guest in await _reached(tour, guests):
            # One after the other: Keycloak lets one login of a user in at a time.
            await _visited(tour, guest)
            if guest.pair is not None:
                tour.tokens[guest.name] = guest.pair.access
        await _routes(tour)


@asynccontextmanager
async def _shown(report: Report) -> AsyncIterator[None]:
    """Time passes on the terminal too."""

    async def tick() -> None:
        while True:
            await asyncio.sleep(1.0)
            report.tick()

    ticking = asyncio.create_task(tick())
    try:
        yield
    finally:
        ticking.cancel()
        with suppress(asyncio.CancelledError):
            await ticking
        report.progress("")


async def _stored(tour: _Tour) -> None:
    kept = store.opened(tour.config, tour.report.tell)
    if kept is not None:
        tour.report.progress("looking at the store")
        tour.stored = await store.looked(tour.config, kept, tour.report.tell)


def _guest(tour: _Tour, name: str) -> Visit | None:
    try:
        return visit(tour.config, name)
    except ConfigError as error:
        for finding in faults(f"identity {name}", error):
            tour.report.tell(finding)
        return None


async def _reached(tour: _Tour, guests: list[Visit]) -> list[Visit]:
    """Those whose provider can be reached. All at the same time: only logins must not be."""
    tour.report.progress("connecting to the providers")
    findings = await asyncio.gather(*(_greeted(tour, guest) for guest in guests))
    for finding in (finding for each in findings for finding in each):
        tour.report.tell(finding)
    failed = {finding.subject for each in findings for finding in each if finding.severity == "problem"}
    return [guest for guest in guests if f"identity {guest.name}" not in failed]


async def _greeted(tour: _Tour, guest: Visit) -> list[Finding]:
    identity, peer = guest.identity, guest.peer
    if peer is None or not isinstance(identity, RemoteIdentity):
        return []
    where = whereabouts(guest.name, identity)
    try:
        met = await greeting(peer)
    except ProbeError as error:
        return [await unreachable(error, peer, where, tour.environ)]
    return certificate_times(where.subject, "the provider's", met, time.time())


async def _visited(tour: _Tour, guest: Visit) -> None:
    identity, report = guest.identity, tour.report
    if guest.seed is not None and isinstance(identity, TokenEndpointIdentity):
        kept = tour.config.store.kind != "memory"
        for finding in inspected(guest.name, identity, time.time(), kept=kept, stored=tour.stored.get(guest.name)):
            report.tell(finding)
        await _endpoint(tour, guest, identity)
        return
    who = (guest.place, guest.account)
    if who in tour.refused:
        advice = f"mend identity {tour.refused[who]} first: another refused login at once could lock the user"
        report.tell(problem(f"identity {guest.name}", "not tried: its user was just refused", advice=advice))
        return
    if isinstance(guest.system, Ags) and not await discovered(guest, guest.system, report.tell, report.progress):
        return  # the login would only be refused
    try:
        await examine(guest, report.tell, report.progress)
    except TokenError:
        tour.refused[who] = guest.name


async def _endpoint(tour: _Tour, guest: Visit, identity: TokenEndpointIdentity) -> None:
    """Whether a token endpoint is there at all, for an identity that cannot log in without spending its seed."""
    where, place, peer = whereabouts(guest.name, identity), without_query(identity.token_url), guest.peer
    assert peer is not None  # noqa: S101 (for the type checker: it has an endpoint)
    tour.report.progress(f"{where.subject}: asking {place}")
    try:
        answer = await head(peer, peer.target, {})
    except ProbeError as error:
        tour.report.tell(await unreachable(error, peer, where, tour.environ))
        return
    elsewhere = await realm.token_endpoint(identity.token_url, guest.ask) if answer.status == 404 else ""
    tour.report.tell(_judged(where.subject, place, answer.status, where.url, elsewhere))
    for finding in clock_drift(where.subject, answer.drift, "the provider's clock"):
        tour.report.tell(finding)


def _judged(subject: str, place: str, status: int, key: str, elsewhere: str) -> Finding:
    """HEAD is no token request: a token endpoint refuses it, with 405 or another 4xx."""
    seen = f"HTTP {status} to HEAD"
    if status == 404:
        advice = f"the realm answers at another path: set {key} to {elsewhere}" if elsewhere else ""
        advice = advice or f"check the path prefix and the realm in {key}"
        return problem(subject, "there is no token endpoint at this address", f"{seen} {place}", advice)
    if status >= 500:
        return problem(subject, "the token endpoint fails", f"{seen} {place}", "look at the provider's own health")
    if 300 <= status < 400:
        advice = f"name its final address in {key}"
        return problem(subject, "the token endpoint answers with a redirect", f"{seen} {place}", advice)
    return ok(subject, f"{place} answers", seen)


async def _routes(tour: _Tour) -> None:
    config = tour.config
    tour.report.progress(f"asking the upstreams of {len(config.routes)} routes")
    now = time.time()
    questions = []
    for index, route in enumerate(config.routes):
        signature = None
        if (name := route.identity) is not None:
            signature = Signature(_expected(config, name), config.identities[name].inject, tour.tokens.get(name))
        questions.append(asked(index, route, signature, now, tour.environ))
    for findings in await asyncio.gather(*questions):
        for finding in findings:
            tour.report.tell(finding)


def _expected(config: Config, name: str) -> str:
    """What a platform that refuses the identity's token may have against it."""
    section = f"identities.{name}"
    if isinstance(config.identities[name], SspIdentity):
        return f"see that it knows the credential in {section}.credentials_file, and that the clocks agree"
    return f"compare the token (opentv-proxy token {name}) with the issuer, audience and roles that it expects"


async def _leave(guest: Visit, report: Report) -> None:
    subject = f"identity {guest.name}"
    report.progress(f"{subject}: logging out")
    open_still = await guest.logout()
    if open_still:
        advice = "it ends by itself after the provider's idle time"
        report.tell(hint(subject, "the session that check opened stays open", open_still, advice))
    elif open_still is not None:
        report.tell(ok(subject, "logged out"))
    await guest.close()
