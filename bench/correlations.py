"""How metrics correlate with scores over many recorded runs: `python bench/correlations.py FOLDER …`.

A folder holds traces, NAME.npz, and labels/NAME.labels.npz (docs/traces.md). Groups are divided by their
labels: by test accuracy into those that generalize and those that never do, by validation loss into healthy
and overfitting ones. Prints Markdown tables with the step number as control (docs/correlate.md).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pathwatch.server.analysis.correlation import (
    CONTROL,
    Correlations,
    MetricCorrelation,
    Scope,
    correlation_table,
)
from pathwatch.server.analysis.correlation_words import tracks
from pathwatch.server.analysis.scores import targets
from pathwatch.server.analysis.series import trace_series
from pathwatch.server.report.labels import Labels, load_labels
from pathwatch.server.report.scores import load_scores
from pathwatch.server.traces import load_trace

LEARNED, NEVER = 0.5, 0.2
"""Best smoothed test accuracy from which a group generalizes, and below which it never does."""
OVERFIT = 1.02
"""Last validation loss over its minimum from which a group counts as overfitting."""
SCOPES: dict[str, Scope] = {
    "generalizing": "memorized",
    "partly": "memorized",
    "never": "memorized",
    "healthy": "run",
    "overfitting": "run",
}
"""Text groups of recorded runs are hardly ever memorized."""
MIRRORED = "path_consistency"
"""1 − `path_smoothness`: the same figures with the other sign."""


_COEFFICIENTS = {
    "Pearson": "pearson",
    "Spearman": "spearman",
    "partial Pearson": "partial_pearson",
    "partial Spearman": "partial_spearman",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgedGroup:
    """The correlations of one group of one run."""

    run: str
    kind: str
    correlations: Correlations


def kind_of(labels: Labels, group: str) -> str | None:
    """None for a group without labels."""
    smoothed_T = labels.smoothed(group)
    if smoothed_T is None:
        return None
    if not labels.higher_is_better:
        return "overfitting" if smoothed_T[-1] > OVERFIT * np.nanmin(smoothed_T) else "healthy"
    best = np.nanmax(smoothed_T)
    return "generalizing" if best >= LEARNED else "never" if best < NEVER else "partly"


def judge(trace_file: Path) -> list[JudgedGroup]:
    """All groups of a run that have correlations in the scope of their kind."""
    labels_file = trace_file.parent / "labels" / f"{trace_file.stem}.labels.npz"
    trace, labels = load_trace(trace_file), load_labels(labels_file)
    kinds = {group: kind for group in trace.groups if (kind := kind_of(labels, group)) is not None}
    series = trace_series(trace, range(len(trace.steps_T)))
    chosen, _ = targets(series, load_scores(labels_file))
    by_group = {(one.group, one.scope): one for one in correlation_table(chosen).by_group}
    return [
        JudgedGroup(run=trace.name, kind=kind, correlations=by_group[group, SCOPES[kind]])
        for group, kind in kinds.items()
        if (group, SCOPES[kind]) in by_group
    ]


def by_metric(groups: Sequence[JudgedGroup], kind: str) -> dict[str, list[MetricCorrelation]]:
    """The correlations of each metric in the groups of a kind in which it has one, the control included."""
    found: dict[str, list[MetricCorrelation]] = {}
    for group in groups:
        for metric in group.correlations.metrics if group.kind == kind else ():
            if metric.pearson is not None and metric.metric != MIRRORED:
                found.setdefault(metric.metric, []).append(metric)
    return found


def accuracy_table(groups: Sequence[JudgedGroup]) -> str:
    """Groups that generalize, and beside them those that never do."""
    learned, never = by_metric(groups, "generalizing"), by_metric(groups, "never")
    return _markdown(
        ("metric", *_COEFFICIENTS, "> step", "tracks", "never: Pearson", "never: tracks"),
        [
            (
                _shown(name),
                *(_spread(learned[name], coefficient) for coefficient in _COEFFICIENTS.values()),
                _share(learned[name], lambda metric: metric.above_step_pearson),
                _share(learned[name], tracks),
                _spread(never.get(name, []), "pearson"),
                _share(never.get(name, []), tracks),
            )
            for name in _ordered(learned)
        ],
    )


def loss_table(groups: Sequence[JudgedGroup]) -> str:
    """Healthy groups beside overfitting ones, against validation loss."""
    healthy, overfitting = by_metric(groups, "healthy"), by_metric(groups, "overfitting")
    names = [name for name in _ordered(healthy) if name in overfitting]
    return _markdown(
        ("metric", "healthy: Pearson", "healthy: Spearman", "overfitting: Pearson", "overfitting: Spearman"),
        [
            (
                _shown(name),
                *(_spread(healthy[name], coefficient) for coefficient in ("pearson", "spearman")),
                *(_spread(overfitting[name], coefficient) for coefficient in ("pearson", "spearman")),
            )
            for name in names
        ],
    )


def _markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (header, ["---"] * len(header), *rows))


def _shown(name: str) -> str:
    return "*step number* (control)" if name == CONTROL else f"`{name}`"


def _ordered(metrics: Mapping[str, Sequence[MetricCorrelation]]) -> list[str]:
    """The control first, then by falling median |Pearson|."""
    sizes = {
        name: abs(float(np.median([one.pearson.r for one in found if one.pearson is not None])))
        for name, found in metrics.items()
    }
    return sorted(metrics, key=lambda name: (name != CONTROL, -sizes[name]))


def _spread(metrics: Sequence[MetricCorrelation], coefficient: str) -> str:
    """Median [smallest, largest]."""
    known = [one.r for metric in metrics if (one := getattr(metric, coefficient)) is not None]
    return f"{np.median(known):+.2f} [{min(known):+.2f}, {max(known):+.2f}]" if known else "–"


def _share(metrics: Sequence[MetricCorrelation], holds: Callable[[MetricCorrelation], bool]) -> str:
    """`17/29`; nothing for the control, which is not held against itself."""
    if not metrics or metrics[0].metric == CONTROL:
        return ""
    return f"{sum(map(holds, metrics))}/{len(metrics)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    options = parser.parse_args()
    files = [
        file
        for folder in options.folders
        for file in sorted(folder.glob("*.npz"))
        if (folder / "labels" / f"{file.stem}.labels.npz").exists()
    ]
    if not files:
        parser.error("no traces with labels there")
    with ProcessPoolExecutor(options.jobs) as pool:
        judged = [group for groups in pool.map(judge, files) for group in groups]
    for kind, scope in SCOPES.items():
        groups = [group for group in judged if group.kind == kind]
        when = "after memorization" if scope == "memorized" else "whole run"
        print(f"{kind}: {len(groups)} groups of {len({group.run for group in groups})} runs, {when}")
    if any(group.kind == "generalizing" for group in judged):
        print(f"\nAgainst test accuracy:\n\n{accuracy_table(judged)}")
    if any(group.kind == "healthy" for group in judged):
        print(f"\nAgainst validation loss:\n\n{loss_table(judged)}")
    print(f"\n{len(files)} runs: {', '.join(file.stem for file in files)}")


if __name__ == "__main__":
    main()
