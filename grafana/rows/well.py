"""Is it well? Five tiles that answer it from across the room."""

from typing import Final

from grafana_foundation_sdk.builders.dashboard import ThresholdsConfig
from grafana_foundation_sdk.models import common
from grafana_foundation_sdk.models.dashboard import DynamicConfigValue, ThresholdsMode

from grafana.look import AnyPanel, bad_above, bad_below, states, tile, words
from grafana.queries import Query, of_identity, of_route, rate, selector, total

_ALL: Final = total(rate(of_route("requests_total")))
_FAILED: Final = total(rate(of_route("requests_total", 'code=~"5.."')))

USABLE: Final = (
    tile(
        101,
        "Tokens",
        words(
            "Whether each identity has a token to sign with, on the replica that is worst off.",
            "usable.",
            "requests of that identity get 503 now. The words of the last failure are in *Failed refreshes by result*"
            " and in `/status` on the admin port; `opentv-proxy check` says what to do.",
        ),
        "none",
        bad_below(1, 1),
        Query(f"min by (identity) ({of_identity('token_usable')})", "{{identity}}", now=True),
        width=6,
    )
    .mappings([states((0, "NOT usable"), (1, "usable"))])
    .color_mode(common.BigValueColorMode.BACKGROUND)
    .no_value("no gateway")
)

TIME_LEFT: Final = tile(
    102,
    "Time to expiry",
    words(
        "How long each access token still lives, on the replica where that is least. It falls and jumps back up with"
        " each refresh.",
        "never below 5 s; the refresh comes a quarter of the life ahead, at most a minute.",
        "orange: the refresh is late, and *Failures in a row* says whether it is refused. Red: a second before"
        " its end a token counts as dead, and requests wait or get 503.",
    ),
    "s",
    bad_below(1, 5),
    Query(
        f"min by (identity) ({of_identity('access_token_expiry_timestamp_seconds')} - time())", "{{identity}}", now=True
    ),
    width=6,
).no_value("no token")

FAILURES: Final = tile(
    103,
    "Failures in a row",
    words(
        "Failed refreshes since a token was last obtained, on the replica with most of them.",
        "0. A single 1 that goes away was a moment's trouble, and cost no request anything.",
        "the token at hand serves until *Time to expiry* reaches 0; that is how long there is to act. See *Failed"
        " refreshes by result*.",
    ),
    "short",
    bad_above(1, 3),
    Query(f"max by (identity) ({of_identity('token_refresh_consecutive_failures')})", "{{identity}}", now=True),
    width=4,
)

REPLICAS: Final = tile(
    104,
    "Replicas",
    words(
        "Gateways that Prometheus reaches, and those that it knows and does not reach.",
        "up as many as you run, down 0.",
        "see whether the process runs and whether Prometheus may reach its admin port. One that is gone from"
        " Prometheus' own list is in neither number.",
    ),
    "short",
    bad_below(1, 1),
    Query(total(selector("up")), "up", now=True),
    Query(total(f"1 - {selector('up')}"), "down", now=True),
    width=4,
).override_by_name(
    "down",
    [
        DynamicConfigValue(
            id_val="thresholds",
            value=ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(list(bad_above(1, 1))).build(),
        )
    ],
)

ERRORS: Final = (
    tile(
        105,
        "Error ratio",
        words(
            "Share of all requests that were answered with 5xx, by the gateway or by the platform behind it.",
            "below 0.1 %.",
            "*Answers by code* says which; 502, 503 and 504 are mostly the gateway's own (its answer carries"
            " `Proxy-Status`), 500 comes from the platform.",
        ),
        "percentunit",
        bad_above(0.001, 0.01),
        Query(f"({_FAILED} or 0 * {_ALL}) / ({_ALL} > 0)", "5xx"),
        width=4,
    )
    .text_mode(common.BigValueTextMode.VALUE)
    .graph_mode(common.BigValueGraphMode.AREA)
    .min(0)
    .no_value("no requests")
)

PANELS: Final[list[AnyPanel]] = [USABLE, TIME_LEFT, FAILURES, REPLICAS, ERRORS]
