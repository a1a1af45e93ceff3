"""Pure: one token's life as a state machine. It decides; the keeper does.

Events go in (``adopted``, ``failed``, ``rejection_begins``, …), each with one reading of the clocks; questions come
out (``state``, ``due``, ``step``, ``refusal``, …). Nothing here waits, and the same events give the same answers.
"""

from collections.abc import Callable
from math import inf
from typing import Final, Literal

from proxy.counters import Trigger
from proxy.errors import TokenError
from proxy.tokens.pace import FIRST_PROBE, QUICK_LOGIN, Due, Refusal, pause_after, rejection_pause, suspension
from proxy.tokens.pair import Margins, Moment, TokenPair, due_at, rfc3339, session_due_at
from proxy.tokens.systems.base import Step

State = Literal["fresh", "stale", "expired", "suspended"]

PRESENTATIONS: Final = 2
"""How often a refresh token is presented while answers get lost (B7): once, and once more. A server that detects
reuse ends the session at the second one at the latest, and then a login is due anyway."""

SAFE: Final = 2.0
"""Seconds before a token's end by which a replica without the store has begun a session of its own."""
LOOK_FOR_STORE: Final = 5.0

CURES: Final = 20.0
CURE_SECONDS: Final = 3.0
"""So many renewals because of rejections at once, and one more each so many seconds, however well they cure: who can
make the platform refuse and accept by turns must not drive the provider."""


