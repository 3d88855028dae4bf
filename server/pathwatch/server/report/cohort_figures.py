"""The pictures of a recorded run's cohorts: one column per group, as in the paper's figures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Literal

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from pathwatch.server.analysis.cohort_series import ALL, MEMORIZED
from pathwatch.server.analysis.cohort_study import THRESHOLD_METRICS, TREND_METRICS, GroupStudy
from pathwatch.server.analysis.memorization_robustness import FACTORS
from pathwatch.server.report.style import FAINT, INK, SECOND, STYLE

COLUMNS = 4
"""Groups beside each other; further ones go below."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Row:
    """One row of panels."""

    label: str
    draw: Callable[[Axes, GroupStudy], None]
    legend: Literal["first group", "every group", "none"] = "first group"


_TREND_LABELS: Mapping[str, str] = {
    "path_distance": "D_path\n(lower = more shared)",
    "path_distance_normalized": "D_path / length\n(lower = more shared)",
    "path_consistency": "C_i as printed\n(lower = smoother)",
    "adjacent_cosine": "adjacent cosine\n(higher = smoother)",
}


def draw_counts(study: Sequence[GroupStudy]) -> Figure:
    """Memorized samples over time, new and in all (Fig. 1)."""
    return _grid(study, [_Row(label="samples memorized", draw=_draw_counts)])


def draw_trends(study: Sequence[GroupStudy]) -> Figure:
    """Distance and consistency of every cohort after t*, with quadratic fits (Fig. 4, 6)."""
    metrics = [
        metric
        for metric in TREND_METRICS
        if any(metric in series.metrics for group in study for series in group.series)
    ]
    rows = [
        _Row(
            label=_TREND_LABELS[metric],
            draw=_trend_drawer(metric, study),
            # Cohorts have names of their own in every group, and the same colours in every row.
            legend="every group" if metric == metrics[0] else "none",
        )
        for metric in metrics
    ]
    return _grid(study, rows)


def draw_layers(study: Sequence[GroupStudy]) -> Figure:
    """D_path of each layer, all samples (Fig. 5)."""
    return _grid(study, [_Row(label="D_path of a layer\n(lower = more shared)", draw=_draw_layers)])


def draw_controls(study: Sequence[GroupStudy]) -> Figure:
    """Thresholds (E.1), limits of memorization (E.3), within and across groups (E.4)."""
    rows = [
        _Row(label="D_path by threshold τ", draw=_draw_thresholds),
        _Row(label="D_path of memorized\nsamples by ε and δ", draw=_draw_limits),
    ]
    if any("path_distance_cross" in series.metrics for group in study for series in group.series):
        rows += [
            _Row(label="D_path", draw=_draw_cross),
            _Row(label="within / across groups\n(lower = more shared)", draw=_draw_ratio),
        ]
    return _grid(study, rows)


def draw_entropy(study: Sequence[GroupStudy]) -> Figure:
    """Routing entropy against D_path, point by point (E.5)."""
    return _grid(study, [_Row(label="D_path", draw=_draw_entropy)], over_steps=False)


def _grid(study: Sequence[GroupStudy], rows: Sequence[_Row], *, over_steps: bool = True) -> Figure:
    columns = min(COLUMNS, len(study))
    blocks = [study[at : at + columns] for at in range(0, len(study), columns)]
    with mpl.rc_context(STYLE):
        figure = Figure(
            figsize=(max(8.5, 0.9 + 3.1 * columns), len(blocks) * (0.8 + 1.8 * len(rows)) + 0.2),
            layout="constrained",
            facecolor="white",
        )
        axes = figure.subplots(len(blocks) * len(rows), columns, sharey="row", squeeze=False)
        for block, groups in enumerate(blocks):
            part = axes[block * len(rows) : (block + 1) * len(rows)]
            for column in range(len(groups), columns):
                for axis in part[:, column]:
                    axis.set_visible(False)
            for column, group in enumerate(groups):
                part[0, column].set_title(group.group, fontsize=11, fontweight="bold", loc="left")
                part[-1, column].set_xlabel("training step" if over_steps else "routing entropy (nats)")
                for axis, row in zip(part[:, column], rows, strict=True):
                    row.draw(axis, group)
                    _finish(axis, group, over_steps)
                    if row.legend == "every group" or (row.legend == "first group" and column == 0):
                        _legend(axis)
            for axis, row in zip(part[:, 0], rows, strict=True):
                axis.set_ylabel(row.label)
    return figure


def _finish(axis: Axes, group: GroupStudy, over_steps: bool) -> None:
    axis.grid(axis="y", color=FAINT, linewidth=0.5)
    axis.set_axisbelow(True)
    axis.tick_params(length=2)
    axis.xaxis.set_major_locator(MaxNLocator(5, integer=over_steps))
    if over_steps:
        steps_T = group.counts.steps_T
        margin = max(1.0, 0.02 * float(steps_T[-1] - steps_T[0]))
        axis.set_xlim(float(steps_T[0]) - margin, float(steps_T[-1]) + margin)


def _legend(axis: Axes) -> None:
    if axis.get_legend_handles_labels()[0]:
        axis.legend(fontsize=6.5, frameon=False, ncols=2, handlelength=1.4)


