"""The benchmark's arithmetic: ratios round by round, targets judged, the block in the document replaced."""

from tests.bench.others import percentile, split
from tests.bench.profile import frames
from tests.bench.report import BEGIN, END, Figure, document, missed, number, ratios, replace_block, table, verdicts


def _figure(key: str, **values: list[float]) -> Figure:
    return Figure(key, f"Figure {key}", "CPU µs", values)


def test_a_ratio_is_taken_between_the_values_of_the_same_round() -> None:
    """A machine that is twice as slow in the second round changes no ratio."""
    assert ratios([1.0, 2.0], [2.0, 4.0]) == [0.5, 0.5]


def test_rounds_that_only_one_side_has_are_left_out() -> None:
    """A peer that fell out in the second round is compared over the first only."""
    assert ratios([1.0, 2.0, 3.0], [2.0]) == [0.5]


def test_the_cheapest_proxy_stands_first_and_the_gateway_is_bold() -> None:
    """The table reads from cheap to dear, with its spread and its ratios."""
    lines = table(_figure("get", caddy=[60.0, 62.0, 64.0], gateway=[30.0, 31.0, 32.0])).splitlines()
    assert lines[4].startswith("| **gateway** | 31.0 (30.0 to 32.0) | 0.500 |")
    assert lines[5].startswith("| caddy | 62.0 (60.0 to 64.0) | 1.00 |")


def test_a_ratio_to_a_proxy_that_was_not_measured_is_a_dash() -> None:
    """Without Envoy there is no number that could be mistaken for one."""
    assert table(_figure("get", caddy=[60.0])).splitlines()[4].endswith("| 1.00 | - |")


def test_a_missed_must_is_named() -> None:
    """0.8 of Caddy's CPU is above the 0.75 that the gateway must keep to."""
    figures = [_figure("get", caddy=[100.0], gateway=[80.0])]
    assert missed(figures) == ["Figure get"]
    assert "| 0.800 \N{MULTIPLICATION SIGN} caddy | ≤ 0.750 |" in verdicts(figures)


def test_a_met_must_with_a_missed_goal_is_told_apart() -> None:
    """Memory of 5 KiB a connection keeps the must of 8 and misses the goal of 4."""
    figures = [_figure("idle", gateway=[5.0])]
    assert missed(figures) == []
    assert "goal missed" in verdicts(figures)


def test_a_figure_is_judged_against_the_gateways_own_other_figure() -> None:
    """The access log may cost 1.4 times the same request without it."""
    figures = [_figure("get", gateway=[50.0]), _figure("access", gateway=[75.0])]
    assert missed(figures) == ["Figure access"]


def test_a_run_without_the_gateway_has_no_verdicts() -> None:
    """Peers alone cannot meet or miss anything."""
    assert verdicts([_figure("get", caddy=[100.0])]) == ""


def test_figures_have_three_digits() -> None:
    """No digit is shown that a second run would not confirm."""
    assert [number(value) for value in (0.5, 1.234, 12.34, 1234.5)] == ["0.500", "1.23", "12.3", "1,234"]


def test_a_second_run_replaces_the_block_of_the_first() -> None:
    """What people wrote around the block stays."""
    once = replace_block("# Title\n", "first run\n")
    twice = replace_block(once + "\nAfter.\n", "second run\n")
    assert "first run" not in twice
    assert twice.startswith("# Title\n")
    assert twice.endswith(f"{END}\n\nAfter.\n")
    assert twice.count(BEGIN) == 1


def test_what_could_not_be_measured_is_in_the_document() -> None:
    """A reader sees that a peer was missing rather than wondering."""
    assert "- caddy is not installed" in document([], [("machine", "test")], ["caddy is not installed"])


def test_a_request_counts_as_during_a_refresh_when_any_part_of_it_was() -> None:
    """Sent before, inside and after a window from 10 to 11."""
    rows = [(9.0, 0.5, 200), (9.9, 0.2, 200), (10.5, 0.1, 200), (11.1, 0.3, 200)]
    assert split(rows, [(10.0, 11.0)]) == ([0.2, 0.1], [0.5, 0.3])


def test_a_percentile_is_one_of_the_values() -> None:
    """Nearest rank: the 99th of a hundred values is the largest but none."""
    assert percentile([float(value) for value in range(100)], 0.99) == 99.0


def test_a_profile_adds_up_stacks_by_function_and_leaves_the_pool_threads_out() -> None:
    """A function that is on a stack twice counts once; what stands on every stack is no row."""
    raw = "main (a.py:1);f (a.py:2);f (a.py:3) 30\nmain (a.py:1);g (b.py:9) 70\nThread._bootstrap (t.py:1);wait 900\n"
    rows = frames(raw, "gateway", "GET").splitlines()
    assert rows[0] == "### gateway: GET, 100 samples"
    assert rows[4:] == ["| `g (b.py)` | 70.0 % | 70.0 % |", "| `f (a.py)` | 30.0 % | 30.0 % |"]
