"""The kinds of panels that the dashboards are made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias, TypeVar

from grafana_foundation_sdk.builders import common as build
from grafana_foundation_sdk.builders import dashboard, heatmap, stat, statetimeline, timeseries
from grafana_foundation_sdk.builders import table as tables
from grafana_foundation_sdk.models import common
from grafana_foundation_sdk.models.dashboard import (
    DashboardLinkType,
    DynamicConfigValue,
    FieldColorModeId,
    Threshold,
    ThresholdsMode,
    ValueMapping,
)
from grafana_foundation_sdk.models.heatmap import HeatmapColorMode
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from pathwatch.server.monitoring.dashboards.queries import DATASOURCE, Query, now, over_time

RUNBOOKS = "docs/runbooks/"
"""Where the pages are in the repository; `pathwatch monitoring --runbooks` makes addresses of it."""
BAND_COLOUR = "#4c78a8"

AnyPanel: TypeAlias = stat.Panel | statetimeline.Panel | timeseries.Panel | heatmap.Panel | tables.Panel
P = TypeVar("P", stat.Panel, statetimeline.Panel, timeseries.Panel, heatmap.Panel, tables.Panel)
Steps: TypeAlias = Mapping[float | None, str]
"""From which value on (None = from the lowest) which colour."""


def dressed(
    panel: P,
    title: str,
    description: str,
    unit: str,
    *,
    span: int,
    height: int,
    runbooks: Sequence[str] = (),
    no_value: str = "no data",
) -> P:
    """What every panel says of itself. `span` is of 24 columns, `runbooks` names of pages."""
    panel.title(title).description(description).unit(unit).no_value(no_value).datasource(DATASOURCE)
    panel.span(span).height(height)
    if runbooks:
        panel.links([_to_page(page) for page in runbooks])
    return panel


def _to_page(page: str) -> dashboard.DashboardLink:
    link = dashboard.DashboardLink(f"Runbook: {page}").type(DashboardLinkType.LINK)
    return link.url(f"{RUNBOOKS}{page}.md").target_blank(True)


def thresholds(steps: Steps) -> dashboard.ThresholdsConfig:
    """Colours by value."""
    made = [Threshold(value=value, color=colour) for value, colour in steps.items()]
    return dashboard.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(made)


def number(
    title: str,
    description: str,
    unit: str,
    *queries: Query,
    span: int = 3,
    no_value: str = "–",
    mappings: Sequence[ValueMapping] = (),
    steps: Steps | None = None,
    runbooks: Sequence[str] = (),
) -> stat.Panel:
    """One value, or a few with their names, as of now."""
    panel = dressed(
        stat.Panel(), title, description, unit, span=span, height=4, runbooks=runbooks, no_value=no_value
    )
    coloured = bool(mappings or steps)
    mode = common.BigValueColorMode.BACKGROUND_SOLID if coloured else common.BigValueColorMode.NONE
    names = common.BigValueTextMode.VALUE_AND_NAME if len(queries) > 1 else common.BigValueTextMode.VALUE
    return (
        panel.targets(now(queries, PromQueryFormat.TIME_SERIES))
        .graph_mode(common.BigValueGraphMode.NONE)
        .color_mode(mode)
        .text_mode(names)
        .reduce_options(build.ReduceDataOptions().calcs(["lastNotNull"]))
        .mappings(list(mappings))
        .color_scheme(dashboard.FieldColor().mode(FieldColorModeId.THRESHOLDS))
        .thresholds(thresholds(steps or {None: "text"}))
    )


def lines(
    title: str,
    description: str,
    unit: str,
    *queries: Query,
    span: int = 8,
    low: float | None = None,
    high: float | None = None,
    stacked: bool = False,
    runbooks: Sequence[str] = (),
    no_value: str = "no data",
) -> timeseries.Panel:
    """Values over time; the legend tells the newest of each."""
    panel = dressed(
        timeseries.Panel(),
        title,
        description,
        unit,
        span=span,
        height=8,
        runbooks=runbooks,
        no_value=no_value,
    )
    panel.targets(over_time(queries, PromQueryFormat.TIME_SERIES))
    panel.color_scheme(dashboard.FieldColor().mode(FieldColorModeId.PALETTE_CLASSIC))
    panel.draw_style(common.GraphDrawStyle.LINE).show_points(common.VisibilityMode.AUTO)
    panel.fill_opacity(30 if stacked else 0).line_width(1 if stacked else 2)
    if stacked:
        panel.stacking(build.StackingConfig().mode(common.StackingMode.NORMAL))
    if low is not None:
        panel.min(low)
    if high is not None:
        panel.max(high)
    legend = build.VizLegendOptions().show_legend(True).display_mode(common.LegendDisplayMode.TABLE)
    panel.legend(legend.placement(common.LegendPlacement.BOTTOM).calcs(["lastNotNull"]))
    return panel.tooltip(
        build.VizTooltipOptions().mode(common.TooltipDisplayMode.MULTI).sort(common.SortOrder.DESCENDING)
    )


def band(
    title: str, description: str, unit: str, mean: str, margin: str, *, low: float | None = None
) -> timeseries.Panel:
    """A mean and what lies `margin` to either side; of one group, since a band needs a line's name."""
    panel = lines(
        title,
        description,
        unit,
        Query(mean, "mean"),
        Query(f"{mean} + {margin}", "upper"),
        Query(f"{mean} - {margin}", "lower"),
        low=low,
    )
    edge = [
        DynamicConfigValue(id_val="custom.lineWidth", value=0),
        DynamicConfigValue(id_val="custom.showPoints", value="never"),
        DynamicConfigValue(id_val="custom.hideFrom", value={"legend": True, "tooltip": False, "viz": False}),
    ]
    filled = [
        DynamicConfigValue(id_val="custom.fillBelowTo", value="lower"),
        DynamicConfigValue(id_val="custom.fillOpacity", value=25),
    ]
    panel.color_scheme(dashboard.FieldColor().mode(FieldColorModeId.FIXED).fixed_color(BAND_COLOUR))
    return panel.override_by_name("upper", [*edge, *filled]).override_by_name("lower", edge)


