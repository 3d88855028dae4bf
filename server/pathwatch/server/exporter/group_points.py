"""Points of a run's groups: what their newest windows measured, and where they stand."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache

from pathwatch.server.exporter.families import Family, Labels, Point
from pathwatch.server.exporter.folding import GroupState
from pathwatch.server.exporter.names import METRIC_HELP, help_text, is_metric_name
from pathwatch.server.phases.verdict import Phase

LAYER_DISTANCE = Family(
    "layer_path_distance",
    "Path distance of one layer, in symbols; lower = more shared (paper Fig. 5). Only where asked for.",
)
WINDOW_STEP = Family("window_step", "Last optimizer step of the group's newest window; higher = newer.")
WINDOW_PARTIAL = Family(
    "window_partial", "1 where ranks were missing from the group's newest window, else 0; 0 = complete."
)
PHASE = Family(
    "group_phase", "1 for the phase a group is in, 0 for all others; UNKNOWN too while no data comes."
)
PHASE_SINCE = Family("group_phase_since_step", "Optimizer step since which the group is in its phase.")
BEST = Family(
    "best_checkpoint_step",
    "Step of the best registered checkpoint so far; the series with an empty group is the overall one.",
)
PHASE_CHANGES = Family("phase_changes", "Changes of a group's phase since the server started.", "counter")


_METRICS = {name: Family(name, text) for name, text in METRIC_HELP.items()}

FAMILIES = (
    *_METRICS.values(),
    *(LAYER_DISTANCE, WINDOW_STEP, WINDOW_PARTIAL, PHASE, PHASE_SINCE, BEST, PHASE_CHANGES),
)


def group_points(run: Labels, groups: Sequence[GroupState]) -> Iterator[Point]:
    """All points of the groups of one run."""
    for group in groups:
        labels = run.and_("group", group.name)
        for name, value in group.metrics.items():
            if family := _metric_family(name):
                yield family, labels, value
        for layer, value in enumerate(group.layer_path_distance):
            yield LAYER_DISTANCE, labels.and_("layer", str(layer)), value
        if group.window_step is not None:
            yield WINDOW_STEP, labels, group.window_step
            yield WINDOW_PARTIAL, labels, int(group.window_partial)
        if group.phase is not None:
            for phase in Phase:
                yield PHASE, labels.and_("phase", phase.name), int(phase is group.phase)
            yield PHASE_CHANGES, labels, group.phase_changes
        if group.since_step is not None:
            yield PHASE_SINCE, labels, group.since_step
        if group.best_checkpoint_step is not None:
            yield BEST, labels, group.best_checkpoint_step


@cache
def _metric_family(name: str) -> Family | None:
    """None where a plug-in's name cannot be published. There are as many as plug-ins are installed."""
    if name in _METRICS:
        return _METRICS[name]
    return Family(name, help_text(name)) if is_metric_name(name) else None
