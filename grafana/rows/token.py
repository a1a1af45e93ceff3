"""Token life: what the keeper of each identity does, and how long each thing still lasts."""

from typing import Final

from grafana_foundation_sdk.models import common

from grafana.look import AnyPanel, bad_below, bad_beyond, counts, graph, plain, states, tile, timeline, words
from grafana.queries import Query, increase, of_identity, quantile, rate, total

_EACH: Final = "{{identity}} {{instance}}"

REMAINING: Final = (
    graph(
        201,
        "Remaining life",
        words(
            "Seconds until each access token expires: a saw-tooth, up at each refresh. Replicas that share a store"
            " share one token, and their lines lie on each other.",
            "the line turns up well above 0, each time at about the same height.",
            "a tooth that goes deeper than the others is a refresh that failed first and succeeded later. Below 0 the"
            " token is dead: nothing is signed with it.",
        ),
        "s",
        Query(f"{of_identity('access_token_expiry_timestamp_seconds')} - time()", _EACH),
        width=12,
        steps=bad_below(1, 5),
    )
    .axis_soft_min(0)
    .no_value("no token")
)

AGE: Final = (
    graph(
        202,
        "Age",
        words(
            "Seconds since each access token was issued, by the provider's own account where the token has one.",
            "the mirror image of *Remaining life*: down to about 0 at each refresh.",
            "a foot above 0 is the difference between the two clocks (*Provider's clock*). A line that climbs on and on"
            " is a token that is not refreshed.",
        ),
        "s",
        Query(f"time() - {of_identity('access_token_issued_timestamp_seconds')}", _EACH),
        width=12,
    )
    .axis_soft_min(0)
    .no_value("no token")
)

NEXT: Final = tile(
    203,
    "Next refresh in",
    words(
        "Time until the next refresh is due, on the replica where it comes first. It is as old as the newest scrape, so"
        " a little below 0 is nothing.",
        "less than the token's life.",
        "hours, for a token of minutes: the provider stated a wrong lifetime, or the login is suspended.",
    ),
    "s",
    plain(),
    Query(
        f"min by (identity) ({of_identity('token_next_refresh_timestamp_seconds')} - time())",
        "{{identity}}",
        now=True,
    ),
    width=6,
).no_value("none due")

SINCE: Final = tile(
    204,
    "Last success",
    words(
        "Time since a token was last obtained, on the replica where that is longest ago.",
        "less than the token's life.",
        "longer, and *Failures in a row* above 0: the provider does not give a new one. Longer, without failures: the"
        " replica took its token from the store and has not had to refresh it yet.",
    ),
    "s",
    plain(),
    Query(
        f"max by (identity) (time() - {of_identity('token_last_success_timestamp_seconds')})",
        "{{identity}}",
        now=True,
    ),
    width=6,
).no_value("none yet")

REFRESH_END: Final = tile(
    205,
    "Refresh token ends in",
    words(
        "Time until the refresh token expires when it is not used; each use usually starts it anew.",
        "minutes to weeks, as your provider sets it. No tile for an identity whose refresh token has no end, or that"
        " has none.",
        "after its end the gateway logs in again by itself; with `grant: refresh_token` it cannot, and a person must"
        " bring a new one.",
    ),
    "s",
    bad_below(60, 600),
    Query(
        f"min by (identity) ({of_identity('refresh_token_expiry_timestamp_seconds')} - time())",
        "{{identity}}",
        now=True,
    ),
    width=6,
).no_value("no end known")

SESSION_END: Final = tile(
    206,
    "Session ends in",
    words(
        "Time until the provider ends the session whatever is refreshed, where it says so (AGS does; Keycloak once its"
        " maximum comes into sight).",
        "any time, for an identity that can log in by itself: it does so before the end, unnoticed.",
        "with `grant: refresh_token` a person must bring a new refresh token before this reaches 0.",
    ),
    "s",
    bad_below(300, 3600),
    Query(f"min by (identity) ({of_identity('session_end_timestamp_seconds')} - time())", "{{identity}}", now=True),
    width=6,
).no_value("no end known")

REFRESHES: Final = counts(
    207,
    "Refreshes by trigger",
    words(
        "Tokens obtained, by what asked for them. `ahead`: the ordinary case. `startup`, `session_end`,"
        " `credentials_changed`: a new login. `expired`: nothing came in time. `rejected`: the platform refused a"
        " token. `manual`: somebody asked.",
        "`ahead` at a steady pace, about one for each four fifths of a life.",
        "many `rejected`: see *Refused tokens*. Many `expired`: see *Failed refreshes by result*. More bars than the"
        " lifetimes explain: two gateways may share one session.",
    ),
    Query(total(increase(of_identity("token_refreshes_total", 'result="success"')), "trigger"), "{{trigger}}"),
    width=12,
)