def timeline(
    title: str, description: str, query: Query, mappings: Sequence[ValueMapping], *, runbooks: Sequence[str]
) -> statetimeline.Panel:
    """The state of each line over time, in words and colours."""
    panel = dressed(statetimeline.Panel(), title, description, "none", span=24, height=7, runbooks=runbooks)
    return (
        panel.targets(over_time([query], PromQueryFormat.TIME_SERIES))
        .mappings(list(mappings))
        .color_scheme(dashboard.FieldColor().mode(FieldColorModeId.THRESHOLDS))
        .show_value(common.VisibilityMode.AUTO)
        .merge_values(True)
        .row_height(0.85)
        .fill_opacity(85)
        .line_width(1)
        .legend(build.VizLegendOptions().show_legend(True).placement(common.LegendPlacement.BOTTOM))
        .tooltip(build.VizTooltipOptions().mode(common.TooltipDisplayMode.SINGLE))
    )


def heat(
    title: str,
    description: str,
    unit: str,
    query: Query,
    *,
    scheme: str,
    buckets: bool,
    cell_unit: str,
    span: int = 8,
    runbooks: Sequence[str] = (),
) -> heatmap.Panel:
    """Rows × time. `buckets`: the rows are a histogram's; else each line is a row."""
    panel = dressed(heatmap.Panel(), title, description, unit, span=span, height=8, runbooks=runbooks)
    form = PromQueryFormat.HEATMAP if buckets else PromQueryFormat.TIME_SERIES
    return (
        panel.targets(over_time([query], form))
        .calculate(False)
        .color(heatmap.HeatmapColorOptions().mode(HeatmapColorMode.SCHEME).scheme(scheme).steps(64))
        .cell_values(heatmap.CellValues().unit(cell_unit))
        .y_axis(heatmap.YAxisConfig().unit(unit))
        .rows_frame(
            heatmap.RowsHeatmapOptions().layout(
                common.HeatmapCellLayout.AUTO if buckets else common.HeatmapCellLayout.UNKNOWN
            )
        )
        .scale_distribution(build.ScaleDistributionConfig().type(common.ScaleDistribution.LINEAR))
        .show_legend()
        .show_tooltip()
    )
