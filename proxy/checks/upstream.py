"""One route's upstream: a connection and an answer to ``HEAD``, without a token and, where there is one, with it.

``GET`` after it, which is as harmless (RFC 9110 9.2.1), where that tells too little: for an upstream that forbids
``HEAD``, and for one that says "bad token" by a result code in a JSON body.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit
from uuid import uuid4

from proxy import tls
from proxy.checks.closer import no_tls_asked, speaks_tls, unreachable
from proxy.checks.finding import (
    Finding,
    Where,
    certificate_times,
    clock_drift,
    faults,
    hint,
    ok,
    plain,
    problem,
    who_answered,
)
from proxy.checks.probe import Answer, Peer, ProbeError, head
from proxy.checks.verdict import Pair, Seen, judged
from proxy.config import Inject, Route
from proxy.config.web import without_query
from proxy.errors import ConfigError, TokenError
from proxy.tokens.systems.base import TokenRequest
from proxy.tokens.transport import HttpTransport

_NO_HEAD: Final = (405, 501)


@dataclass(frozen=True, slots=True)
class Signature:
    """How an identity signs. expected: what to look at when the token is refused. access: the token, None when none was
    had."""

    expected: str
    inject: Inject
    access: str | None

    @property
    def headers(self) -> dict[str, str]:
        """Of a signed request."""
        return {self.inject.header: f"{self.inject.scheme} {self.access}".lstrip()}


async def asked(
    index: int, route: Route, signature: Signature | None, now: float, environ: Mapping[str, str]
) -> list[Finding]:
    """signature: None for a route without an identity. now: Unix seconds. environ: for the proxies that it names."""
    where = Where(f"route {route.path}", f"routes.{index}", "upstream")
    secure = urlsplit(route.upstream).scheme == "https"
    try:
        context = tls.client_context(route.tls, f"{where.section}.tls") if secure else None
    except ConfigError as error:
        return faults(where.subject, error)
    peer = Peer(route.upstream, context, route.tls.server_name, route.timeouts.connect, proxy=route.proxy)
    questions = _Questions(peer, target(route), dict(route.headers.set))
    try:
        bare = await head(peer, questions.target, questions.headers)
        signed = None
        if signature is not None and signature.access is not None:
            signed = await head(peer, questions.target, questions.headers | signature.headers)
    except ProbeError as error:
        return [await unreachable(error, peer, where, environ)]
    reached = await _reached(where, peer, bare)
    found = [reached]
    found += certificate_times(where.subject, "the upstream's", bare.greeting, now)
    found += clock_drift(where.subject, bare.drift, "the upstream's clock")
    if signature is not None and reached.severity == "ok":
        pair = Pair(f"HEAD {questions.target}", _seen(bare), _seen(signed) if signed else None, signature.access)
        if _tells_nothing(route, bare, signed):
            pair = await questions.by_get(signature) or pair
        found += judged(where, route, signature.expected, pair)
    return found


def target(route: Route) -> str:
    """Where a request for the route's own prefix goes."""
    base = urlsplit(route.upstream).path.rstrip("/")
    return base + ("/" if route.strip_prefix else route.path)


def _seen(answer: Answer) -> Seen:
    return Seen(answer.status, answer.headers)


def _tells_nothing(route: Route, bare: Answer, signed: Answer | None) -> bool:
    """Whether HEAD, which some forbid by itself, and which has no body, leaves open what becomes of a token."""
    if bare.status in _NO_HEAD or (signed is not None and signed.status in (403, *_NO_HEAD)):
        return True
    codes = route.rejected.result_codes and "json" in bare.headers.get("content-type", "").lower()
    return bool(codes) and bare.status not in route.rejected.statuses


@dataclass(frozen=True, slots=True)
class _Questions:
    """The same question, with and without a token. headers: those that the route sets."""

    peer: Peer
    target: str
    headers: dict[str, str]

    async def by_get(self, signature: Signature) -> Pair | None:
        """None when an answer did not come whole, or was longer than 1 MiB."""
        peer = self.peer
        transport = HttpTransport(
            peer.answer, tls=peer.context, server_name=peer.server_name, explain=tls.explain, proxy=peer.proxy
        )
        try:
            bare = await self._got(transport, {})
            signed = await self._got(transport, signature.headers) if signature.access is not None else None
        except TokenError:
            return None
        finally:
            await transport.close()
        return Pair(f"GET {self.target}", bare, signed, signature.access)

    async def _got(self, transport: HttpTransport, more: dict[str, str]) -> Seen:
        parts = urlsplit(self.peer.url)
        url = f"{parts.scheme}://{parts.netloc}{self.target}"
        fields = {"Accept": "application/json, */*;q=0.5", **self.headers, **more}
        reply = await transport.exchange(TokenRequest("GET", url, tuple(fields.items()), b""), str(uuid4()))
        return Seen(reply.status, reply.headers, reply.body)


async def _reached(where: Where, peer: Peer, bare: Answer) -> Finding:
    subject, place, status = where.subject, without_query(peer.url), bare.status
    evidence = f"HTTP {status}" + (f", {bare.greeting.tls}" if bare.greeting.tls else "")
    if status == 407:
        advice = f"give it {where.section}.proxy.username and .password_file, or write proxy: none for a direct way"
        return problem(subject, "a proxy on the way asks for a login", evidence + who_answered(bare.headers), advice)
    if status >= 500:
        advice = "look at the upstream's own health: it is reached, and passes this error on to clients"
        return hint(subject, f"{place} answers with an error", evidence + who_answered(bare.headers), advice)
    if status == 400 and peer.context is None and await speaks_tls(peer):
        return no_tls_asked(where, peer)
    if 300 <= status < 400 and (found := _redirected(where, peer, bare)) is not None:
        return found
    return ok(subject, f"{place} answers", evidence)


def _redirected(where: Where, peer: Peer, bare: Answer) -> Finding | None:
    """None for a redirect within the upstream, which is its own affair."""
    location = bare.headers.get("location", "").partition("?")[0]
    ours, theirs = urlsplit(peer.url), urlsplit(location)
    if not theirs.netloc or (ours.scheme, ours.netloc) == (theirs.scheme, theirs.netloc):
        return None
    evidence = f"HTTP {bare.status} to {plain(location, 120)}{who_answered(bare.headers)}"
    if (ours.scheme, ours.hostname) == ("http", theirs.hostname) and theirs.scheme == "https":
        finding = "the upstream wants https:// and answers everything else with a redirect"
        return problem(where.subject, finding, evidence, f"write https:// in {where.url}")
    advice = f"redirects are never followed: if it is the same service, name its final address in {where.url}"
    return hint(where.subject, "the upstream redirects to another host", evidence, advice)
