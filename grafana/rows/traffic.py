"""Traffic: what the CRM sends, what it gets, and what the gateway itself adds."""

from typing import Final

from grafana.look import ASIDE, BAD, GOOD, PLAIN, WARN, AnyPanel, coloured, counts, graph, shaded, words
from grafana.queries import Query, increase, of_gateway, of_route, quantile, rate, total

_ALL: Final = total(rate(of_route("requests_total")))


def _share(*codes: str) -> str:
    """Of all requests; 0 where there are requests and none was answered so."""
    some = total(rate(of_route("requests_total", *codes)))
    return f"({some} or 0 * {_ALL}) / ({_ALL} > 0)"


REQUESTS: Final = (
    graph(
        301,
        "Requests",
        words(
            "Requests answered a second, by route. `none`: no route covers the path.",
            "what your CRM usually sends.",
            "nothing at all: the CRM does not reach the gateway. `none` above 0: it calls a path that is not"
            " configured, and gets 404.",
        ),
        "reqps",
        Query(total(rate(of_route("requests_total")), "route"), "{{route}}"),
    )
    .min(0)
    .no_value("no requests yet")
)

CODES: Final = (
    graph(
        302,
        "Answers by code",
        words(
            "Answers a second by status, the gateway's own and those of the platform. 499: the client left first.",
            "2xx, and the 4xx that your CRM is used to.",
            "401, 403: see *Refused tokens* and *Refused clients*. 502, 504: see *Errors by reason*. 503: see *Tokens*."
            " The gateway's own answers carry `Proxy-Status`, and say in `detail` what is wrong.",
        ),
        "reqps",
        Query(total(rate(of_route("requests_total")), "code"), "{{code}}"),
    )
    .override_by_regexp("/^2/", shaded(GOOD))
    .override_by_regexp("/^[13]/", shaded(PLAIN))
    .override_by_regexp("/^4/", shaded(WARN))
    .override_by_regexp("/^5/", shaded(BAD))
    .override_by_name("499", coloured(ASIDE))
    .min(0)
    .no_value("no requests yet")
)

RATIO: Final = (
    graph(
        303,
        "Share of errors",
        words(
            "Share of the requests answered with 5xx, with 4xx, and of those whose client left before the answer.",
            "5xx below 0.1 %. What is normal of 4xx is up to your CRM.",
            "*Answers by code* says which. Many that left: the CRM's own time-out is shorter than the platform takes.",
        ),
        "percentunit",
        Query(_share('code=~"5.."'), "5xx"),
        Query(_share('code=~"4.."', 'code!="499"'), "4xx"),
        Query(_share('code="499"'), "client left"),
    )
    .override_by_name("5xx", coloured(BAD))
    .override_by_name("4xx", coloured(WARN))
    .override_by_name("client left", coloured(ASIDE))
    .min(0)
    .axis_soft_max(0.01)
    .no_value("no requests")
)

_BUCKETS: Final = of_route("request_duration_seconds_bucket")
LATENCY: Final = (
    graph(
        304,
        "Latency",
        words(
            "From a request's head to the end of its answer: half of the requests are faster than p50, 95 and 99 of 100"
            " faster than p95 and p99.",
            "what the platform itself takes.",
            "*Where the time goes* says whether the platform is slow or the gateway.",
        ),
        "s",
        *(Query(quantile(share, _BUCKETS), f"p{round(share * 100)}") for share in (0.5, 0.95, 0.99)),
    )
    .override_by_name("p50", coloured(f"light-{PLAIN}"))
    .override_by_name("p95", coloured(PLAIN))
    .override_by_name("p99", coloured(f"dark-{PLAIN}"))
    .min(0)
    .no_value("no requests")
)

_ENDED: Final = total(rate(of_route("request_duration_seconds_count")))
_WHOLE: Final = total(rate(of_route("request_duration_seconds_sum")))
_UPSTREAM: Final = total(rate(of_route("upstream_response_seconds_sum")))
ADDED: Final = (
    graph(
        305,
        "Where the time goes",
        words(
            "An average request: its whole time, the part spent waiting for the head of the upstream's answer, and the"
            " rest. The rest is what the gateway adds, bodies on their way and waits for a token or a connection"
            " included.",
            "the rest below a few milliseconds, or as long as your bodies take.",
            "see *Wait for a token*, *Event loop lag* and *CPU*; large bodies and slow clients count here too.",
        ),
        "s",
        Query(f"{_WHOLE} / {_ENDED}", "whole"),
        Query(f"{_UPSTREAM} / {_ENDED}", "upstream"),
        Query(f"({_WHOLE} - {_UPSTREAM}) / {_ENDED}", "rest"),
    )
    .override_by_name("whole", coloured(PLAIN))
    .override_by_name("upstream", coloured(ASIDE))
    .override_by_name("rest", coloured(WARN))
    .min(0)
    .no_value("no requests")
)

REJECTIONS: Final = (
    counts(
        306,
        "Refused tokens",
        words(
            "Answers by which the platform refused a token, and what became of them. `replayed`: refreshed, sent again,"
            " the CRM saw only the second answer. `passed_on`: a new token does not help. `not_replayable`: the body"
            " was too long to keep, the CRM saw the refusal.",
            "none, or now and then a `replayed`.",
            "`passed_on`: mostly a missing role, or a true lack of permission. Many `replayed`: the platform and the"
            " provider disagree on how long a token lives.",
        ),
        Query(total(increase(of_route("rejections_total")), "outcome"), "{{outcome}}"),
    )
    .override_by_name("replayed", coloured(GOOD))
    .override_by_name("passed_on", coloured(BAD))
    .override_by_name("not_replayable", coloured(WARN))
)

IN_FLIGHT: Final = (
    graph(
        307,
        "Requests in flight",
        words(
            "Requests being served now, by instance. Tunnels and event streams count for as long as they are open.",
            "about *Requests* times *Latency*.",
            "a line that only climbs: the platform does not answer, or clients hang. `timeouts` of the route ends"
            " the first, `limits` the second.",
        ),
        "short",
        Query(of_gateway("requests_in_flight"), "{{instance}}"),
    )
    .min(0)
    .axis_soft_max(4)
    .decimals(0)
)

BYTES: Final = (
    graph(
        308,
        "Body bytes",
        words(
            "Bytes of bodies a second: received from clients, and sent to them.",
            "what your CRM usually moves.",
            "much more than usual in one direction explains latency and memory.",
        ),
        "Bps",
        Query(total(rate(of_route("request_body_bytes_total"))), "received"),
        Query(total(rate(of_route("response_body_bytes_total"))), "sent"),
    )
    .override_by_name("received", coloured(PLAIN))
    .override_by_name("sent", coloured(GOOD))
    .min(0)
)

DENIED: Final = counts(
    309,
    "Refused clients",
    words(
        "Requests that the gateway refused because of who sent them or what they asked for. `address`: not in"
        " `clients.allow_from`. `credential`: none, or a wrong one. `allow`: not in the route's list.",
        "none.",
        "a CRM whose address or key changed; else somebody who should not be there. The log's `access` lines with 401"
        " and 403 have the address.",
    ),
    Query(total(increase(of_gateway("client_denied_total")), "reason"), "{{reason}}"),
)

PANELS: Final[list[AnyPanel]] = [
    *(REQUESTS, CODES, RATIO),
    *(LATENCY, ADDED, REJECTIONS),
    *(IN_FLIGHT, BYTES, DENIED),
]
