"""The picture of a run: one column per group, one row per metric, phases as bands behind the curves."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from pathwatch.server.report.data import GroupHistory, RunHistory
from pathwatch.server.report.labels import Comparison, Labels, compare
from pathwatch.server.report.phases import PHASE_STYLES
from pathwatch.server.report.style import FAINT, INK, SECOND, STYLE

COLUMNS = 4
"""Groups beside each other; further ones go below."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Panel:
    """One row of the picture."""

    name: str
    label: str
    metrics: tuple[tuple[str, str, Literal["-", "--"]], ...]
    """(metric, what the line is, line style); the first is the main one."""
    log: bool = False
    from_zero: bool = False


_PANELS = (
    _Panel(
        name="loss",
        label="loss (nats)",
        metrics=(
            ("train_loss", "training samples", "-"),
            ("unseen_loss", "samples not yet trained on", "--"),
        ),
        log=True,
    ),
    _Panel(
        name="path distance",
        label="path distance / length\n(lower = more shared)",
        metrics=(("path_distance_normalized", "", "-"),),
    ),
    _Panel(
        name="effective dimension",
        label="effective dimension\n(lower = more shared)",
        metrics=(
            ("effective_dimension", "all tokens", "-"),
            ("target_effective_dimension", "target tokens", "--"),
        ),
        from_zero=True,
    ),
    _Panel(
        name="target affinity",
        label="target affinity\n(lower = more shared)",
        metrics=(("target_affinity", "", "-"),),
        from_zero=True,
    ),
)


def draw(history: RunHistory, labels: Labels | None = None) -> Figure:
    """The picture of a run; scores are drawn only where labels are given."""
    panels = [panel for panel in _PANELS if any(_has(group, panel) for group in history.groups)]
    blocks = [history.groups[at : at + COLUMNS] for at in range(0, len(history.groups), COLUMNS)]
    columns = len(blocks[0])
    rows = len(panels) + (labels is not None)
    with mpl.rc_context(STYLE):
        figure = Figure(
            figsize=(max(8.5, 0.9 + 3.1 * columns), 0.9 + len(blocks) * (0.8 + 1.45 * rows) + 0.7),
            layout="constrained",
            facecolor="white",
        )
        figure.suptitle(_title(history), fontsize=12, fontweight="bold", x=0.01, ha="left")
        parts = figure.subfigures(len(blocks), 1, squeeze=False)[:, 0]
        for part, groups in zip(parts, blocks, strict=True):
            _draw_block(part, history, groups, columns, panels, labels)
        figure.legend(
            handles=_legend(history, labels),
            loc="outside lower left",
            ncols=min(6, 2 + columns),
            frameon=False,
            fontsize=8.5,
        )
        # The layout takes most of the time: once is enough for all formats.
        engine = figure.get_layout_engine()
        if engine is not None:
            engine.execute(figure)
            figure.set_layout_engine("none")
    return figure


def to_png(figure: Figure, dpi: int = 150) -> bytes:
    return _saved(figure, "png", dpi)


def to_svg(figure: Figure) -> bytes:
    return _saved(figure, "svg", 72)


def _saved(figure: Figure, kind: str, dpi: int) -> bytes:
    buffer = io.BytesIO()
    with mpl.rc_context(STYLE):
        figure.savefig(buffer, format=kind, dpi=dpi, metadata={"Date": None} if kind == "svg" else None)
    return buffer.getvalue()


def _title(history: RunHistory) -> str:
    told = "not told to stop" if history.stop is None else f"told to stop at step {history.stop.stop_at_step}"
    return f"{history.run}: steps {history.first_step} to {history.last_step}, {told}"


def _has(group: GroupHistory, panel: _Panel) -> bool:
    return any(metric in group.metrics for metric, _, _ in panel.metrics)


def _draw_block(
    part: SubFigure,
    history: RunHistory,
    groups: Sequence[GroupHistory],
    columns: int,
    panels: Sequence[_Panel],
    labels: Labels | None,
) -> None:
    rows = len(panels) + (labels is not None)
    axes = part.subplots(
        1 + rows,
        columns,
        sharex=True,
        sharey="row",
        squeeze=False,
        gridspec_kw={"height_ratios": [0.11] + [1.0] * rows},
    )
    for column in range(len(groups), columns):
        for axis in axes[:, column]:
            axis.set_visible(False)
    for column, group in enumerate(groups):
        _draw_phases(axes[0, column], group)
        for axis, panel in zip(axes[1:, column], panels, strict=False):
            _draw_panel(axis, group, panel)
        if labels is not None:
            _draw_scores(axes[-1, column], labels, group.group, compare(group, labels))
        for axis in axes[1:, column]:
            _draw_marks(axis, history, group)
        axes[-1, column].set_xlabel("training step")
        margin = max(1.0, 0.02 * (history.last_step - history.first_step))
        axes[-1, column].set_xlim(history.first_step - margin, history.last_step + margin)
        axes[-1, column].xaxis.set_major_locator(MaxNLocator(5, integer=True))
    for axis, panel in zip(axes[1:, 0], panels, strict=False):
        axis.set_ylabel(panel.label)
        if panel.log:
            axis.set_yscale("log")
            axis.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
            axis.yaxis.set_major_formatter("{x:g}")
            axis.yaxis.set_minor_formatter(NullFormatter())
        elif panel.from_zero:
            axis.set_ylim(bottom=0)
    if labels is not None:
        axes[-1, 0].set_ylabel(f"{labels.measure}\n(never sent)")
    part.align_ylabels(list(axes[:, 0]))


