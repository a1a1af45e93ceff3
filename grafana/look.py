"""How the panels look, the same everywhere: sizes, colours, thresholds, legends.

The page is 24 columns wide. Of 1,280 pixels a column has 52, of 1,920 it has 78, so a graph (8 or 12 columns) is at
least 416 pixels wide and a tile (4 or 6) at least 208. A unit of height is 38 pixels.
"""

from collections.abc import Sequence
from typing import Final, TypeVar

from grafana_foundation_sdk.builders import common as common_builders
from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.builders import prometheus, stat, statetimeline, timeseries
from grafana_foundation_sdk.models import common
from grafana_foundation_sdk.models.dashboard import (
    DataSourceRef,
    DynamicConfigValue,
    FieldColor,
    FieldColorModeId,
    Threshold,
    ThresholdsMode,
    ValueMap,
    ValueMappingResult,
)

from grafana.queries import Query

AnyPanel = timeseries.Panel | stat.Panel | statetimeline.Panel
P = TypeVar("P", timeseries.Panel, stat.Panel, statetimeline.Panel)
Steps = Sequence[Threshold]

DATASOURCE: Final = DataSourceRef(type_val="prometheus", uid="${datasource}")

# A colour means one thing on the whole dashboard.
GOOD: Final = "green"
WARN: Final = "orange"
BAD: Final = "red"
PLAIN: Final = "blue"
ASIDE: Final = "#8e8e8e"
# Where a line is drawn, what is good has no colour; Grafana then draws "less than" in the colour of what is less.
UNMARKED: Final = "transparent"

GRAPH_HEIGHT: Final = 8
TILE_HEIGHT: Final = 4
# What is rare is counted; a bar narrower than this says nothing.
BAR: Final = "1m"


def words(shows: str, good: str, otherwise: str) -> str:
    """A panel's description: what it shows, what good looks like, what to do when it does not."""
    return f"{shows}\n\n**Good:** {good}\n\n**Otherwise:** {otherwise}"


def plain() -> Steps:
    """No value is good or bad by itself."""
    return [Threshold(value=None, color=PLAIN)]


def bad_above(warn: float, bad: float) -> Steps:
    steps = [Threshold(value=None, color=GOOD)]
    if warn < bad:
        steps.append(Threshold(value=warn, color=WARN))
    return [*steps, Threshold(value=bad, color=BAD)]


def bad_below(bad: float, warn: float) -> Steps:
    steps = [Threshold(value=None, color=BAD)]
    if bad < warn:
        steps.append(Threshold(value=bad, color=WARN))
    return [*steps, Threshold(value=warn, color=GOOD)]


def bad_beyond(warn: float, bad: float) -> Steps:
    """On either side of 0."""
    marks = [(None, BAD), (-bad, WARN), (-warn, GOOD), (warn, WARN), (bad, BAD)]
    return [Threshold(value=value, color=colour) for value, colour in marks]


def thresholds(steps: Steps) -> builders.ThresholdsConfig:
    return builders.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(list(steps))


def states(bad: tuple[int, str], good: tuple[int, str]) -> ValueMap:
    """A gauge of 0 and 1 in words."""
    return ValueMap(
        options={
            str(value): ValueMappingResult(text=text, color=colour)
            for (value, text), colour in ((bad, BAD), (good, GOOD))
        }
    )


def coloured(colour: str) -> list[DynamicConfigValue]:
    return [DynamicConfigValue(id_val="color", value=FieldColor(mode=FieldColorModeId.FIXED, fixed_color=colour))]


def shaded(colour: str) -> list[DynamicConfigValue]:
    """Several series in shades of one colour."""
    return [DynamicConfigValue(id_val="color", value=FieldColor(mode=FieldColorModeId.SHADES, fixed_color=colour))]


