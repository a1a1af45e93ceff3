"""``check`` beyond the file: every identity is visited once, then every route's upstream is asked."""

import asyncio
import time
from contextlib import AsyncExitStack

from proxy.checks.discovery import discovered
from proxy.checks.finding import Finding, clock_drift, faults, hint, ok, problem, shown
from proxy.checks.identity import examine
from proxy.checks.probe import Peer, ProbeError, head
from proxy.checks.report import Report
from proxy.checks.seed import inspected
from proxy.checks.upstream import Signature, asked
from proxy.checks.visit import Visit, visit
from proxy.config import Config, TokenEndpointIdentity
from proxy.errors import ConfigError, TokenError
from proxy.tokens.systems.ags import Ags

# Whom a provider refused: endpoint and user, with the identity it was. Another try at once could lock the user.
_Refused = dict[tuple[str, str], str]


async def visit_all(config: Config, report: Report) -> None:
    """Every identity, then every route. Sessions stay open until the routes were asked: a logout ends tokens too."""
    tokens: dict[str, str] = {}
    refused: _Refused = {}
    async with AsyncExitStack() as leaving:
        # One after the other: Keycloak lets one login of a user in at a time.
        for name in config.identities:
            try:
                guest = visit(config, name)
            except ConfigError as error:
                for finding in faults(f"identity {name}", error):
                    report.tell(finding)
                continue
            leaving.push_async_callback(_leave, guest, report)
            await _visited(config, guest, report, refused)
            if guest.pair is not None:
                tokens[name] = guest.pair.access
        await _routes(config, tokens, report)


async def _visited(config: Config, guest: Visit, report: Report, refused: _Refused) -> None:
    identity = guest.identity
    if guest.seed is not None and isinstance(identity, TokenEndpointIdentity):
        for finding in inspected(guest.name, identity, time.time(), kept=config.store.kind != "memory"):
            report.tell(finding)
        await _endpoint(guest, identity, report)
        return
    who = (guest.place, guest.account)
    if who in refused:
        advice = f"mend identity {refused[who]} first: another refused login at once could lock the user"
        report.tell(problem(f"identity {guest.name}", "not tried: its user was just refused", advice=advice))
        return
    if isinstance(guest.system, Ags) and not await discovered(guest, guest.system, report.tell, report.progress):
        return  # the login would only be refused
    try:
        await examine(guest, report.tell, report.progress)
    except TokenError:
        refused[who] = guest.name


async def _endpoint(guest: Visit, identity: TokenEndpointIdentity, report: Report) -> None:
    """Whether a token endpoint is there at all, for an identity that cannot log in without spending its seed."""
    subject = f"identity {guest.name}"
    where = shown(identity.token_url)
    report.progress(f"{subject}: asking {where}")
    peer = Peer(identity.token_url, guest.context, identity.tls.server_name, identity.timeout)
    try:
        answer = await head(peer, peer.target, {})
    except ProbeError as error:
        report.tell(problem(subject, str(error), where, f"check token_url and identities.{guest.name}.tls"))
        return
    for finding in (
        _judged(subject, where, answer.status),
        *clock_drift(subject, answer.drift, "the provider's clock"),
    ):
        report.tell(finding)


def _judged(subject: str, where: str, status: int) -> Finding:
    """HEAD is no token request: a token endpoint refuses it, with 405 or another 4xx."""
    seen = f"HTTP {status} to HEAD"
    if status == 404:
        advice = "check the path prefix and the realm in token_url"
        return problem(subject, "there is no token endpoint at this address", f"{seen} {where}", advice)
    if status >= 500:
        return problem(subject, "the token endpoint fails", f"{seen} {where}", "look at the provider's own health")
    if 300 <= status < 400:
        advice = "give its final address as token_url"
        return problem(subject, "the token endpoint answers with a redirect", f"{seen} {where}", advice)
    return ok(subject, f"{where} answers", seen)


async def _routes(config: Config, tokens: dict[str, str], report: Report) -> None:
    report.progress(f"asking the upstreams of {len(config.routes)} routes")
    now = time.time()
    questions = []
    for index, route in enumerate(config.routes):
        signature = None
        if route.identity is not None:
            signature = Signature(config.identities[route.identity].inject, tokens.get(route.identity))
        questions.append(asked(index, route, signature, now))
    for findings in await asyncio.gather(*questions):
        for finding in findings:
            report.tell(finding)


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
