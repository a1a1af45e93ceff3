"""Pure: the same for a terminal, and what the port has to offer."""

from collections.abc import Iterator
from typing import Final

from proxy.admin.page.facts import Facts, Identity, Route
from proxy.admin.page.verdict import Finding, findings, standing, summary
from proxy.admin.page.words import away, rate, span, took

_ENDPOINTS: Final = """\
GET  /                          this; the status page in a browser
GET  /livez                     200 while the process serves
GET  /readyz                    200 while every identity that a route needs has a usable token; ?verbose lists checks
GET  /metrics                   Prometheus or OpenMetrics
GET  /status                    identities, routes and store as JSON
POST /identities/NAME/refresh   refresh the token of NAME now
"""


def text(facts: Facts) -> str:
    """What ``curl`` gets."""
    return "\n".join(_lines(facts)).replace("\N{NO-BREAK SPACE}", " ") + f"\n\n{_ENDPOINTS}"


def _lines(facts: Facts) -> Iterator[str]:
    up = f", up {span(facts.now - facts.started)}" if facts.started is not None else ""
    found = findings(facts)
    yield f"opentv-auth-proxy {facts.version}{up}: {summary(found)}"
    for finding in found:
        yield from _found(finding)
    if facts.identities:
        yield "\nidentities"
        width = max(len(identity.name) for identity in facts.identities)
        yield from (_identity(identity, width, facts.now) for identity in facts.identities)
    if facts.routes:
        yield "\nroutes, of the last minute"
        width = max(len(route.path) for route in facts.routes)
        yield from (_route(route, width) for route in facts.routes)


def _found(finding: Finding) -> Iterator[str]:
    yield f"  {'PROBLEM' if finding.level == 'bad' else 'WARNING'}  {finding.about}: {finding.what}"
    yield from (f"           {words}" for words in (finding.details, finding.cause, finding.todo) if words)


def _identity(identity: Identity, width: int, now: float) -> str:
    words = [f"{identity.state}, {standing(identity)}"]
    if identity.expires is not None:
        words.append(f"{'ends' if identity.expires > now else 'ended'} {away(identity.expires, now)}")
    if identity.next_refresh is not None:
        words.append(f"next refresh {away(identity.next_refresh, now)}")
    if identity.fingerprint:
        words.append(identity.fingerprint)
    return f"  {identity.name:{width}}  {'; '.join(words)}"


def _route(route: Route, width: int) -> str:
    lately = route.lately
    broken = f" {lately.broken_off:,.0f} broken off," if lately.broken_off else ""
    failed = f"{lately.server_errors:,.0f} failed (5xx),{broken} {lately.client_errors:,.0f} others (4xx)"
    mean = f", {took(lately.mean)} on average" if lately.mean is not None else ""
    return f"  {route.path:{width}}  {rate(lately.requests, route.seconds)}, {failed}{mean}"
