"""Upstream: whether the platform answers, how fast, and over how many connections."""

from typing import Final

from grafana.look import ASIDE, PLAIN, AnyPanel, coloured, counts, graph, words
from grafana.queries import Query, increase, of_route, quantile, total

ERRORS: Final = counts(
    401,
    "Errors by reason",
    words(
        "Requests that the upstream did not answer properly. `connect`: nothing listens there. `tls`: its certificate,"
        " or ours. `timeout`: too slow. `reset`: it broke off. `protocol`: what it sent is no HTTP.",
        "none.",
        "the platform's own operators, or what lies in between; the CRM got 502 or 504. What each reason means and what"
        " to look at is in docs/errors.md.",
    ),
    Query(total(increase(of_route("upstream_errors_total")), "reason"), "{{reason}}"),
)

RESPONSE: Final = (
    graph(
        402,
        "Response time",
        words(
            "From sending a request to the head of the upstream's answer: 95 of 100 not longer than this, by route.",
            "what your platform usually takes.",
            "the platform is slow, not the gateway. At `timeouts.response` (60 s unless set) the CRM gets 504.",
        ),
        "s",
        Query(quantile(0.95, of_route("upstream_response_seconds_bucket"), "route") + " >= 0", "{{route}}"),
    )
    .min(0)
    .no_value("no requests")
)

CONNECTIONS: Final = (
    graph(
        403,
        "Connections",
        words(
            "Connections to the upstream: `active` carry a request, `idle` wait for the next one.",
            "few `idle`, and `active` far below the route's `max_connections` (256 unless set).",
            "at `max_connections` requests queue up, for `timeouts.connect` at most. No `idle` at all under load: the"
            " upstream closes after each answer, which costs a handshake a request.",
        ),
        "short",
        Query(total(of_route("upstream_connections"), "state"), "{{state}}"),
    )
    .override_by_name("active", coloured(PLAIN))
    .override_by_name("idle", coloured(ASIDE))
    .decimals(0)
    .min(0)
    .axis_soft_max(4)
)

PANELS: Final[list[AnyPanel]] = [ERRORS, RESPONSE, CONNECTIONS]