def _draw_counts(axis: Axes, group: GroupStudy) -> None:
    counts = group.counts
    steps_T = counts.steps_T
    width = 0.8 * float(np.median(np.diff(steps_T))) if len(steps_T) > 1 else 1.0
    axis.bar(steps_T, counts.new_T, width=width, color=_shade(2, 4), label="new")
    axis.plot(steps_T, counts.cumulative_T, color=INK, linewidth=1.3, drawstyle="steps-post", label="in all")
    axis.axhline(len(group.cohorts.memorized_steps_N), color=SECOND, linewidth=0.8, linestyle=":")


def _trend_drawer(metric: str, study: Sequence[GroupStudy]) -> Callable[[Axes, GroupStudy], None]:
    limits = _inner_limits(study, metric) if metric == "path_consistency" else None

    def draw(axis: Axes, group: GroupStudy) -> None:
        whole = group.of(ALL)
        if whole is not None:
            axis.plot(whole.steps_S, whole.metric(metric), color=FAINT, linewidth=1.0, label="all samples")
        names = [cohort.name for cohort in group.cohorts.cohorts]
        fits = {fitted.cohort: fitted.trend for fitted in group.trends if fitted.metric == metric}
        for place, name in enumerate(names):
            series = group.of(name)
            if series is None:
                continue
            values_S, colour = series.metric(metric), _shade(place, len(names))
            axis.plot(series.steps_S, values_S, ".", color=colour, markersize=2.5, label=name)
            if name in fits:
                steps = series.steps_S[np.isfinite(values_S)]
                x = np.linspace(0, 1, 50)
                axis.plot(
                    steps[0] + x * (steps[-1] - steps[0]), fits[name].at(x), color=colour, linewidth=1.8
                )
        if limits is not None:
            axis.set_ylim(limits)

    return draw


def _inner_limits(study: Sequence[GroupStudy], metric: str) -> tuple[float, float] | None:
    """Limits that leave out the most extreme twentieth: C_i divides by a cosine that may be close to 0."""
    values = np.concatenate([series.metric(metric) for group in study for series in group.series])
    values = values[np.isfinite(values)]
    if not len(values) or np.ptp(values) == 0:
        return None
    low, high = np.quantile(values, [0.025, 0.975])
    margin = 0.2 * (high - low) or 0.1 * np.ptp(values)
    return float(low - margin), float(high + margin)


def _draw_layers(axis: Axes, group: GroupStudy) -> None:
    series = group.of(ALL)
    if series is None:
        return
    layers = series.layer_path_distance_SL.shape[1]
    named = set(np.linspace(0, layers - 1, min(layers, 6)).round().astype(int).tolist())
    for layer, distance_S in enumerate(series.layer_path_distance_SL.T):
        axis.plot(
            series.steps_S,
            distance_S,
            color=_shade(layer, layers),
            linewidth=1.1,
            label=f"layer {layer}" if layer in named else None,
        )


def _draw_thresholds(axis: Axes, group: GroupStudy) -> None:
    series = group.of(ALL)
    if series is None:
        return
    for place, (threshold, metric) in enumerate(THRESHOLD_METRICS.items()):
        axis.plot(
            series.steps_S,
            series.metric(metric),
            color=_shade(place, len(THRESHOLD_METRICS)),
            linewidth=1.1,
            label=f"τ = {threshold:g}",
        )


def _draw_limits(axis: Axes, group: GroupStudy) -> None:
    lines = dict(zip(FACTORS, ("--", "-", ":"), strict=True))
    variants = {(one.epsilon_factor, one.delta_factor): one for one in group.limits}
    for epsilon, delta in product(FACTORS, FACTORS):
        variant = variants.get((epsilon, delta))
        if variant is None:
            continue
        as_is = epsilon == delta == 1
        axis.plot(
            group.limit_steps_P,
            variant.path_distance_P,
            lines[delta],
            color=INK if as_is else _shade(FACTORS.index(epsilon), len(FACTORS)),
            linewidth=1.5 if as_is else 0.9,
            zorder=3 if as_is else 2,
            label=f"{epsilon:g}ε, {delta:g}δ",
        )


def _draw_cross(axis: Axes, group: GroupStudy) -> None:
    series = group.of(ALL)
    if series is None:
        return
    within_S, cross_S = series.metric("path_distance"), series.metric("path_distance_cross")
    axis.plot(series.steps_S, within_S, color=INK, linewidth=1.3, label="within the group")
    axis.plot(series.steps_S, cross_S, "--", color=SECOND, linewidth=1.1, label="to other groups")


def _draw_ratio(axis: Axes, group: GroupStudy) -> None:
    for name, colour in ((MEMORIZED, _shade(1, 3)), (ALL, INK)):
        series = group.of(name)
        if series is not None:
            ratio_S = series.metric("path_distance_ratio")
            axis.plot(series.steps_S, ratio_S, color=colour, linewidth=1.1, label=f"{name} samples")


def _draw_entropy(axis: Axes, group: GroupStudy) -> None:
    series = group.of(ALL)
    if series is None:
        return
    entropy_S, distance_S = series.metric("routing_entropy"), series.metric("path_distance")
    colours = [_shade(place, len(series.steps_S)) for place in range(len(series.steps_S))]
    axis.scatter(entropy_S, distance_S, c=colours, s=9)
    agreement = next((one.correlation for one in group.entropy if one.cohort == ALL), None)
    if agreement is not None:
        axis.set_title(f"ρ = {agreement.spearman.r:+.2f}", fontsize=8.5, color=SECOND, loc="right")


def _shade(place: int, places: int) -> tuple[float, float, float, float]:
    """Dark to light in the order of places; the lightest end is too pale on white."""
    return mpl.colormaps["viridis"](0.85 * place / max(1, places - 1))