class Life:
    """One identity's token life. draw: random numbers in [0, 1). can_login: a session can be opened without a person.

    The pair, and since when what goes wrong; all of it belongs to the event loop's thread and changes only in the
    event methods below.
    """

    def __init__(self, margins: Margins, draw: Callable[[], float], *, can_login: bool) -> None:
        self._margins = margins
        self.draw = draw
        self.can_login = can_login
        self.pair: TokenPair | None = None
        self.refresh_at = inf  # when the pair is renewed early, had nothing failed
        self.failures = 0  # renewals that failed since the last success
        self._strikes = 0  # of these, since a person acted
        self._strikes_dead = 0  # of the strikes, those since the token died
        self.last_error: TokenError | None = None
        self.retry_at = -inf  # no renewal by itself before this
        self._hasty = False  # nobody asked for that pause: it may be shortened
        self.suspended_until = -inf  # no login before this, unless a person says so
        self._dead_arrivals = 0  # pairs in a row that were dead on arrival
        self._refused_logins = 0
        self._refused_at = -inf  # when a login was last refused
        self.anew = False  # another session is wanted than the pair's
        self._presented = 0  # times the pair's refresh token was presented without an answer
        self._refresh_refused = False
        self._unwanted = False  # the platform refused the pair's token
        self._rejection_until = -inf  # no refresh because of a rejection before this
        self._rejection_pause = 0.0
        self._credit, self._credited_at = CURES, 0.0  # renewals because of rejections that may still be made
        self._rejection_before = -inf, 0.0  # both, before the last renewal of this kind
        self._alone_at: float | None = None  # with the store down: when to log in to a session of this replica's own
        self._store_looked_for = -inf  # and until when not to look whether it is back
        self._entitled = True  # the store lets this replica present the refresh token, as far as was seen

    # Questions

    def alive(self, now: float) -> bool:
        """Whether the access token may be sent."""
        return self.pair is not None and now < self.pair.dead_at

    def suspended(self, now: float) -> bool:
        return now < self.suspended_until

    @property
    def known_down(self) -> bool:
        """Whether the provider failed so lately and so often that nobody should wait for it."""
        return self._strikes_dead > 0 or self._strikes > 1

    def refreshable(self, now: float) -> bool:
        """Whether the refresh token is worth presenting."""
        if not (self._entitled and self._session_lives(now)):
            return False
        # Where no login is possible the old token stays the only chance, however often its answers were lost.
        return self._presented < PRESENTATIONS or not self.can_login

    def state(self, now: float) -> State:
        doomed = self._refresh_refused and self.suspended(now)  # served on, but nothing renews it
        if self.alive(now) and not doomed:
            return "stale" if now >= self.refresh_at else "fresh"
        return "suspended" if self.suspended(now) and not self.refreshable(now) else "expired"

    def worth_a_logout(self, now: float) -> bool:
        """Whether the pair's session may be open still, and its refresh token is good beyond doubt: one whose answer
        was lost is presented once more at most (B7), and a logout would present it too."""
        return self._session_lives(now) and self._presented == 0

    def login_wait(self, now: float) -> float:
        """Seconds before a login may be sent, whoever asks for it: Keycloak's quick login check (K7) locks a user
        whose logins fail less than a second apart."""
        return max(self._refused_at + QUICK_LOGIN - now, 0.0)

    def step(self, now: float, *, presentable: bool = True) -> Step:
        """How to renew now: by refresh wherever possible, since every login opens a session (K8); by login when the
        session is about to end whatever is refreshed (K1). presentable: the pair's refresh token is ours to present."""
        if self.anew or not (presentable and self.refreshable(now)):
            return "login"
        return "login" if self._session_ending(now) else "refresh"

    def due(self, now: Moment) -> Due:
        """The next renewal by itself. In the past when it is due."""
        if self.pair is None:
            return Due(max(self.retry_at, self.suspended_until), "startup")
        barred = self.suspended_until if not self.refreshable(now.mono) else -inf
        if not self.alive(now.mono):
            # A request may ask for it sooner. By itself no life, however short, makes a loop. Failures have pauses of
            # their own, and while they last no request may ask.
            floor = -inf if self._strikes_dead else self.pair.obtained.mono + self._margins.min_interval
            return Due(max(self.pair.dead_at, floor, self.retry_at, barred), "expired")
        planned, trigger = self._planned(self.pair, now.mono)
        if self._unwanted and self._strikes:  # no better than a dead one, and requests do not wait for it either
            planned, trigger = now.mono, "rejected"
        if now.wall >= self.pair.wall(self.pair.expires):
            # The wall clock says dead, ours says alive: somebody set the clock, or the whole machine was frozen from
            # outside. One refresh settles it; the next pair starts from the new reading.
            planned = min(planned, now.mono)
        return Due(max(planned, self.retry_at, barred, self._store_looked_for), trigger)

    def refusal(self, now: Moment) -> Refusal | None:
        """Why a request that finds no usable token is answered at once; None when it should wait for a renewal."""
        if self.suspended(now.mono) and not self.refreshable(now.mono):
            until = rfc3339(self.suspended_until - now.mono + now.wall)
            return Refusal(self._words(f"login suspended until {until}"), self.suspended_until - now.mono)
        if not self.known_down and (self._strikes == 0 or now.mono >= self.retry_at):
            return None
        return Refusal(self._words("no token can be had now"), max(self.retry_at - now.mono, FIRST_PROBE))

    def may_cure(self, now: Moment) -> bool:
        """Whether a rejection of the current token is worth a renewal now (B4)."""
        if self._credit_at(now.mono) < 1.0:
            return False
        return now.mono >= max(self._rejection_until, self.retry_at) and self.refusal(now) is None

    def only_pauses(self, now: float) -> bool:
        """Whether nothing but the pause after a failed exchange speaks against a renewal because of a rejection."""
        return self._rejection_until <= now < self.retry_at

    def _credit_at(self, now: float) -> float:
        return min(CURES, self._credit + (now - self._credited_at) / CURE_SECONDS)

    def carries_on(self, step: Step, error: TokenError, now: float, *, patient: bool) -> bool:
        """Whether the same renewal goes on with another exchange after this one failed. patient: somebody waits for
        it, and not for long yet."""
        if step == "login" and not (self.can_login and error.result == "invalid_grant"):
            return False  # where no password is refused, the next login is another one (a device that is forgotten)
        if error.result == "invalid_grant":
            return not self.suspended(now)
        more = self._presented < PRESENTATIONS or (self.can_login and not self.suspended(now))
        return error.lost and patient and more

    # Events

    def begin_anew(self) -> None:
        """A person put another seed in place: it opens the next session, however good the one at hand is."""
        self.anew = True

    def adopted(self, pair: TokenPair, now: float) -> None:
        """A new pair came. One that is dead on arrival still brings the next refresh token, and cures nothing."""
        persists = pair.killed and self.pair is not None and self.pair.killed
        by_login = self.pair is None or pair.session != self.pair.session
        self.pair = pair
        self.refresh_at = due_at(pair, self._margins, self.draw)
        if pair.killed and not persists:
            self.refresh_at = pair.obtained.mono
        self._presented = 0
        self._alone_at, self._store_looked_for, self._entitled = None, -inf, True
        self._refresh_refused = self.anew = self._unwanted = False
        if not self.alive(now):
            return
        self.failures = self._strikes = self._strikes_dead = self._dead_arrivals = 0
        self.last_error = None
        self.retry_at = -inf
        if by_login:  # a refresh says nothing of the password
            self._refused_logins = 0
            self.suspended_until = -inf

    def entitle(self, *, presentable: bool) -> None:
        """What the store last said, or its silence: whether the refresh token is this replica's to present."""
        self._entitled = presentable

    def refresh_failed(self, error: TokenError) -> None:
        """One presentation of the refresh token failed; the renewal may still succeed by login."""
        if error.result == "invalid_grant":
            self._refresh_refused = True
        elif error.lost:
            self._presented += 1

    def arrived_dead(self, error: TokenError, now: float) -> None:
        """The provider gave a pair whose access token cannot be used any more. It may do better at once: whatever
        failed before is over, and only a row of such arrivals is answered with growing pauses."""
        self._strikes_dead = self._dead_arrivals
        self._dead_arrivals += 1
        self.failed(error, "refresh", now)

    def failed(self, error: TokenError, step: Step, now: float) -> None:
        """A renewal ended without a token. step: its last exchange."""
        alive = self.alive(now)
        self.failures += 1
        self._strikes += 1
        self._strikes_dead = 0 if alive else self._strikes_dead + 1
        self.last_error = error
        if step == "login" and error.result in ("invalid_grant", "operator"):
            self.anew = False  # what was put in place is no good: the session at hand goes on
        if error.result == "invalid_credentials":
            self._refused_logins += 1
            self._refused_at = now
            self.suspended_until = now + suspension(self._refused_logins, self.draw())
            return
        if error.result == "invalid_grant" and self.can_login:
            self.retry_at = now + FIRST_PROBE  # the next step is another one: a login
            return
        count = self._strikes if alive else self._strikes_dead
        least = self._margins.min_interval if alive and not self._unwanted else 0.0
        pause = pause_after(error, step, count, least, self.draw())
        self.retry_at, self._hasty = now + pause.seconds, pause.ours
        if alive and pause.ours and self.pair is not None:
            # The moment it dies is a fresh reason to try.
            self.retry_at = min(self.retry_at, max(self.pair.dead_at, now + FIRST_PROBE))

    def waits_for_store(self, now: float) -> bool:
        """The store is down, and with it the right to refresh the pair that replicas share. Whether to serve on for
        now: while the token lives, until a moment drawn from the rest of its life, lest replicas whose tokens end
        together log in together (K7)."""
        if self.pair is None or not self.alive(now):
            return False
        if self._alone_at is None:
            self._alone_at = now + self.draw() * max(self.pair.dead_at - SAFE - now, 0.0)
        self._store_looked_for = min(now + LOOK_FOR_STORE, self._alone_at)
        return now < self._alone_at

    def unwanted(self, now: float) -> None:
        """The platform refused the token while renewals fail: from now on they are tried as if it were dead."""
        if self._strikes and not self._unwanted:
            self._unwanted = True
            if self._hasty:
                self.retry_at = min(self.retry_at, now + FIRST_PROBE)

    def rejection_begins(self, now: float) -> None:
        """A renewal starts because the platform refused the token. Until one cures it, the next of this kind waits, and
        longer each time, unless no rejection came for as long as that pause once more."""
        self._credit, self._credited_at = self._credit_at(now) - 1.0, now
        self._rejection_before = self._rejection_until, self._rejection_pause
        quiet = now >= self._rejection_until + self._rejection_pause
        self._rejection_pause = rejection_pause(0.0 if quiet else self._rejection_pause)
        self._rejection_until, self._unwanted = now + self._rejection_pause, True

    def rejection_failed(self) -> None:
        """That renewal brought no token, so whether a new one cures is as unknown as before."""
        self._rejection_until, self._rejection_pause = self._rejection_before

    def cured(self) -> None:
        """The platform accepted a token that came of a rejection."""
        self._rejection_pause = 0.0
        self._rejection_until, self._unwanted = -inf, False

    def forgive(self) -> None:
        """A person acted (changed secret, SIGHUP, manual refresh): the pauses have lost their reason."""
        self.retry_at = self.suspended_until = -inf
        self._strikes = self._strikes_dead = self._refused_logins = 0
        self._rejection_until, self._rejection_pause = -inf, 0.0
        self._credit = CURES

    def _session_lives(self, now: float) -> bool:
        pair = self.pair
        return (
            pair is not None and pair.refresh is not None and not self._refresh_refused and now < pair.refresh_expires
        )

    def _planned(self, pair: TokenPair, now: float) -> tuple[float, Trigger]:
        if self.anew:
            return pair.obtained.mono, "credentials_changed"
        session = session_due_at(pair, self._margins) if self.can_login and not self.suspended(now) else inf
        if session < self.refresh_at:
            return session, "session_end"
        return self.refresh_at, "session_end" if self._session_ending(max(now, self.refresh_at)) else "ahead"

    def _session_ending(self, at: float) -> bool:
        """Whether a refresh at this time would not give a full life any more, and a login can."""
        pair = self.pair
        if pair is None or pair.session_ends is None or not self.can_login or self.suspended(at):
            return False
        full = pair.full_life if pair.full_life < inf else 0.0
        return pair.session_ends - at < full or at >= session_due_at(pair, self._margins)

    def _words(self, beginning: str) -> str:
        return f"{beginning}: {self.last_error.words}" if self.last_error else beginning