def tile(number: int, title: str, description: str, unit: str, steps: Steps, *queries: Query, width: int) -> stat.Panel:
    """The newest value in large figures, one for each series, with its name."""
    panel = (
        _panel(stat.Panel(), number, title, description, unit, queries)
        .thresholds(thresholds(steps))
        .color_scheme(builders.FieldColor().mode(FieldColorModeId.THRESHOLDS))
        .color_mode(common.BigValueColorMode.VALUE)
        .graph_mode(common.BigValueGraphMode.NONE)
        .text_mode(common.BigValueTextMode.VALUE_AND_NAME)
        .reduce_options(common_builders.ReduceDataOptions().calcs(["lastNotNull"]).values(values=False))
    )
    return panel.span(width).height(TILE_HEIGHT)


def graph(
    number: int, title: str, description: str, unit: str, *queries: Query, width: int = 8, steps: Steps = ()
) -> timeseries.Panel:
    """Lines over time. steps: thresholds, drawn dashed."""
    panel = (
        _panel(timeseries.Panel(), number, title, description, unit, queries)
        .color_scheme(builders.FieldColor().mode(FieldColorModeId.PALETTE_CLASSIC_BY_NAME))
        .thresholds(thresholds([_unmarked(step) for step in steps] or plain()))
        .draw_style(common.GraphDrawStyle.LINE)
        .line_width(2)
        .fill_opacity(8)
        .show_points(common.VisibilityMode.NEVER)
        .span_nulls(span_nulls=False)
        .legend(_legend())
        .tooltip(_tooltip())
    )
    if steps:
        dashed = common_builders.GraphThresholdsStyleConfig().mode(common.GraphTresholdsStyleMode.DASHED)
        panel.thresholds_style(dashed)
    return panel.span(width).height(GRAPH_HEIGHT)


def counts(number: int, title: str, description: str, *queries: Query, width: int = 8) -> timeseries.Panel:
    """Stacked bars: how often something rare happened."""
    return (
        graph(number, title, description, "short", *queries, width=width)
        .draw_style(common.GraphDrawStyle.BARS)
        .line_width(1)
        .fill_opacity(70)
        .stacking(common_builders.StackingConfig().mode(common.StackingMode.NORMAL).group("A"))
        .decimals(0)
        .min(0)
        .axis_soft_max(4)
        .interval(BAR)
    )


def timeline(
    number: int, title: str, description: str, mapping: ValueMap, query: Query, *, width: int
) -> statetimeline.Panel:
    """One band for each series, its states in words and colour."""
    return (
        _panel(statetimeline.Panel(), number, title, description, "none", [query])
        .mappings([mapping])
        .thresholds(thresholds(plain()))
        .color_scheme(builders.FieldColor().mode(FieldColorModeId.THRESHOLDS))
        .merge_values(merge_values=True)
        .show_value(common.VisibilityMode.AUTO)
        .row_height(0.8)
        .fill_opacity(70)
        .line_width(0)
        .legend(_legend().show_legend(show_legend=False))
        .tooltip(_tooltip())
        .span(width)
        .height(GRAPH_HEIGHT)
    )


def _panel(panel: P, number: int, title: str, description: str, unit: str, queries: Sequence[Query]) -> P:
    panel.id(number).title(title).description(description).unit(unit).datasource(DATASOURCE)
    for letter, query in zip("ABCDEFGH", queries, strict=False):
        target = prometheus.Dataquery().expr(query.expr).legend_format(query.legend).ref_id(letter)
        target.datasource(DATASOURCE)
        panel.with_target(target.instant() if query.now else target.range())
    return panel


def _unmarked(step: Threshold) -> Threshold:
    return Threshold(value=step.value, color=UNMARKED if step.color == GOOD else step.color)


def _legend() -> common_builders.VizLegendOptions:
    """Below the graph, names only: it costs a line or two of height and no width."""
    return (
        common_builders.VizLegendOptions()
        .display_mode(common.LegendDisplayMode.LIST)
        .placement(common.LegendPlacement.BOTTOM)
        .show_legend(show_legend=True)
        .calcs([])
    )


def _tooltip() -> common_builders.VizTooltipOptions:
    return common_builders.VizTooltipOptions().mode(common.TooltipDisplayMode.MULTI).sort(common.SortOrder.DESCENDING)
