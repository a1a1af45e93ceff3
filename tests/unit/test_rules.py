"""The rules for Prometheus: valid, about metrics that exist, each alert proven by ``promtool``, and with its section in
the runbook, which names nothing that is not there."""

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, get_args

import pytest
import yaml

from proxy.counters import RejectionOutcome, StoreOperation, Trigger, UpstreamErrorReason
from proxy.errors import RefreshResult
from tests.support.dashboard import Dashboard
from tests.support.gateway import ROOT
from tests.support.prometheus import promtool
from tests.unit.test_dashboard import METRICS
from tests.unit.test_docs import anchors
from tests.unit.test_metrics import KNOWN

FOLDER: Final = ROOT / "config/prometheus"
FILES: Final = sorted((FOLDER / "rules").glob("*.yaml"))
CASES: Final = sorted((FOLDER / "tests").glob("*.yaml"))
RUNBOOK: Final = ROOT / "docs/runbook.md"
PLACEHOLDER: Final = "https://example.com/opentv-auth-proxy/"

Rule = dict[str, Any]
RULES: Final[list[Rule]] = [
    rule for file in FILES for group in yaml.safe_load(file.read_text())["groups"] for rule in group["rules"]
]
ALERTS: Final = {rule["alert"]: rule for rule in RULES if "alert" in rule}
RECORDED: Final = [rule["record"] for rule in RULES if "record" in rule]
SECTIONS: Final = {
    title: body for title, _, body in (part.partition("\n") for part in f"\n{RUNBOOK.read_text()}".split("\n## ")[1:])
}
# What targets carry, beside the metrics' own.
TARGET: Final = {"job", "instance", "pod"}
PARTS: Final = ["Meaning.", "Who feels it.", "First look.", "Causes.", "Mending."]

alerts = pytest.mark.parametrize("name", ALERTS)


def test_promtool_finds_no_fault_in_the_rules_nor_in_the_configuration_that_loads_them() -> None:
    assert promtool("check", "rules", "--lint=all", "--lint-fatal", *FILES)[0] == 0
    code, words = promtool("check", "config", "--lint=all", "--lint-fatal", FOLDER / "prometheus.yml")
    assert code == 0, words
    assert f"SUCCESS: {len(FILES)} rule files found" in words


@pytest.mark.parametrize("file", CASES, ids=lambda file: file.stem)
def test_every_case_comes_out_as_it_is_written(file: Path) -> None:
    code, words = promtool("test", "rules", file)
    assert code == 0, words


def stories(name: str) -> list[list[bool]]:
    """For each case that asks about this alert: whether it rings, at one moment after the other."""
    every: list[list[bool]] = []
    for file in CASES:
        for case in yaml.safe_load(file.read_text())["tests"]:
            asked = [one for one in case["alert_rule_test"] if one["alertname"] == name]
            if asked:
                every.append([bool(one["exp_alerts"]) for one in asked])
    return every


@alerts
def test_an_alert_is_shown_to_begin_to_end_and_to_keep_quiet(name: str) -> None:
    told = stories(name)
    assert any(story[0] is False and True in story and story[-1] is False for story in told), "it begins, and ends"
    assert any(True not in story for story in told), "there is a case that only looks like its own"


@alerts
def test_an_alert_says_how_bad_it_is_what_is_felt_how_much_and_where_to_read_on(name: str) -> None:
    rule = ALERTS[name]
    assert rule["labels"] == {"severity": rule["labels"]["severity"]}
    assert rule["labels"]["severity"] in {"critical", "warning"}
    assert set(rule["annotations"]) == {"summary", "description", "runbook_url"}
    assert name.startswith("OpentvProxy")
    # A critical alert wakes somebody: a glitch of one scrape must not.
    assert "for" in rule or rule["labels"]["severity"] == "warning"
    url = rule["annotations"]["runbook_url"].removeprefix(PLACEHOLDER)
    path, _, anchor = url.partition("#")
    assert (ROOT / path, anchor) == (RUNBOOK, name.lower())
    assert anchor in anchors(RUNBOOK)


def test_each_alert_has_its_section_in_the_runbook_and_the_other_way_round() -> None:
    assert [title for title in SECTIONS if title.startswith("Opentv")] == list(ALERTS)


def identifiers(expression: str) -> Iterator[str]:
    """Names of metrics and of recorded series: not what stands in quotes, braces or a list of labels."""
    bare = re.sub(r'"[^"]*"|\{[^}]*\}|(?:by|without|on|ignoring) \([^)]*\)', " ", expression)
    for name, call in re.findall(r"([a-zA-Z_:][\w:]*)(\s*\()?", re.sub(r"\[\w+\]|\b\d\S*", " ", bare)):
        if not call and name not in {"and", "or", "unless", "ignoring", "without", "Inf", "offset"}:
            yield name


def test_every_metric_that_a_rule_names_exists_and_every_recorded_series_is_used() -> None:
    """The names of the contract: what a rule asks for in vain would keep it quiet for ever."""
    named = {name for rule in RULES for name in identifiers(rule["expr"])}
    assert "opentv_proxy_token_usable" in named
    assert named - set(METRICS) - {"up"} == set(RECORDED)


