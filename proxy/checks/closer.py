"""A second, closer look at a peer that could not be reached: one more connection on which nothing is sent."""

import asyncio
import ssl
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from proxy import tls
from proxy.checks import certificates
from proxy.checks.certificates import Certificate
from proxy.checks.finding import Finding, Where, problem
from proxy.checks.probe import Peer, ProbeError, connection
from proxy.config.forwardproxy import exempt, variable
from proxy.config.web import without_query

_PATIENCE: Final = 1.0
"""Seconds for a handshake, and for a peer to say what it has against our certificate (TLS 1.3: after the handshake)."""


async def unreachable(error: ProbeError, peer: Peer, where: Where, environ: Mapping[str, str]) -> Finding:
    """The problem that ``error`` stands for, with what a closer look shows. environ: for the proxies that it names."""
    finding, _, advice = error.words.partition("; ")
    evidence = without_query(peer.url)
    if error.detour:
        finding, _, _ = finding.partition(": see ")
        advice = f"check {where.section}.proxy, or write none there for a direct way"
        return problem(where.subject, finding, evidence + by_proxy(peer), advice)
    if error.connected and (shows := await looked_at(peer, where)) is not None:
        return shows
    if error.refused_certificate and (seen := await _certificate(peer)) is not None:
        evidence = str(seen)
    evidence += by_proxy(peer)
    if advice.startswith("is the URL meant"):
        advice = f"write http:// in {where.url}, or name the port that speaks TLS"
    if not advice or advice.startswith("check the spelling"):
        advice = f"check {'the name' if advice else 'host and port'} in {where.url}" + proxy_words(environ, peer)
    return problem(where.subject, finding, evidence, where.written_out(advice))


async def looked_at(peer: Peer, where: Where) -> Finding | None:
    """Why a peer that can be connected to gives no answer; None when nothing shows."""
    if peer.context is None:
        return no_tls_asked(where, peer) if await speaks_tls(peer) else None
    finding, _, advice = (await _objection(peer)).partition("; ")
    if not finding:
        return None
    advice = advice or "see that it knows the authority of the certificate in cert_file, and this client"
    finding = f"no TLS connection to {peer.address}: {finding}"
    return problem(where.subject, finding, without_query(peer.url), where.written_out(advice))


def no_tls_asked(where: Where, peer: Peer) -> Finding:
    """Of a port that ``speaks_tls`` and was asked without."""
    return problem(
        where.subject,
        f"{peer.address} wants TLS, and is asked without",
        without_query(peer.url),
        f"write https:// in {where.url}",
    )


async def speaks_tls(peer: Peer) -> bool:
    """Of a peer that was asked in plain HTTP."""
    try:
        async with connection(replace(peer, context=_trusting(None), connect=min(peer.connect, _PATIENCE))):
            return True
    except ProbeError:
        return False


async def _objection(peer: Peer) -> str:
    """What the peer has against the certificate that it was shown, or against none; "" when it says nothing."""
    try:
        async with connection(peer) as (reader, _), asyncio.timeout(_PATIENCE):
            await reader.read(1)
    except ssl.SSLError as exc:
        return tls.explain(exc)
    except (OSError, ProbeError):
        return ""
    return ""


async def _certificate(peer: Peer) -> Certificate | None:
    """The one that the peer shows. It is only read: neither trusted, nor is anything sent."""
    try:
        async with connection(replace(peer, context=_trusting(peer.context))) as (_, writer):
            der = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
            return certificates.read(der) if der else None
    except ProbeError:
        return None


def _trusting(like: ssl.SSLContext | None) -> ssl.SSLContext:
    """A context that looks at whatever certificate there is. It must never carry a request."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if like is not None:
        context.minimum_version = like.minimum_version
    return context


def by_proxy(peer: Peer) -> str:
    """Which way the peer was asked, if not directly."""
    return f", by the proxy {peer.proxy.url}" if peer.proxy.url is not None else ""


def proxy_words(environ: Mapping[str, str], peer: Peer) -> str:
    """Where the environment names a proxy for this peer in a way that other programs know and the gateway does not."""
    name, value = variable(environ, "all_proxy")
    if not value or peer.proxy.url is not None or exempt(peer.host, peer.port, environ):
        return ""
    return f"; {name} is set, but the gateway goes by HTTPS_PROXY and HTTP_PROXY, or by proxy in its configuration"
