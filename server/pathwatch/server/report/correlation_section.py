"""The report's part on how well the metrics follow scores that the run never saw."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from pathwatch.server.analysis.coefficients import Coefficient
from pathwatch.server.analysis.correlation import CONTROL, Correlations, CorrelationTable, MetricCorrelation
from pathwatch.server.analysis.correlation_words import (
    ABOUT_CONTROL,
    ABOUT_P,
    above_step,
    control_warning,
    scope_words,
    tracks,
)
from pathwatch.server.report.figure import to_svg
from pathwatch.server.report.section import Picture, Section, Table
from pathwatch.server.report.style import FAINT, INK, SECOND, STYLE

_COLUMNS = 4
_ROW_INCHES = 0.19
_HEADER = (
    *("metric", "n", "Pearson", "p", "p adj.", "Spearman", "p", "p adj."),
    *("partial Pearson", "partial Spearman", "above step", "tracks"),
)


def correlation_section(table: CorrelationTable) -> Section:
    """Picture, tables and warnings; groups that were never memorized are drawn over the whole run."""
    shown = _shown(table.by_group)
    parts = (*shown, *_shown(table.pooled))
    words = (
        "Filled dot: Spearman's rank correlation of a metric with the scores, as a distance from zero. "
        "The open dot is what is left with the step number removed. The line is the step number itself: a "
        "metric to the left of it tells no more than the passing of time.",
        ABOUT_CONTROL,
        ABOUT_P,
        *(warning for one in parts if (warning := control_warning(one)) is not None),
        *table.remarks,
    )
    return Section(
        title="Do the metrics follow the scores?",
        paragraphs=words,
        pictures=(Picture(svg=to_svg(draw_correlations(shown)), text=_in_words(shown)),),
        tables=tuple(_table(one) for one in parts),
    )


def _shown(parts: Sequence[Correlations]) -> list[Correlations]:
    """One part for each group and test: after memorization where there is such a one."""
    best: dict[tuple[str | None, str], Correlations] = {}
    for one in parts:
        if one.scope == "memorized" or (one.group, one.test) not in best:
            best[one.group, one.test] = one
    return list(best.values())


def draw_correlations(shown: Sequence[Correlations]) -> Figure:
    """A panel for each part; metrics from the highest mean |Spearman| down."""
    names = _by_height(shown)
    columns = min(_COLUMNS, len(shown))
    rows = -(-len(shown) // columns)
    with mpl.rc_context(STYLE):
        figure = Figure(
            figsize=(max(8.5, 2.2 + 2.2 * columns), 0.6 + rows * (0.8 + _ROW_INCHES * len(names))),
            layout="constrained",
            facecolor="white",
        )
        axes = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).flatten()
        for axis in axes[len(shown) :]:
            axis.set_visible(False)
        for axis, one in zip(axes, shown, strict=False):
            _draw_panel(axis, one, names)
        axes[0].set_yticks(range(len(names)), names)
        axes[0].set_ylim(len(names) - 0.5, -0.5)
        axes[0].set_xlim(0, 1.02)
        figure.legend(handles=_legend(), loc="outside lower left", ncols=3, frameon=False, fontsize=8.5)
    return figure


def _draw_panel(axis: Axes, one: Correlations, names: Sequence[str]) -> None:
    by_name = {metric.metric: metric for metric in one.metrics}
    for place, name in enumerate(names):
        metric = by_name.get(name)
        if metric is None:
            continue
        left, whole = _height(metric.partial_spearman), _height(metric.spearman)
        axis.plot([0, whole], [place, place], color=FAINT, linewidth=0.8, zorder=1)
        axis.plot(left, place, "o", markersize=4, markerfacecolor="white", color=SECOND, zorder=2)
        axis.plot(whole, place, "o", markersize=4.5, color=INK, zorder=3)
    control = _height(one.control.spearman)
    axis.axvline(control, color="#B22222", linewidth=1.2, zorder=0)
    test = f" → {one.test}" if one.test else ""
    axis.set_title(f"{one.group}{test}", fontsize=10, fontweight="bold", loc="left")
    since = "after memorization" if one.scope == "memorized" else "whole run: never memorized"
    axis.set_xlabel(f"|Spearman|, {since}\nsteps {one.first_step} to {one.last_step}", fontsize=8)
    axis.tick_params(length=2, labelbottom=True)
    axis.grid(axis="x", color="#E6E6E6", linewidth=0.6)
    axis.set_axisbelow(True)


def _legend() -> list[Line2D]:
    return [
        Line2D([], [], color=INK, marker="o", linestyle="", label="|Spearman| with the score"),
        Line2D(
            [],
            [],
            color=SECOND,
            marker="o",
            markerfacecolor="white",
            linestyle="",
            label="the same, step number removed",
        ),
        Line2D([], [], color="#B22222", label="step number (control)"),
    ]


def _by_height(shown: Sequence[Correlations]) -> list[str]:
    heights: dict[str, list[float]] = {}
    for one in shown:
        for metric in one.metrics:
            if metric.metric != CONTROL and metric.spearman is not None:
                heights.setdefault(metric.metric, []).append(_height(metric.spearman))
    return sorted(heights, key=lambda name: -sum(heights[name]) / len(heights[name]))


def _height(coefficient: Coefficient | None) -> float:
    """|r|; NaN, which is not drawn, where undefined."""
    return float("nan") if coefficient is None else abs(coefficient.r)


def _in_words(shown: Sequence[Correlations]) -> str:
    parts = []
    for one in shown:
        known = [metric for metric in one.metrics[1:] if metric.spearman is not None]
        best = max(known, key=lambda metric: _height(metric.spearman), default=None)
        if best is not None:
            parts.append(
                f"{one.group}: highest is {best.metric} at {_height(best.spearman):.2f}, "
                f"the step number at {_height(one.control.spearman):.2f}"
            )
    return "Rank correlation of each metric with the scores. " + "; ".join(parts) + "."


def _table(one: Correlations) -> Table:
    return Table(caption=scope_words(one), header=_HEADER, rows=tuple(_row(metric) for metric in one.metrics))


def _row(metric: MetricCorrelation) -> tuple[str | float | int | None, ...]:
    control = metric.metric == CONTROL
    return (
        "step number (control)" if control else metric.metric,
        metric.n,
        *_cells(metric.pearson),
        *_cells(metric.spearman),
        None if metric.partial_pearson is None else metric.partial_pearson.r,
        None if metric.partial_spearman is None else metric.partial_spearman.r,
        None if control else above_step(metric),
        None if control else "yes" if tracks(metric) else "no",
    )


def _cells(coefficient: Coefficient | None) -> tuple[float | None, float | None, float | None]:
    if coefficient is None:
        return (None, None, None)
    return coefficient.r, coefficient.p, coefficient.p_adjusted
