"""The committed dashboard as Grafana reads it: its panels, their queries, and the variables put in place."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Any, Final

from tests.support.gateway import ROOT

FILE: Final = ROOT / "grafana/dashboards/opentv-auth-proxy.json"
# name{matchers}; none of ours has a brace inside a string.
SELECTOR: Final = re.compile(r"([a-zA-Z_]\w*)\{([^}]*)\}")
_SPECIAL: Final = re.compile(r"[\\$^*{}\[\]'+?.()|]")
_LABEL: Final = re.compile(r"\{\{(\w+)\}\}")


@dataclass(frozen=True)
class Query:
    """One query of a panel, or of an annotation (panel 0). min_step: the panel's lower limit, seconds. instant: only
    the newest value is asked for."""

    panel: int
    title: str
    ref: str
    expr: str
    legend: str
    instant: bool
    min_step: int

    def __str__(self) -> str:
        return f"{self.panel} {self.title} {self.ref}"

    def selectors(self) -> list[tuple[str, dict[str, str]]]:
        """Each metric's name and its matchers: label → operator and quoted value."""
        return [
            (name, dict(re.findall(r'(\w+)((?:=~|!~|!=|=)"[^"]*")', matchers)))
            for name, matchers in SELECTOR.findall(self.expr)
        ]

    def labels(self) -> set[str]:
        """Those whose values the legend shows."""
        return set(_LABEL.findall(self.legend))

    def name(self, labels: Mapping[str, str]) -> str:
        """What the legend calls a series with these labels."""
        return _LABEL.sub(lambda found: labels.get(found[1], ""), self.legend)


class Dashboard:
    """The file's JSON, and what is in it. panels: rows left out; every: rows too."""

    def __init__(self, file: Path = FILE) -> None:
        self.json: dict[str, Any] = json.loads(file.read_text())
        self.every: list[dict[str, Any]] = self.json["panels"]
        self.panels = [panel for panel in self.every if panel["type"] != "row"]
        self.variables: dict[str, dict[str, Any]] = {v["name"]: v for v in self.json["templating"]["list"]}
        self.annotations: list[dict[str, Any]] = self.json["annotations"]["list"]

    def panel(self, number: int) -> dict[str, Any]:
        return next(panel for panel in self.panels if panel["id"] == number)

    def queries(self) -> Iterator[Query]:
        for panel in self.panels:
            limit = panel.get("interval", "0")
            seconds = int(limit.rstrip("ms")) * (60 if limit.endswith("m") else 1)
            for target in panel["targets"]:
                words = (target["refId"], target["expr"], target["legendFormat"])
                yield Query(panel["id"], panel["title"], *words, bool(target["instant"]), seconds)

    def marks(self) -> Iterator[Query]:
        """The annotations' queries."""
        for one in self.annotations:
            words = (one["name"], "", one["expr"], one["titleFormat"] + one["textFormat"])
            yield Query(0, *words, instant=False, min_step=0)

    def all_queries(self) -> list[Query]:
        return [*self.queries(), *self.marks()]


def chosen(*values: str) -> str:
    """What Grafana puts where a variable of several values stands inside a regular expression."""
    escaped = [_SPECIAL.sub(r"\\\\\g<0>", value) for value in values]
    return escaped[0] if len(escaped) == 1 else f"({'|'.join(escaped)})"


def substituted(expr: str, values: Mapping[str, str], step: float, scrape: float) -> str:
    """The expression as Prometheus gets it; KeyError for a variable without a value. values: variable → text. step,
    scrape: the query's and the data source's interval, seconds."""
    rate_interval = max(step + scrape, 4 * scrape)
    return Template(expr).substitute(values, __rate_interval=f"{rate_interval:g}s")


def everything(dashboard: Dashboard, job: str) -> dict[str, str]:
    """The variables as they are when somebody opens the dashboard: the job, and All of the others."""
    return {name: v.get("allValue", job) for name, v in dashboard.variables.items() if v["type"] == "query"}


def tables_first_column(document: Path, heading: str) -> Sequence[str]:
    """The names in back quotes that begin the rows of the table below a heading."""
    section = document.read_text().partition(f"\n{heading}\n")[2].partition("\n## ")[0]
    return re.findall(r"^\| `([^`]+)`", section, re.MULTILINE)