def _draw_phases(axis: Axes, group: GroupHistory) -> None:
    """The strip of phases under the group's name."""
    for first, last, phase in _bands(group):
        axis.axvspan(first, last, color=PHASE_STYLES[phase].colour, linewidth=0)
    axis.set_yticks([])
    axis.tick_params(bottom=False, labelbottom=False)
    for spine in axis.spines.values():
        spine.set_visible(False)
    axis.set_title(group.group, fontsize=11, fontweight="bold", loc="left", pad=4)
    axis.set_title(
        f"{group.phase.lower()} since {group.since_step}", fontsize=8.5, color=SECOND, loc="right", pad=4
    )


def _draw_panel(axis: Axes, group: GroupHistory, panel: _Panel) -> None:
    for metric, _, line in panel.metrics:
        values_T = group.metric(metric)
        if values_T is not None:
            main = metric == panel.metrics[0][0]
            axis.plot(
                group.steps_T,
                values_T,
                line,
                color=INK if main else SECOND,
                linewidth=1.3 if main else 1.1,
            )
    if not _has(group, panel):
        axis.text(0.5, 0.5, "not defined for this group", transform=axis.transAxes, ha="center", color=SECOND)


def _draw_scores(axis: Axes, labels: Labels, group: str, comparison: Comparison | None) -> None:
    raw_T, smoothed_T = labels.raw(group), labels.smoothed(group)
    if raw_T is None or smoothed_T is None:
        axis.text(0.5, 0.5, "no labels for this group", transform=axis.transAxes, ha="center", color=SECOND)
        return
    axis.plot(labels.steps_T, raw_T, color=FAINT, linewidth=0.8)
    axis.plot(labels.steps_T, smoothed_T, color=INK, linewidth=1.3)
    if comparison is not None and comparison.chosen is not None:
        axis.plot(comparison.chosen.step, comparison.chosen.score, "o", color=INK, markersize=5, zorder=5)
    if comparison is not None:
        patience = comparison.loss_patience
        axis.plot(patience.step, patience.score, "x", color=INK, markersize=6, markeredgewidth=2, zorder=5)
    if labels.higher_is_better:
        axis.set_ylim(-0.03, 1.05)


def _draw_marks(axis: Axes, history: RunHistory, group: GroupHistory) -> None:
    for first, last, phase in _bands(group):
        axis.axvspan(first, last, color=PHASE_STYLES[phase].colour, alpha=0.14, linewidth=0, zorder=0)
    if group.best_checkpoint_step is not None:
        axis.axvline(group.best_checkpoint_step, color=INK, linewidth=1.4, zorder=2)
    if history.stop is not None and history.stop.stop_at_step is not None:
        axis.axvline(history.stop.stop_at_step, color=INK, linewidth=1.0, linestyle=":", zorder=2)
    axis.tick_params(length=2)
    axis.grid(axis="y", color="#E6E6E6", linewidth=0.6)
    axis.set_axisbelow(True)


def _bands(group: GroupHistory) -> list[tuple[int, int, str]]:
    """(first step, last step, phase), without gaps: a phase lasts until the next is said."""
    ends = [span.first_step for span in group.spans[1:]] + [group.spans[-1].last_step]
    return [(span.first_step, end, span.phase) for span, end in zip(group.spans, ends, strict=True)]


def _legend(history: RunHistory, labels: Labels | None) -> list[Patch | Line2D]:
    seen = {span.phase for group in history.groups for span in group.spans}
    handles: list[Patch | Line2D] = [
        Patch(color=style.colour, label=phase.lower())
        for phase, style in PHASE_STYLES.items()
        if phase in seen
    ]
    handles.append(
        Line2D([], [], color=INK, linewidth=1.4, marker="o", markersize=5, label="chosen checkpoint")
    )
    if history.stop is not None:
        handles.append(Line2D([], [], color=INK, linewidth=1.0, linestyle=":", label="stop"))
    for panel in _PANELS:
        if len(panel.metrics) > 1 and any(panel.metrics[1][0] in group.metrics for group in history.groups):
            handles += [
                Line2D([], [], color=colour, linestyle=line, label=f"{panel.name}: {words}")
                for colour, (_, words, line) in zip((INK, SECOND), panel.metrics, strict=True)
            ]
    if labels is not None:
        handles.append(
            Line2D(
                [],
                [],
                color=INK,
                marker="x",
                linestyle="",
                markeredgewidth=2,
                label="patience on training loss",
            )
        )
    return handles
