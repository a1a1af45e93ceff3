"""Pure: one identity as the admin port shows it, in JSON and in gauges. A token appears as its fingerprint only."""

from collections.abc import Iterable
from math import isinf

from proxy.counters import IdentityMetrics
from proxy.tokens.ledger import Attempt
from proxy.tokens.pair import Moment, rfc3339
from proxy.tokens.plan import Life


def wall(mono: float | None, now: Moment) -> float | None:
    """Unix seconds of a reading of the steady clock, by the wall clock as it is now; None for no such time."""
    return None if mono is None or isinf(mono) else mono - now.mono + now.wall


def status(life: Life, history: Iterable[Attempt], now: Moment) -> dict[str, object]:
    pair = life.pair
    attempts = [_attempt(attempt) for attempt in history]
    return {
        "state": life.state(now.mono),
        "fingerprint": pair.fingerprint if pair else None,
        "issued_at": _shown(pair.issued_at or wall(pair.obtained.mono, now)) if pair else None,
        "expires_at": _shown(wall(pair.expires, now)) if pair else None,
        "refresh_expires_at": _shown(wall(pair.refresh_expires, now)) if pair and pair.refresh else None,
        "session_ends_at": _shown(wall(pair.session_ends, now)) if pair else None,
        "next_refresh_at": _shown(_next(life, now)),
        "last_refresh": attempts[-1] if attempts else None,
        "consecutive_failures": life.failures,
        "suspended_until": _shown(wall(life.suspended_until, now)) if life.suspended(now.mono) else None,
        "history": attempts,
    }


def publish(metrics: IdentityMetrics, life: Life, now: Moment) -> None:
    """Sets the gauges. Called often, so that a set wall clock shows in all of them."""
    pair = life.pair
    metrics.usable = life.alive(now.mono)
    metrics.login_suspended = life.suspended(now.mono)
    metrics.consecutive_failures = life.failures
    metrics.next_refresh = _next(life, now)
    if pair is not None:
        metrics.access_issued = pair.issued_at or wall(pair.obtained.mono, now)
        metrics.access_expiry = wall(pair.expires, now)
        metrics.refresh_expiry = wall(pair.refresh_expires, now) if pair.refresh else None
        metrics.session_end = wall(pair.session_ends, now)


def _next(life: Life, now: Moment) -> float:
    return max(life.due(now).at, now.mono) - now.mono + now.wall


def _attempt(attempt: Attempt) -> dict[str, object]:
    return {
        "at": rfc3339(attempt.at),
        "trigger": attempt.trigger,
        "grant": attempt.grant,
        "result": attempt.result,
        "duration_s": round(attempt.duration, 3),
        "detail": attempt.detail,
    }


def _shown(at: float | None) -> str | None:
    return None if at is None else rfc3339(at)
