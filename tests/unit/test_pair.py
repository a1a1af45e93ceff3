"""A token pair's times: when it is renewed, when it is dead, when its session ends."""

from math import inf

import pytest

from proxy.tokens.pair import (
    DAILY,
    UNKNOWN,
    Grant,
    Margins,
    Moment,
    TokenPair,
    due_at,
    fingerprint,
    from_login,
    from_refresh,
    rfc3339,
    session_due_at,
)

MARGINS = Margins()
BEGIN = Moment(1000.0, 1_700_000_000.0)


def grant(lifetime: float = 300.0, refresh_lifetime: float | None = 1800.0, refresh: str | None = "r2") -> Grant:
    return Grant(access="a2", refresh=refresh, lifetime=lifetime, refresh_lifetime=refresh_lifetime)


def at(seconds: float) -> Moment:
    return Moment(BEGIN.mono + seconds, BEGIN.wall + seconds)


def login(lifetime: float = 300.0, refresh_lifetime: float | None = 1800.0) -> TokenPair:
    return from_login(grant(lifetime, refresh_lifetime), BEGIN, opened=True)


def due(pair: TokenPair, margins: Margins = MARGINS, draw: float = 0.0) -> float:
    """Seconds after the pair came."""
    return due_at(pair, margins, lambda: draw) - pair.obtained.mono


@pytest.mark.parametrize(
    ("lifetime", "expected"),
    [
        (300.0, 240.0),  # capped by ahead_max
        (100.0, 75.0),  # a quarter
        (3600.0, 3540.0),
        (20.0, 15.0),
        (6.0, 5.0),  # min_interval is later than three quarters
        (5.0, 5.0),  # not early at all
        (1.0, 5.0),
        (0.01, 5.0),
        (inf, UNKNOWN),
    ],
)
def test_the_window_scales_with_the_lifetime_and_no_lifetime_loops(lifetime: float, expected: float) -> None:
    assert due(login(lifetime, None)) == pytest.approx(expected)


@pytest.mark.parametrize("draw", [0.0, 0.3, 0.999])
def test_jitter_moves_a_refresh_only_earlier_and_by_a_share_of_the_window(draw: float) -> None:
    assert 240.0 - 0.1 * 60.0 <= due(login(), draw=draw) <= 240.0


def test_a_refresh_token_that_ends_first_is_used_before_it_ends() -> None:
    assert due(login(300.0, 60.0)) == pytest.approx(45.0)


def test_an_offline_refresh_token_is_used_daily() -> None:
    assert due(login(30 * DAILY, inf)) == pytest.approx(DAILY)


def test_a_token_without_refresh_token_is_not_renewed_daily() -> None:
    pair = from_login(grant(30 * DAILY, None, refresh=None), BEGIN, opened=True)
    assert due(pair) == pytest.approx(30 * DAILY - 60)


@pytest.mark.parametrize(("lifetime", "dead"), [(300.0, 299.0), (6.0, 5.7), (inf, inf)])
def test_a_token_is_dead_a_little_before_its_expiry(lifetime: float, dead: float) -> None:
    assert login(lifetime).dead_at - BEGIN.mono == pytest.approx(dead)


def test_a_reply_without_refresh_token_keeps_the_old_one_and_its_expiry() -> None:
    pair = from_refresh(grant(refresh=None, refresh_lifetime=None), at(240), login())
    assert pair.refresh == "r2"
    assert pair.refresh_expires == BEGIN.mono + 1800


def test_a_reply_without_refresh_token_may_tell_a_new_expiry_of_the_old_one() -> None:
    pair = from_refresh(grant(refresh=None), at(240), login())
    assert pair.refresh_expires == BEGIN.mono + 240 + 1800


def test_an_idle_time_that_restarts_tells_no_session_end() -> None:
    pair = login()
    for turn in range(1, 5):
        pair = from_refresh(grant(), at(240.0 * turn), pair)
        assert pair.session_ends is None


def test_a_shrinking_refresh_token_tells_the_sessions_end() -> None:
    # Max 20 s, idle 10 s, life 6 s (K1): 10/6, 10/6, 10/6, 5/5.
    pair = login(6.0, 10.0)
    for seconds in (5.0, 10.0):
        pair = from_refresh(grant(6.0, 10.0), at(seconds), pair)
        assert pair.session_ends is None
    pair = from_refresh(grant(5.0, 5.0), at(15.0), pair)
    assert pair.session_ends == BEGIN.mono + 20
    assert BEGIN.mono + 15 < session_due_at(pair, MARGINS) < pair.dead_at


def test_a_shrinking_access_token_tells_it_where_nothing_is_said_of_the_refresh_token() -> None:
    pair = from_refresh(grant(100.0, None), at(240.0), login(300.0, None))
    assert pair.session_ends == BEGIN.mono + 340
    assert pair.full_life == 300.0


def test_rounding_by_a_second_is_no_shrinking() -> None:
    assert from_refresh(grant(300.0, 1799.0), at(240.0), login()).session_ends is None


def test_an_idle_time_that_an_administrator_shortened_is_believed_only_once() -> None:
    pair = from_refresh(grant(300.0, 900.0), at(240.0), login())
    assert pair.session_ends is not None
    assert from_refresh(grant(300.0, 900.0), at(480.0), pair).session_ends is None


def test_a_told_session_end_is_taken_as_it_is() -> None:
    told = Grant("a", "r", 3600.0, 172800.0, session_lifetime=2592000.0)
    assert from_login(told, BEGIN, opened=True).session_ends == BEGIN.mono + 2592000


def test_a_session_shorter_than_the_interval_between_refreshes_makes_no_loop_of_logins() -> None:
    pair = from_login(Grant("a", "r", 2.0, 2.0, session_lifetime=2.0), BEGIN, opened=True)
    assert session_due_at(pair, MARGINS) >= BEGIN.mono + MARGINS.min_interval


@pytest.mark.parametrize(("issued", "policy", "killed"), [(100, 101, True), (100, 100, False), (100, 0, False)])
def test_only_a_policy_later_than_the_token_kills_it(issued: float, policy: float, killed: bool) -> None:
    told = Grant("a", "r", 300.0, issued_at=issued, not_before=policy)
    assert from_login(told, BEGIN, opened=True).killed is killed


def test_the_session_began_at_its_login() -> None:
    assert from_refresh(grant(), at(240), login()).session_began == BEGIN.mono


def test_neither_repr_shows_a_token() -> None:
    secret = Grant(access="SECRET-ACCESS", refresh="SECRET-REFRESH", lifetime=1.0)
    assert "SECRET" not in repr(secret)
    assert "SECRET" not in repr(from_login(secret, BEGIN, opened=True))


def test_a_fingerprint_is_eight_hex_digits_of_sha256() -> None:
    assert fingerprint("abc") == "ba7816bf"
    assert login().fingerprint == fingerprint("a2")


def test_wall_times_follow_the_reading_at_the_tokens_coming() -> None:
    assert login().wall(BEGIN.mono + 300) == BEGIN.wall + 300
    assert rfc3339(BEGIN.wall) == "2023-11-14T22:13:20Z"
