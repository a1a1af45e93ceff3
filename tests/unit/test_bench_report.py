"""The benchmark's arithmetic: ratios round by round, targets judged, the block in the document replaced."""

import pytest

from tests.bench.lag import quantile
from tests.bench.others import percentile, split
from tests.bench.proc import Faults
from tests.bench.profile import frames
from tests.bench.report import (
    BEGIN,
    END,
    Figure,
    document,
    missed,
    number,
    ratios,
    replace_block,
    series_table,
    spread,
    table,
    verdicts,
)


def _figure(key: str, **values: list[float]) -> Figure:
    return Figure(key, f"Figure {key}", "CPU µs", values)


def test_a_ratio_is_taken_between_the_values_of_the_same_round() -> None:
    """A machine that is twice as slow in the second round changes no ratio."""
    assert ratios([1.0, 2.0], [2.0, 4.0]) == [0.5, 0.5]


def test_rounds_that_only_one_side_has_are_left_out() -> None:
    """A peer that fell out in the second round is compared over the first only."""
    assert ratios([1.0, 2.0, 3.0], [2.0]) == [0.5]


def test_the_cheapest_proxy_stands_first_and_the_gateway_is_bold() -> None:
    """The table reads from cheap to dear, values and ratios each with their own spread."""
    lines = table(_figure("get", caddy=[60.0, 62.0, 64.0], gateway=[30.0, 31.0, 48.0])).splitlines()
    assert lines[4].startswith("| **gateway** | 31.0 (30.0 to 48.0) | 0.500 (0.500 to 0.750) |")
    assert lines[5].startswith("| caddy | 62.0 (60.0 to 64.0) | 1 |")


def test_a_single_round_has_no_spread() -> None:
    """One value is not dressed up as a range."""
    assert spread([31.0]) == "31.0"


def test_a_proxy_that_was_not_measured_is_compared_with_nothing() -> None:
    """Without Envoy there is no column of ratios to it."""
    lines = table(_figure("get", caddy=[60.0])).splitlines()
    assert lines[2] == "| proxy | CPU µs: median (min to max) | \N{MULTIPLICATION SIGN} Caddy |"
    assert lines[4] == "| caddy | 60.0 | 1 |"


def test_a_missed_must_is_named() -> None:
    """0.8 of Caddy's CPU is above the 0.75 that the gateway must keep to."""
    figures = [_figure("get", caddy=[100.0], gateway=[80.0])]
    assert missed(figures) == ["Figure get"]
    assert "| ≤ 0.750 |  | 0.800 \N{MULTIPLICATION SIGN} caddy | **missed** |" in verdicts(figures)


def test_a_met_must_with_a_missed_goal_is_told_apart() -> None:
    """Memory of 5 KiB a connection keeps the must of 8 and misses the goal of 4."""
    figures = [_figure("idle", gateway=[5.0])]
    assert missed(figures) == []
    assert "goal missed" in verdicts(figures)


def test_a_figure_is_judged_against_the_gateways_own_other_figure() -> None:
    """The access log may cost 1.4 times the same request without it."""
    figures = [_figure("get", gateway=[50.0]), _figure("access", gateway=[75.0])]
    assert missed(figures) == ["Figure access"]


def test_a_figure_that_has_to_be_large_is_missed_when_it_is_small() -> None:
    """Two processes have to bring 1.7 times what one does."""
    assert missed([_figure("pair", gateway=[1.6])]) == ["Figure pair"]
    assert missed([_figure("pair", gateway=[1.8])]) == []
    assert "≥ 1.90 | 1.80 CPU µs | goal missed" in verdicts([_figure("pair", gateway=[1.8])])


def test_a_target_that_this_machine_cannot_judge_is_on_the_scoreboard_with_the_reason() -> None:
    """It is neither met nor missed, nor left out."""
    figure = Figure("pair", "Two processes", "ratio", unmeasured="2 cores")
    assert "| Two processes | ≥ 1.70 | ≥ 1.90 | 2 cores | not measured |" in verdicts([figure])
    assert missed([figure]) == []


def test_a_scoreboard_of_two_gateways_tells_them_apart() -> None:
    """Each interpreter has a row of its own."""
    figures = [Figure("idle", "Memory", "KiB", {"gateway (a)": [5.0], "gateway (b)": [9.0]})]
    assert [line.split(" | ")[0] for line in verdicts(figures).splitlines()[2:]] == [
        "| Memory, gateway (a)",
        "| Memory, gateway (b)",
    ]


def test_a_series_is_one_table_with_a_column_a_step_and_the_ratios_below() -> None:
    """How a figure grows is read along a line."""
    columns = [
        Figure("connections1", "1", "CPU µs", {"caddy": [90.0], "gateway": [45.0]}, series="connections", step="1"),
        Figure("connections8", "8", "CPU µs", {"caddy": [60.0], "gateway": [45.0]}, series="connections", step="8"),
    ]
    lines = series_table(columns).splitlines()[2:]
    assert lines[0] == "| connections | 1 | 8 |"
    assert lines[2:] == [
        "| caddy | 90.0 | 60.0 |",
        "| **gateway** | 45.0 | 45.0 |",
        "| gateway \N{MULTIPLICATION SIGN} caddy | 0.500 | 0.750 |",
    ]
    assert series_table(columns) in document(columns, [], [])


def test_one_scenario_that_fails_does_not_take_the_others_with_it(capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever went wrong is in the report, in words."""
    faults = Faults()
    with faults.surviving("growth"):
        raise KeyError("port")
    assert faults.words == ["growth: KeyError: 'port'"]
    assert "left out: growth" in capsys.readouterr().err


def test_a_quantile_of_a_histogram_is_interpolated_in_its_bucket() -> None:
    """As Prometheus does it; of what lies above the last bound only that is known."""
    buckets = [(1.0, 5.0), (2.0, 10.0), (float("inf"), 10.0)]
    assert quantile(buckets, 0.5) == 1.0
    assert quantile(buckets, 0.8) == pytest.approx(1.6)
    assert quantile([(1.0, 5.0), (float("inf"), 10.0)], 0.99) == 1.0


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
