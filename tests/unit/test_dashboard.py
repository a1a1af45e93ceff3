"""The dashboard's JSON: what its source says, addressed by variables alone, legible, and about metrics that exist."""

import re
import subprocess
import sys
from collections.abc import Iterator
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any, Final

import pytest
import yaml
from grafana_foundation_sdk.models import units
from prometheus_client.parser import text_string_to_metric_families

from grafana import look
from grafana.dashboard import rendered
from proxy.metrics import Metrics
from tests.support.dashboard import FILE, Dashboard, Query, chosen, substituted, tables_first_column
from tests.support.gateway import ROOT
from tests.unit.test_metrics import CONTRACT, KNOWN

DASHBOARD: Final = Dashboard()
QUERIES: Final = DASHBOARD.all_queries()
DOCUMENT: Final = ROOT / "docs/dashboard.md"
PROVISIONING: Final = ROOT / "grafana/provisioning"

COLUMNS: Final = 24
# Of 1,280 pixels; a letter of a title takes 8, the sign of its description and the edges 40.
COLUMN, LETTER, EDGES = 52, 8, 40

ROWS: Final = {
    "Is it well?": ["Tokens", "Time to expiry", "Failures in a row", "Replicas", "Error ratio"],
    "Token life": [
        *("Remaining life", "Age"),
        *("Next refresh in", "Last success", "Refresh token ends in", "Session ends in"),
        *("Refreshes by trigger", "Failed refreshes by result"),
        *("Refresh duration", "Requests waiting for a token", "Wait for a token"),
        *("Login suspended", "Provider's clock"),
    ],
    "Traffic": [
        *("Requests", "Answers by code", "Share of errors"),
        *("Latency", "Where the time goes", "Refused tokens"),
        *("Requests in flight", "Body bytes", "Refused clients"),
    ],
    "Upstream": ["Errors by reason", "Response time", "Connections"],
    "Process": ["CPU", "Memory", "Event loop lag", "Open files", "Store errors", "Configuration", "Versions"],
}


panels = pytest.mark.parametrize("panel", DASHBOARD.panels, ids=lambda panel: str(panel["title"]))
queries = pytest.mark.parametrize("query", QUERIES, ids=str)


def spot(panel: dict[str, Any]) -> tuple[int, int, int, int]:
    """Left, top, right, bottom; the last two are outside."""
    at = panel["gridPos"]
    return at["x"], at["y"], at["x"] + at["w"], at["y"] + at["h"]


def families() -> dict[str, set[str]]:
    """What ``/metrics`` serves: the name to query → labels, histograms by all three of their names."""
    found: dict[str, set[str]] = {}
    for name, (kind, labels) in CONTRACT.items():
        endings = {"counter": ["_total"], "info": ["_info"], "histogram": ["_bucket", "_sum", "_count"]}
        for ending in endings.get(kind, [""]):
            found[f"opentv_proxy_{name}{ending}"] = {*labels, *(["le"] if ending == "_bucket" else [])}
    body, _ = Metrics("1").render("text/plain")
    for family in text_string_to_metric_families(body.decode()):
        if not family.name.startswith("opentv_proxy_"):
            for sample in family.samples:
                found[sample.name] = set(sample.labels)
    return found


METRICS: Final = families()


def test_the_committed_file_is_what_its_source_says() -> None:
    assert FILE.read_text() == rendered()


def test_check_fails_for_a_file_that_differs_and_writing_mends_it(tmp_path: Path) -> None:
    file = tmp_path / "dashboard.json"
    file.write_text(FILE.read_text().replace("Is it well?", "Is it?"))

    def run(*options: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "grafana", *options, str(file)]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)  # noqa: S603 - fixed words

    differs = run("--check")
    assert (differs.returncode, differs.stderr) == (1, f"{file} is not what its source says: make dashboards\n")
    assert run().returncode == run("--check").returncode == 0
    assert file.read_text() == FILE.read_text()


def test_the_rows_come_in_the_order_in_which_a_person_asks() -> None:
    found: dict[str, list[str]] = {}
    for panel in sorted(DASHBOARD.every, key=lambda panel: (spot(panel)[1], spot(panel)[0])):
        if panel["type"] == "row":
            found[panel["title"]] = []
        else:
            found[list(found)[-1]].append(panel["title"])
    assert found == ROWS
    assert list(found) == list(ROWS)


def test_numbers_and_titles_are_unique() -> None:
    numbers = [panel["id"] for panel in DASHBOARD.every]
    titles = [panel["title"] for panel in DASHBOARD.every]
    assert sorted(set(numbers)) == sorted(numbers)
    assert sorted(set(titles)) == sorted(titles)