def test_every_label_that_a_rule_names_exists_with_that_value() -> None:
    own = {label for labels in METRICS.values() for label in labels} | TARGET
    for rule in RULES:
        lists = re.findall(r"(?:by|without|on|ignoring) \(([^)]*)\)", rule["expr"])
        assert {label.strip() for names in lists for label in names.split(",")} <= own, rule["expr"]
        for metric, matchers in re.findall(r"(\w+)\{([^}]*)\}", rule["expr"]):
            for label, operator, value in re.findall(r'(\w+)(=~|!=|=)"([^"]*)"', matchers):
                assert label in METRICS.get(metric, set()) | TARGET, rule["expr"]
                known = KNOWN.get(f"{label} of {metric.removeprefix('opentv_proxy_').removesuffix('_total')}")
                assert known is None or operator == "=~" or value in known.split(), rule["expr"]


def test_recorded_series_are_named_by_level_metric_and_operation() -> None:
    assert [name for name in RECORDED if not re.fullmatch(r"[a-z_]+:[a-z0-9_]+:[a-z0-9_]+", name)] == []
    assert sorted(set(RECORDED)) == sorted(RECORDED)


def test_the_job_that_alerts_ask_for_is_the_one_that_is_scraped() -> None:
    config = yaml.safe_load((FOLDER / "prometheus.yml").read_text())
    asked = {job for rule in RULES for job in re.findall(r'job="([^"]*)"', rule["expr"])}
    assert asked == {job["job_name"] for job in config["scrape_configs"]} == {"opentv-auth-proxy"}
    assert config["global"]["scrape_interval"] == "15s"


def test_the_command_for_the_prometheus_operator_makes_objects_that_hold_the_same_rules() -> None:
    blocks = re.findall(r"```sh\n(.*?)```", (ROOT / "docs/deploy.md").read_text(), re.DOTALL)
    command = next(block for block in blocks if "PrometheusRule" in block)
    written = subprocess.run(  # noqa: S603 - the document's own words, without their last
        ["/bin/sh", "-euc", command.replace("kubectl apply -f -", "cat")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    objects = {one["metadata"]["name"]: one for one in yaml.safe_load_all(written.stdout) if one}
    assert {one["kind"] for one in objects.values()} == {"PrometheusRule"}
    specs = {name: one["spec"] for name, one in objects.items()}
    assert specs == {f"opentv-auth-proxy-{file.stem}": yaml.safe_load(file.read_text()) for file in FILES}


@alerts
def test_a_section_of_the_runbook_has_all_its_parts_a_command_and_a_panel_that_exists(name: str) -> None:
    section = SECTIONS[name]
    assert re.findall(r"^\*\*([^*]+)\*\*", section, re.MULTILINE) == PARTS
    first_look = section.partition("**First look.**")[2].partition("**Causes.**")[0]
    assert re.search(r"`(?:curl|journalctl|opentv-proxy|timedatectl) ?[^`]*`", first_look)
    titles = {panel["title"] for panel in Dashboard().panels}
    emphasised = {re.sub(r"\s+", " ", words) for words in re.findall(r"(?<!\*)\*([A-Z][^*]+)\*(?!\*)", section)}
    assert emphasised & titles
    assert emphasised <= titles


def test_every_word_that_the_runbook_lets_the_gateway_say_is_one_of_its_own() -> None:
    """Quoted phrases of messages; and the results, reasons, outcomes and triggers by which causes are told apart."""
    code = [ast.parse(file.read_text()) for file in (ROOT / "proxy").rglob("*.py") if "sandbox" not in file.parts]
    said = "\n".join(
        str(node.value) for tree in code for node in ast.walk(tree) if isinstance(node, ast.Constant)
    ).lower()
    commands = r"curl|docker|kubectl|journalctl|systemctl|opentv-proxy|promtool|redis-cli|chronyc|\w+:|\S+="
    causes = "".join(body.partition("**First look.**")[2] for name, body in SECTIONS.items() if name in ALERTS)
    quoted = [re.sub(r"\s+", " ", words) for words in re.findall(r"`([^`]+)`", causes)]
    phrases = [words for words in quoted if " " in words and not re.match(commands, words)]
    assert len(phrases) > 20
    assert [words for words in phrases if any(part.strip().lower() not in said for part in words.split("…"))] == []
    rows = re.findall(r"^\| (`[^|]+`) \|", causes, re.MULTILINE)
    cells = {cell for row in rows for cell in re.findall(r"`([^`]+)`", row)}
    assert set(get_args(RefreshResult)) - {"success"} | set(get_args(UpstreamErrorReason)) == cells
    labels = [get_args(kind) for kind in (RejectionOutcome, StoreOperation, Trigger)]
    spoken = re.findall(r"(?:outcome|operation|trigger) `(\w+)`", causes)
    assert {word for words in labels for word in words} >= set(spoken)
    assert len(spoken) > 5
