"""What counters gained lately."""

from proxy.recent import Recent


def test_nothing_is_gained_before_the_first_reading() -> None:
    recent: Recent[str] = Recent(60)
    assert recent.gained(100, {"requests": 7}) == (0, {"requests": 0})


def test_the_window_grows_from_the_first_reading_and_then_moves_on() -> None:
    recent: Recent[str] = Recent(60)
    for at in range(0, 200, 5):
        recent.note(at, {"requests": 2 * at})
        seconds, gained = recent.gained(at + 3, {"requests": 2 * at + 1})
        assert seconds == (at + 3 if at <= 60 else 63)
        assert gained == {"requests": 2 * (seconds - 3) + 1}


def test_a_counter_that_is_new_began_at_zero_and_one_that_is_gone_is_not_told_of() -> None:
    recent: Recent[str] = Recent(60)
    recent.note(0, {"old": 5})
    assert recent.gained(10, {"new": 3}) == (10, {"new": 3})