def test_no_panel_lies_on_another_and_every_line_is_full() -> None:
    for one, other in combinations(DASHBOARD.every, 2):
        (left, top, right, bottom), (left2, top2, right2, bottom2) = spot(one), spot(other)
        apart = right <= left2 or right2 <= left or bottom <= top2 or bottom2 <= top
        assert apart, f"{one['title']} and {other['title']}"
    lines: dict[int, list[tuple[int, int, int, int]]] = {}
    for panel in DASHBOARD.every:
        lines.setdefault(spot(panel)[1], []).append(spot(panel))
    for line in lines.values():
        assert sum(right - left for left, _, right, _ in line) == COLUMNS
        assert len({bottom for *_, bottom in line}) == 1
    tops = sorted(lines)
    assert all(lines[top][0][3] == below for top, below in pairwise(tops)), "no gap between two lines"


@panels
def test_a_panel_is_legible_at_1280_pixels(panel: dict[str, Any]) -> None:
    left, top, right, bottom = spot(panel)
    drawn = panel["type"] in ("timeseries", "state-timeline")
    assert right - left >= (8 if drawn else 4)
    assert bottom - top >= (8 if drawn else 4)
    assert len(panel["title"]) * LETTER <= (right - left) * COLUMN - EDGES
    legend = panel["options"].get("legend")
    assert legend is None or (legend["placement"], legend["calcs"]) == ("bottom", [])


@panels
def test_a_panel_says_what_it_shows_what_is_good_and_what_to_do(panel: dict[str, Any]) -> None:
    shows, good, otherwise = panel["description"].split("\n\n")
    assert good.startswith("**Good:** ")
    assert otherwise.startswith("**Otherwise:** ")
    assert all(part.endswith(".") for part in (shows, good, otherwise))
    assert len(shows) > 30
    others = {title for titles in ROWS.values() for title in titles} - {panel["title"]}
    assert set(re.findall(r"(?<!\*)\*([^*]+)\*(?!\*)", panel["description"])) <= others


@panels
def test_a_panel_has_a_unit_that_grafana_knows(panel: dict[str, Any]) -> None:
    known = {value for name, value in vars(units).items() if name[0].isupper()}
    assert panel["fieldConfig"]["defaults"]["unit"] in known


def everywhere(node: object, key: str) -> Iterator[Any]:
    if isinstance(node, dict):
        if key in node:
            yield node[key]
        for value in node.values():
            yield from everywhere(value, key)
    elif isinstance(node, list):
        for value in node:
            yield from everywhere(value, key)


def test_no_data_source_is_fixed() -> None:
    sources = list(everywhere(DASHBOARD.json, "datasource"))
    asking = [*QUERIES, *DASHBOARD.panels, *DASHBOARD.variables]
    assert len(sources) == len(asking) - 1, "one for each; the variable datasource itself has none"
    assert [one for one in sources if one != {"type": "prometheus", "uid": "${datasource}"}] == []


def test_the_variables_are_asked_for_in_the_order_in_which_they_narrow_down() -> None:
    assert list(DASHBOARD.variables) == ["datasource", "job", "instance", "identity", "route"]
    several = {name: v["allValue"] for name, v in DASHBOARD.variables.items() if v.get("multi")}
    assert several == dict.fromkeys(("instance", "identity", "route"), ".*")


@queries
def test_a_query_asks_only_about_the_chosen_gateway(query: Query) -> None:
    selectors = query.selectors()
    assert selectors
    for name, matchers in selectors:
        labels = METRICS[name] if name != "up" else set()
        wanted = {"job": '="$job"', "instance": '=~"$instance"'}
        wanted |= {label: f'=~"${label}"' for label in ("identity", "route") if label in labels}
        assert {label: matchers.get(label) for label in wanted} == wanted, name
        assert set(matchers) <= {"job", "instance", *labels}, name
    assert query.expr.count("opentv_proxy_") == sum(name.startswith("opentv_proxy_") for name, _ in selectors)


@queries
def test_a_query_counts_over_the_interval_that_grafana_chooses(query: Query) -> None:
    windows = re.findall(r"\[([^\]]+)\]", query.expr)
    assert set(windows) <= {"$__rate_interval"}
    counters = [name for name, _ in query.selectors() if re.search("_(total|bucket|sum|count)$", name)]
    assert len(windows) == len(counters)
    used = set(re.findall(r"\$(\w+)", query.expr))
    assert used <= {*DASHBOARD.variables, "__rate_interval"}


