"""The picture of the bound: effective dimension for every λ, and the variance term, over the run."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from pathwatch.server.analysis.bound import PUBLISHED_RIDGE, BoundSeries
from pathwatch.server.report.style import FAINT, INK, STYLE

COLUMNS = 4
"""Groups beside each other; further ones go below."""


def draw_bound(series: Sequence[BoundSeries]) -> Figure:
    """Two rows per block of groups: the sweep over λ, and σ²·d_eff/n at the published λ."""
    columns = min(COLUMNS, len(series))
    blocks = [series[at : at + columns] for at in range(0, len(series), columns)]
    with mpl.rc_context(STYLE):
        figure = Figure(
            figsize=(max(8.5, 0.9 + 3.1 * columns), 0.6 + 4.2 * len(blocks)),
            layout="constrained",
            facecolor="white",
        )
        axes = figure.subplots(2 * len(blocks), columns, sharex=True, sharey="row", squeeze=False)
        for block, groups in enumerate(blocks):
            sweep, term = axes[2 * block], axes[2 * block + 1]
            for column in range(len(groups), columns):
                sweep[column].set_visible(False)
                term[column].set_visible(False)
            for column, group in enumerate(groups):
                _draw_sweep(sweep[column], group)
                _draw_term(term[column], group)
            # Only now that all groups of the row are drawn: the row shares its scale.
            term[0].set_ylim(bottom=0)
            sweep[0].set_ylabel("effective dimension\n(lower = more shared)")
            term[0].set_ylabel(f"{_noise(series[0].noise)}·d_eff/n at λ = {PUBLISHED_RIDGE:g}")
        figure.legend(
            *axes[0, 0].get_legend_handles_labels(), loc="outside lower left", ncols=7, frameon=False
        )
    return figure


def _draw_sweep(axis: Axes, series: BoundSeries) -> None:
    colours = mpl.colormaps["viridis"]
    for a, ridge in enumerate(series.ridges_A):
        published = ridge == PUBLISHED_RIDGE
        axis.plot(
            series.steps_P,
            series.dimensions_PA[:, a],
            color=INK if published else colours(0.95 * a / max(1, len(series.ridges_A) - 1)),
            linewidth=1.8 if published else 1.1,
            zorder=3 if published else 2,
            label=f"λ = {ridge:g}" + (" (published)" if published else ""),
        )
    axis.set_title(series.group, loc="left", fontweight="bold")
    axis.set_yscale("log")
    axis.yaxis.set_major_formatter("{x:g}")
    _finish(axis)


def _draw_term(axis: Axes, series: BoundSeries) -> None:
    axis.plot(series.steps_P, series.variance_PA[:, series.at(PUBLISHED_RIDGE)], color=INK, linewidth=1.3)
    axis.set_xlabel("training step")
    axis.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    _finish(axis)


def _finish(axis: Axes) -> None:
    axis.grid(axis="y", color=FAINT, linewidth=0.5)
    axis.set_axisbelow(True)


def _noise(noise: float) -> str:
    return "σ²" if noise == 1 else f"{noise:g}"
