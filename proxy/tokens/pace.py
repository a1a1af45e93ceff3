"""Pure: how long to wait after what went wrong. Seconds everywhere; draw: a random number in [0, 1)."""

from typing import Final, NamedTuple

from proxy.counters import Trigger
from proxy.errors import TokenError
from proxy.tokens.systems.base import Step

FIRST_PROBE: Final = 1.0
QUICK_LOGIN: Final = 1.5
"""Keycloak's quick login check takes 1000 ms (K7); its clock and the way to it add some."""

_PROBE = (FIRST_PROBE, 2.0)  # nobody answers: service is back within 5 s of the provider's return (B8)
_BROKEN = (FIRST_PROBE, 15.0)  # it answers nonsense (B9)
_STRANGE = (2.0, 30.0)
_LIMITED = (5.0, 60.0)
_OPERATOR = (30.0, 300.0)
_REFUSED = (60.0, 900.0)
_EARLY_CAP = 30.0
_LONGEST = 900.0


class Pause(NamedTuple):
    """ours: we chose it; else the provider or the nature of the error did, and nothing shortens it."""

    seconds: float
    ours: bool


class Due(NamedTuple):
    """The next renewal nobody has to ask for: when (``Moment.mono``) and why."""

    at: float
    trigger: Trigger


class Refusal(NamedTuple):
    """Why a request without a token must not wait for one. retry_after: seconds."""

    words: str
    retry_after: float


def pause_after(error: TokenError, step: Step, count: int, least: float, draw: float) -> Pause:
    """The pause after the count-th failure in a row, at least ``least``, growing and jittered upwards."""
    if error.retry_after is not None:
        return Pause(min(max(error.retry_after, FIRST_PROBE), _LONGEST), ours=False)
    base, cap = _base_and_cap(error, step)
    quick = cap <= _BROKEN[1]
    if least > base:
        base, cap = least, max(cap, _EARLY_CAP)
    pause = min(base * 2.0 ** min(count - 1, 20), cap)
    return Pause(pause * (1 + 0.25 * draw), ours=quick)


def _base_and_cap(error: TokenError, step: Step) -> tuple[float, float]:
    match error.result:
        case "network" | "timeout":
            return _PROBE
        case "malformed":
            return _BROKEN
        case "rate_limited":
            return _LIMITED
        case "http_error" if error.status is None or error.status >= 500 or error.status < 400:
            return _PROBE
        case "http_error":
            # An unknown refusal of a login may be one of the password: as careful as after a known one.
            return _REFUSED if step == "login" and error.judged else _STRANGE
        case _:
            return _OPERATOR


def suspension(refused: int, draw: float) -> float:
    """After the refused-th login in a row: 60 to 75 s, doubling, at most 15 min (K7). The jitter parts replicas that
    were refused together because Keycloak lets one login a user in at a time."""
    return min(60.0 * 2.0 ** min(refused - 1, 10) * (1 + 0.25 * draw), _LONGEST)


def rejection_pause(last: float) -> float:
    """Between renewals that did not cure a rejection: 30 s, doubling, at most 15 min (B4)."""
    return min(max(30.0, last * 2), _LONGEST)
