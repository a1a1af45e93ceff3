"""How long the refusal of a wrong credential is held back: never for long, never for others, in little memory."""

from proxy.gateway.slowdown import Slowdown


def test_the_first_few_are_answered_at_once_and_then_two_a_second() -> None:
    slow = Slowdown()
    assert [slow.wrong("10.0.0.1", 100.0) for _ in range(14)] == [0.0] * 10 + [0.5, 1.0, 1.5, 2.0]


def test_one_after_the_other_each_waits_for_the_one_before() -> None:
    slow, now, waited = Slowdown(), 100.0, 0.0
    for _ in range(50):
        delay = slow.wrong("10.0.0.1", now)
        now += delay
        waited += delay
    assert waited == 20.0


def test_none_is_held_back_for_more_than_ten_seconds() -> None:
    slow = Slowdown()
    assert max(slow.wrong("10.0.0.1", 100.0) for _ in range(1000)) == 10.0


def test_who_stops_is_forgiven() -> None:
    slow = Slowdown()
    for _ in range(1000):
        slow.wrong("10.0.0.1", 100.0)
    assert slow.wrong("10.0.0.1", 105.0) == 5.5
    assert [slow.wrong("10.0.0.1", 120.0) for _ in range(11)] == [0.0] * 10 + [0.5]


def test_another_address_is_not_slowed_but_a_neighbour_in_the_same_ipv6_network_is() -> None:
    slow = Slowdown()
    for number in range(20):
        slow.wrong(f"2001:db8::{number:x}", 100.0)
    assert slow.wrong("2001:db8::1:ffff", 100.0) > 0.0
    assert slow.wrong("2001:db8:0:1::1", 100.0) == 0.0
    assert slow.wrong("fe80::1%eth0", 100.0) == 0.0
    assert slow.wrong("10.0.0.1", 100.0) == 0.0


def test_addresses_without_end_take_no_memory_without_end_and_the_newest_are_known() -> None:
    slow = Slowdown()
    for number in range(20_000):
        slow.wrong(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}", 100.0 + number / 1000)
    assert len(slow._due) <= 4096
    for _ in range(20):
        slow.wrong("10.9.9.9", 121.0)
    for number in range(4000):
        slow.wrong(f"11.0.{number >> 8}.{number & 255}", 121.0)
    assert slow.wrong("10.9.9.9", 121.0) > 0.0


def test_one_peer_has_only_so_many_held_back_at_a_time() -> None:
    slow = Slowdown()
    assert [slow.hold("10.0.0.1", 3) for _ in range(5)] == [True, True, True, False, False]
    assert slow.hold("10.0.0.2", 3)
    slow.release("10.0.0.1")
    assert slow.hold("10.0.0.1", 3)
    for _ in range(3):
        slow.release("10.0.0.1")
    slow.release("10.0.0.2")
    assert slow._held == {}