FAILED: Final = counts(
    208,
    "Failed refreshes by result",
    words(
        "Exchanges with the token endpoint that gave no token, by what came instead.",
        "none.",
        "`network`, `timeout`, `http_error`, `malformed`: the provider or the way to it. `rate_limited`: it asks for"
        " patience. `invalid_grant`: the session is gone, and a login follows by itself. `invalid_credentials`,"
        " `operator`: a person must act; the log line `token exchange failed` has the provider's words.",
    ),
    Query(total(increase(of_identity("token_refreshes_total", 'result!="success"')), "result"), "{{result}}"),
    width=12,
)

_EXCHANGES: Final = total(rate(of_identity("token_refresh_duration_seconds_count")), "identity")
DURATION: Final = (
    graph(
        209,
        "Refresh duration",
        words(
            "How long an exchange with the token endpoint took, failed ones included: a dot for each step that had any,"
            " their average if several.",
            "well below a second, and far below the identity's `timeout` (10 s unless set).",
            "the provider is slow. No request waits for it while the token lives; after that all of them do.",
        ),
        "s",
        Query(
            f"{total(rate(of_identity('token_refresh_duration_seconds_sum')), 'identity')} / ({_EXCHANGES} > 0)",
            "{{identity}}",
        ),
    )
    .show_points(common.VisibilityMode.ALWAYS)
    .point_size(6)
    .span_nulls(span_nulls=True)
    .interval("1m")
    .min(0)
    .no_value("no refresh in this time")
)

WAITERS: Final = (
    graph(
        210,
        "Requests waiting for a token",
        words(
            "Requests that are held back now because there is no usable token.",
            "0, but for a moment at start.",
            "each of them waits at most for the identity's `timeout` and gets 503 then. See *Tokens*.",
        ),
        "short",
        Query(total(of_identity("token_waiters"), "identity"), "{{identity}}"),
    )
    .decimals(0)
    .min(0)
    .axis_soft_max(4)
)

_WAITED: Final = total(rate(of_identity("token_wait_seconds_count")), "identity")
WAIT: Final = (
    graph(
        211,
        "Wait for a token",
        words(
            "How long requests waited that had to: 95 of 100 not longer than this. 0 where none had to wait.",
            "0. Once a token was refused, about as long as one *Refresh duration*.",
            "a rise without refused tokens means that tokens run out before they are refreshed.",
        ),
        "s",
        Query(
            f"{quantile(0.95, of_identity('token_wait_seconds_bucket'), 'identity')} >= 0 or 0 * {_WAITED}",
            "{{identity}}",
        ),
    )
    .min(0)
    .axis_soft_max(0.1)
)

SUSPENDED: Final = timeline(
    212,
    "Login suspended",
    words(
        "Whether the gateway has stopped trying to log in because the provider refused its credentials: it waits a"
        " minute, then ever longer up to 15, so that no account gets locked.",
        "never.",
        "a person must act: a password expired, a client or an account changed. `/status` has the provider's words. A"
        " changed secret file, SIGHUP or a refresh by hand ends the wait at once.",
    ),
    states((1, "SUSPENDED"), (0, "no")),
    Query(f"max by (identity) ({of_identity('token_login_suspended')})", "{{identity}}"),
    width=12,
)

SKEW: Final = graph(
    213,
    "Provider's clock",
    words(
        "The identity provider's clock minus the gateway's, as its answers show it (to half a second).",
        "within 10 s of 0. No line for a provider that states no time.",
        "see to NTP on both machines. The gateway bears it, but the platform may take fresh tokens for expired or not"
        " yet valid.",
    ),
    "s",
    Query(of_identity("idp_clock_skew_seconds"), _EACH),
    width=12,
    steps=bad_beyond(10, 60),
).axis_centered_zero(axis_centered_zero=True)

PANELS: Final[list[AnyPanel]] = [
    *(REMAINING, AGE),
    *(NEXT, SINCE, REFRESH_END, SESSION_END),
    *(REFRESHES, FAILED),
    *(DURATION, WAITERS, WAIT),
    *(SUSPENDED, SKEW),
]
