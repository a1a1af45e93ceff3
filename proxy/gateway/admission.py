"""Who is let in; who is not is counted, told why, and slowed where it tries one wrong credential after the other."""

import re
from typing import Final

from proxy.config import Limits
from proxy.gateway.clients import Clients, Verdict
from proxy.gateway.fields import Fields
from proxy.gateway.headers import values_of
from proxy.gateway.http1 import RequestHead
from proxy.gateway.problems import Problem
from proxy.gateway.seams import ClientSide
from proxy.gateway.slowdown import Slowdown
from proxy.metrics import Metrics

_HELD_SHARE: Final = 4  # of the connections that an address may have, one in so many may wait for a held-back answer
_PROTO: Final = re.compile(rb"(https?) *(?:,|$)", re.IGNORECASE)
_AUTHORITY: Final = re.compile(rb"([A-Za-z0-9._~:\[\]-]+) *(?:,|$)")


class Admission:
    """``clients`` is replaced by a reload; what is known of floods stays."""

    def __init__(self, metrics: Metrics) -> None:
        self.clients: Clients | None = None
        self._denied = metrics.client_denied
        self._slowdown = Slowdown()

    def judge(self, clients: Clients, connection: ClientSide, head: RequestHead) -> Verdict | Problem:
        """One request on a connection whose address alone does not decide."""
        peer = connection.peer
        verdict = clients.judge(peer, connection.has_certificate, lambda name: values_of(head.fields, name))
        if verdict.reason is None:
            if verdict.trusted:
                head.origin = _origin(head.fields, connection.scheme, head.host)
            return verdict
        self._denied[verdict.reason] += 1
        if verdict.reason == "address":
            words = "Requests from this address are not accepted (clients.allow_from)."
            problem = Problem("client", 403, "http_request_denied", words)
        else:
            words = "A valid credential for the gateway is needed."
            if verdict.repeated:
                words = f"The {verdict.repeated} field stands in the request more than once."
            problem = Problem("client", 401, "http_request_denied", words, lines=tuple(clients.challenge()))
            if verdict.tried:
                problem.hold = self._hold(verdict.client, peer, connection.gateway.clock(), connection.gateway.limits)
        problem.client = verdict.client
        return problem

    def _hold(self, client: str, peer: str, now: float, limits: Limits) -> float:
        seconds = self._slowdown.wrong(client, now)
        most = min(limits.connections, limits.connections_per_address) // _HELD_SHARE
        return seconds if seconds and self._slowdown.hold(peer, most) else 0.0

    def released(self, peer: str) -> None:
        """A held-back answer has been given, or nobody waits for it any more."""
        self._slowdown.release(peer)


def _origin(fields: Fields, scheme: bytes, host: bytes) -> bytes:
    """Where a client came to, as the trusted proxy in front of it says, the first where there are several; what it does
    not say is as seen here. Empty where nobody named a host."""
    if proto := _PROTO.match(b"".join(values_of(fields, b"x-forwarded-proto")[:1])):
        scheme = proto[1].lower()
    if name := _AUTHORITY.match(b"".join(values_of(fields, b"x-forwarded-host")[:1])):
        host = name[1]
    return scheme + b"://" + host if host else b""
