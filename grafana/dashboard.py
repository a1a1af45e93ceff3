"""The dashboard whole: variables, annotations, rows; and its JSON."""

from pathlib import Path
from typing import Final

from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import dashboard as models

from grafana.look import BAD, DATASOURCE, PLAIN, WARN
from grafana.queries import PREFIX, increase, of_gateway, of_identity, selector
from grafana.rows import ROWS

FILE: Final = Path(__file__).parent / "dashboards" / "opentv-auth-proxy.json"
UID: Final = "opentv-auth-proxy"

DESCRIPTION: Final = (
    "opentv-auth-proxy: whether every identity has a token, how each token lives, what the CRM gets. Each panel says"
    " what good looks like. Written by python -m grafana; what is changed here by hand is lost with the next version."
)


class _Marks(models.AnnotationQuery):
    """An annotation with what Grafana's Prometheus data source reads beside the fields that the library knows.

    at_value: the query's values are the moments (Unix milliseconds), instead of the times at which it has any.
    """

    def __init__(self, name: str, colour: str, expr: str, title: str, text: str, *, at_value: bool) -> None:
        super().__init__(name=name, datasource=DATASOURCE, icon_color=colour, expr=expr)
        self._extra = {"titleFormat": title, "textFormat": text, "useValueForTime": at_value, "step": "15s"}

    def to_json(self) -> dict[str, object]:
        return {**super().to_json(), **self._extra}


class _Annotation(Builder[models.AnnotationQuery]):
    def __init__(self, marks: _Marks) -> None:
        self._marks = marks

    def build(self) -> models.AnnotationQuery:
        return self._marks


_START: Final = selector("process_start_time_seconds")
_READ: Final = of_gateway("config_last_reload_timestamp_seconds")
_LOGINS: Final = increase(of_identity("token_refreshes_total", 'grant="login"', 'result="success"'))
MARKS: Final = (
    _Marks("Restarts", BAD, f"{_START} * 1000", "Restart", "{{instance}} started", at_value=True),
    # The first reading of the configuration is part of the start.
    _Marks(
        "Reloads",
        PLAIN,
        f"({_READ} > on (job, instance) ({_START} + 10)) * 1000",
        "Reload",
        "{{instance}} read its configuration",
        at_value=True,
    ),
    # One at the very start is older than the first scrape, so it shows as the restart alone.
    _Marks(
        "Logins",
        WARN,
        f"sum by (instance, identity, trigger) ({_LOGINS}) > 0",
        "Login",
        "{{identity}} at {{instance}}: {{trigger}}",
        at_value=False,
    ),
)


def _values(name: str, label: str, words: str, query: str) -> builders.QueryVariable:
    """A variable of the values that a label has."""
    return (
        builders.QueryVariable(name)
        .label(label)
        .description(words)
        .datasource(DATASOURCE)
        .query({"query": query, "refId": name})
        .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(models.VariableSort.ALPHABETICAL_ASC)
    )


def _several(variable: builders.QueryVariable) -> builders.QueryVariable:
    everything = models.VariableOption(selected=True, text="All", value="$__all")
    return variable.multi(multi=True).include_all(include_all=True).all_value(".*").current(everything)


def _variables() -> list[Builder[models.VariableModel]]:
    here = selector("up").replace(',instance=~"$instance"', "")
    return [
        builders.DatasourceVariable("datasource").label("Data source").type("prometheus"),
        # One at a time: figures of test and production added together say nothing.
        _values("job", "Job", "Prometheus' name for this gateway", f"label_values({PREFIX}build_info, job)"),
        _several(_values("instance", "Instance", "Replicas", f"label_values({here}, instance)")),
        _several(
            _values(
                "identity",
                "Identity",
                "As configured under identities",
                f"label_values({of_gateway('token_usable')}, identity)",
            )
        ),
        _several(
            _values(
                "route",
                "Route",
                "As configured under routes, by path",
                f"label_values({of_gateway('request_duration_seconds_count')}, route)",
            )
        ),
    ]


def build() -> models.Dashboard:
    """Panels fill a line of 24 columns from the left; a full line, and each row, begins a new one."""
    board = (
        builders.Dashboard("OpenTV auth proxy")
        .uid(UID)
        .description(DESCRIPTION)
        .tags(["opentv-auth-proxy"])
        .editable()
        .tooltip(models.DashboardCursorSync.CROSSHAIR)
        .time("now-1h", "now")
        .refresh("30s")
        .variables(_variables())
        .annotations([_Annotation(marks) for marks in MARKS])
    )
    for number, title, panels in ROWS:
        board.with_row(builders.Row(title).id(number))
        for panel in panels:
            board.with_panel(panel)
    return board.build()


def rendered() -> str:
    """The file's text: the same for the same panels, and readable in a diff."""
    return JSONEncoder(sort_keys=True, indent=2, ensure_ascii=False).encode(build()) + "\n"
