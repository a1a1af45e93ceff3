"""Pure: a token pair, its times on two clocks, and when it is due.

Life decisions use a clock that neither jumps nor stops while the machine sleeps (``Moment.mono``, CLOCK_BOOTTIME);
the wall clock is for people, and for one comparison: a machine that was frozen from outside shows it only there.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from hashlib import sha256
from math import inf
from typing import Final

DAILY: Final = 86400.0
"""A refresh token without expiry (Keycloak's offline session, K2) dies unused after its idle time, as a rule 30 days.
It is used at least every tenth of that; so daily, unless configured."""

UNKNOWN: Final = 3600.0
"""Seconds after which a token of unknown lifetime is renewed; it is not taken for dead before."""

_ROUNDING: Final = 1.5
"""Providers count whole seconds: two durations nearer than this are the same."""


@dataclass(frozen=True, slots=True)
class Moment:
    """One reading of both clocks, seconds. ``wall`` is Unix time."""

    mono: float
    wall: float


@dataclass(frozen=True, slots=True)
class Margins:
    """``refresh`` of the configuration. ahead: share of the lifetime; jitter: share of the window; others: seconds."""

    ahead: float = 0.25
    ahead_max: float = 60.0
    jitter: float = 0.1
    min_interval: float = 5.0
    idle_interval: float = DAILY


@dataclass(frozen=True, slots=True)
class Grant:
    """What one reply granted, validated. Durations in seconds from the reply's making; ``inf``: no known end.

    lifetime: of the access token. refresh_lifetime: None when the reply does not say. session_lifetime: until the
    absolute end of the session, for systems that tell it. issued_at: the access token's ``iat``. not_before: Keycloak's
    ``not-before-policy``. roles: None when the token cannot be read. client_id: what the system calls this device from
    now on, where it does (AGS).
    """

    access: str = field(repr=False)
    refresh: str | None = field(repr=False)
    lifetime: float
    refresh_lifetime: float | None = None
    session_lifetime: float | None = None
    issued_at: float | None = None
    not_before: float = 0.0
    scope: str = ""
    roles: frozenset[str] | None = None
    client_id: str | None = None


@dataclass(frozen=True, slots=True)
class TokenPair:
    """One access token with what renews it. Times are ``Moment.mono`` seconds; ``inf``: no known end.

    full_life: the access lifetime this session gave when it was young. session_ends: the absolute end, once known.
    session_opened: our own login opened the session (a seed's session belongs to somebody else). killed: the
    provider's not-before policy is later than this token (K9). client_id: of ``Grant``. seed: digest of the seed that
    the session came from. session: names the session, the same in every process: the fingerprint of its first token.
    """

    access: str = field(repr=False)
    refresh: str | None = field(repr=False)
    obtained: Moment
    expires: float
    refresh_expires: float = inf
    session_began: float = 0.0
    session_ends: float | None = None
    full_life: float = inf
    session_opened: bool = False
    killed: bool = False
    issued_at: float | None = None
    scope: str = ""
    roles: frozenset[str] | None = None
    client_id: str | None = None
    seed: str | None = None
    session: str = ""

    @property
    def fingerprint(self) -> str:
        return fingerprint(self.access)

    @property
    def lifetime(self) -> float:
        return self.expires - self.obtained.mono

    @property
    def dead_at(self) -> float:
        """From here on the token is not sent. Providers round to whole seconds and requests take time to arrive, so
        this is a little before its expiry: a second, or a twentieth of a short life."""
        return self.expires - min(1.0, 0.05 * self.lifetime)

    def wall(self, mono: float) -> float:
        """The wall clock's reading at ``mono``, had it not been set since the token came."""
        return mono - self.obtained.mono + self.obtained.wall


def fingerprint(token: str) -> str:
    """How a token is named to people: 8 hex digits of its SHA-256."""
    return sha256(token.encode()).hexdigest()[:8]


def from_login(grant: Grant, sent: Moment, *, opened: bool, seed: str | None = None) -> TokenPair:
    """The first pair of a session. sent: when the request for it left; life counts from there, on the safe side."""
    session_ends = None if grant.session_lifetime is None else sent.mono + grant.session_lifetime
    return TokenPair(
        access=grant.access,
        refresh=grant.refresh,
        obtained=sent,
        expires=sent.mono + grant.lifetime,
        refresh_expires=sent.mono + (inf if grant.refresh_lifetime is None else grant.refresh_lifetime),
        session_began=sent.mono,
        session_ends=session_ends,
        full_life=grant.lifetime,
        session_opened=opened,
        killed=_killed(grant),
        issued_at=grant.issued_at,
        scope=grant.scope,
        roles=grant.roles,
        client_id=grant.client_id,
        seed=seed,
        session=fingerprint(grant.access),
    )


def from_refresh(grant: Grant, sent: Moment, previous: TokenPair) -> TokenPair:
    """The pair that follows ``previous`` in the same session. A reply may leave the refresh token out (K5): the old
    one goes on, with its old expiry unless the reply tells a new one."""
    pair = from_login(grant, sent, opened=previous.session_opened, seed=previous.seed)
    pair = replace(
        pair,
        session=previous.session,
        session_began=previous.session_began,
        client_id=grant.client_id or previous.client_id,
    )
    if previous.full_life < inf:
        pair = replace(pair, full_life=max(previous.full_life, grant.lifetime))
    if grant.refresh is None:
        expires = previous.refresh_expires if grant.refresh_lifetime is None else pair.refresh_expires
        pair = replace(pair, refresh=previous.refresh, refresh_expires=expires)
    if pair.session_ends is None:
        pair = replace(pair, session_ends=_absolute_end(pair, previous))
    elif previous.session_ends is not None:
        # The end is absolute: a system that tells the session's whole length each time moves nothing.
        pair = replace(pair, session_ends=min(pair.session_ends, previous.session_ends))
    return pair


def _absolute_end(pair: TokenPair, previous: TokenPair) -> float | None:
    """The session's absolute end, if this reply betrays it.

    An idle timeout restarts with every refresh, so the refresh token lives as long as the one before. Near the
    session's maximum it lives shorter each time (K1), and then its expiry is the end. Where replies say nothing of the
    refresh token, the access token's own shrinking says the same.
    """
    if pair.refresh_expires < inf:
        before, now = previous.refresh_expires - previous.obtained.mono, pair.refresh_expires - pair.obtained.mono
        ends = pair.refresh_expires
    else:
        before, now, ends = pair.full_life, pair.lifetime, pair.expires
    return ends if now < before - _ROUNDING else None


def _killed(grant: Grant) -> bool:
    # Only an older token: an administrator's logout sets the policy to the very second of the next login (K9).
    return grant.issued_at is not None and grant.issued_at < grant.not_before


def window(lifetime: float, margins: Margins) -> float:
    """How long before its end a life of ``lifetime`` seconds is renewed, before jitter."""
    return min(margins.ahead * lifetime, margins.ahead_max)


def due_at(pair: TokenPair, margins: Margins, draw: Callable[[], float]) -> float:
    """When to renew the pair while it still works. draw: a random number in [0, 1), one a call.

    The refresh token's own end counts as the access token's does: losing it costs a login, or a person's work where
    no login is possible. A life shorter than ``min_interval`` is not renewed early at all, so that no lifetime,
    however short, makes a loop.
    """
    start = pair.obtained.mono
    ends = [pair.expires] if pair.refresh is None else [pair.expires, pair.refresh_expires]
    plans = [(end - margin, margin) for end in ends if end < inf for margin in [window(end - start, margins)]]
    if pair.expires == inf:
        plans.append((start + UNKNOWN, margins.ahead_max))
    if pair.refresh is not None:
        plans.append((start + margins.idle_interval, window(margins.idle_interval, margins)))
    due, margin = min(plans)
    return max(due - margins.jitter * draw() * margin, start + margins.min_interval)


def session_due_at(pair: TokenPair, margins: Margins) -> float:
    """When to log in anew because the session ends whatever is refreshed; ``inf`` while no end is known."""
    if pair.session_ends is None:
        return inf
    due = pair.session_ends - window(min(pair.full_life, pair.session_ends - pair.obtained.mono), margins)
    return max(due, pair.session_began + margins.min_interval)


def rfc3339(wall: float) -> str:
    """Unix seconds as people read them, UTC, whole seconds."""
    return datetime.fromtimestamp(wall, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