def test_what_a_match_asks_for_exists() -> None:
    """A result or a code in a query is one that the gateway counts."""
    for query in QUERIES:
        for name, matchers in query.selectors():
            base = name.removeprefix("opentv_proxy_").removesuffix("_total")
            for label, match in matchers.items():
                if known := KNOWN.get(f"{label} of {base}"):
                    assert match.strip('=~!"') in known.split(), (name, match)


def test_every_colour_of_an_override_belongs_to_a_series() -> None:
    values = {value for known in KNOWN.values() for value in known.split()} | {"499"}
    for panel in DASHBOARD.panels:
        legends = {target["legendFormat"] for target in panel["targets"]}
        labels = {label for legend in legends for label in re.findall(r"^\{\{(\w+)\}\}$", legend)}
        for override in panel["fieldConfig"]["overrides"]:
            if override["matcher"]["id"] == "byName":
                name = override["matcher"]["options"]
                assert name in legends or (labels and name in values), (panel["title"], name)


def test_a_colour_means_one_thing() -> None:
    palette = {look.GOOD, look.WARN, look.BAD, look.PLAIN, look.ASIDE}
    shades = {f"{shade}-{look.PLAIN}" for shade in ("light", "dark")}
    for panel in DASHBOARD.panels:
        for steps in everywhere(panel["fieldConfig"], "steps"):
            assert {step["color"] for step in steps} <= palette | {look.UNMARKED}
            assert [step["value"] for step in steps[1:]] == sorted(step["value"] for step in steps[1:])
        assert set(everywhere(panel["fieldConfig"], "fixedColor")) <= palette | shades
    for panel in DASHBOARD.panels:
        for mapping in panel["fieldConfig"]["defaults"].get("mappings", []):
            words = {value["text"]: value["color"] for value in mapping["options"].values()}
            assert {word: colour == look.BAD for word, colour in words.items()} == {
                word: word.split()[-1].isupper() or word.startswith("NOT") for word in words
            }


def test_every_metric_is_on_the_dashboard_or_left_out_with_a_reason() -> None:
    shown = {name for query in QUERIES for name, _ in query.selectors()}
    whole = {re.sub("_(bucket|sum|count)$", "", name) for name in METRICS}
    seen = {re.sub("_(bucket|sum|count)$", "", name) for name in shown} - {"up"}
    left_out = tables_first_column(DOCUMENT, "## Left out")
    assert seen <= whole
    assert sorted(left_out) == sorted(whole - seen)


def test_the_document_names_every_row_variable_and_annotation() -> None:
    text = DOCUMENT.read_text()
    names = [*ROWS, *DASHBOARD.variables, *(one["name"] for one in DASHBOARD.annotations)]
    assert [name for name in names if f"`{name}`" not in text and f"**{name}**" not in text] == []


def test_annotations_mark_restarts_reloads_and_logins() -> None:
    marked = {one["name"]: (one["useValueForTime"], one["expr"].endswith("* 1000")) for one in DASHBOARD.annotations}
    assert marked == {"Restarts": (True, True), "Reloads": (True, True), "Logins": (False, False)}


def test_grafana_is_provisioned_with_one_prometheus_and_the_folder_of_the_dashboard() -> None:
    (sources,) = (PROVISIONING / "datasources").glob("*.yaml")
    (source,) = yaml.safe_load(sources.read_text())["datasources"]
    assert (source["type"], source["isDefault"], source["access"]) == ("prometheus", True, "proxy")
    prometheus = yaml.safe_load((ROOT / "config/prometheus/prometheus.yml").read_text())
    assert source["jsonData"]["timeInterval"] == prometheus["global"]["scrape_interval"]
    (providers,) = (PROVISIONING / "dashboards").glob("*.yaml")
    (provider,) = yaml.safe_load(providers.read_text())["providers"]
    assert (provider["type"], provider["options"]["path"]) == ("file", "/var/lib/grafana/dashboards")


@pytest.mark.parametrize(
    ("values", "text"),
    [
        (["/"], "/"),
        (["127.0.0.1:9090"], r"127\\.0\\.0\\.1:9090"),
        (["/adm", "/rmg"], "(/adm|/rmg)"),
    ],
)
def test_the_tests_put_values_in_place_as_grafana_does(values: list[str], text: str) -> None:
    assert chosen(*values) == text
    expr = 'rate(x{instance=~"$instance"}[$__rate_interval])'
    assert substituted(expr, {"instance": text}, 15, 15) == f'rate(x{{instance=~"{text}"}}[60s])'
    assert substituted(expr, {"instance": text}, 300, 15) == f'rate(x{{instance=~"{text}"}}[315s])'
