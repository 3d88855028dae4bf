"""What is published of a run's groups: the first ones each for itself, those beyond the limit as one."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from pathwatch.server.engine.view import RunView
from pathwatch.server.phases.verdict import Phase
from pathwatch.v1 import signal_pb2

OTHER = "other"
"""Name of what groups beyond the limit are folded into; a group that is really called so goes with them."""

_WEIGHT = "window_samples"
_SUMS = frozenset({"window_samples", "path_consistency_samples", "same_target_pairs"})
_MEANS = frozenset(
    {
        "path_distance",
        "path_distance_normalized",
        "path_consistency",
        "path_smoothness",
        "adjacent_cosine",
        "routing_entropy",
        "train_loss",
        "unseen_loss",
        "loss_gap",
        "memorized_ratio",
    }
)
_THRESHOLD_MEAN = re.compile(r"path_distance_tau_\d+_\d+")
_STANDARD_ERRORS: Mapping[str, str] = {
    "path_distance_stderr": "path_distance",
    "loss_gap_stderr": "loss_gap",
}
"""Of which mean each is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupState:
    """What is published of a group, or of several in one. None and empty = not known, not published."""

    name: str
    metrics: Mapping[str, float]
    """Of the newest window."""
    layer_path_distance: Sequence[float]
    window_step: int | None
    """Last step of the newest window."""
    window_partial: bool
    phase: Phase | None
    since_step: int | None
    """Step since which it is in the phase."""
    best_checkpoint_step: int | None
    phase_changes: int


def folded_names(groups: Sequence[str], most: int) -> tuple[list[str], list[str]]:
    """The groups that are published, and those that are folded; `groups` in the order they came.

    Of more than `most` groups the later ones are folded: the first keep their series, come what may.
    """
    own, folded = list(groups[:most]), list(groups[most:])
    if folded and OTHER in own:
        own.remove(OTHER)
        folded.append(OTHER)
    return own, folded


def group_states(view: RunView, signal: signal_pb2.Signal, most: int) -> list[GroupState]:
    """By name, what is folded at the end; `signal` as it reads now."""
    own, folded = folded_names(view.groups, most)
    statuses = {status.group: status for status in signal.groups}
    states = [_state(view, statuses.get(group), group) for group in sorted(own)]
    if folded:
        states.append(fold([_state(view, statuses.get(group), group) for group in folded]))
    return states


def fold(states: Sequence[GroupState]) -> GroupState:
    """Several groups as one.

    Counts add up; means are weighted by the samples of the windows, and so are standard errors, in
    quadrature, as samples of different groups are independent. The phase is the one they have in common,
    else UNKNOWN. The window is as old as the oldest, and partial where one is. What nothing honest can be
    said of is left out: ratios, effective dimensions, loads, metrics of plug-ins, best checkpoints.
    """
    phases = {state.phase for state in states if state.phase is not None}
    common = next(iter(phases)) if len(phases) == 1 else None
    since = [state.since_step for state in states if state.since_step is not None]
    steps = [state.window_step for state in states if state.window_step is not None]
    return GroupState(
        name=OTHER,
        metrics=_folded_metrics([state.metrics for state in states]),
        layer_path_distance=_folded_layers(states),
        window_step=min(steps, default=None),
        window_partial=any(state.window_partial for state in states),
        phase=(common or Phase.UNKNOWN) if phases else None,
        since_step=max(since, default=None) if common is not None else None,
        best_checkpoint_step=None,
        phase_changes=sum(state.phase_changes for state in states),
    )


def _state(view: RunView, status: signal_pb2.GroupStatus | None, group: str) -> GroupState:
    window = view.windows.get(group)
    has_best = status is not None and status.HasField("best_checkpoint_step")
    return GroupState(
        name=group,
        metrics=window.metrics if window else {},
        layer_path_distance=window.layer_path_distance if window else (),
        window_step=window.step if window else None,
        window_partial=window is not None and window.partial,
        phase=Phase(status.phase) if status else None,
        since_step=status.since_step if status else None,
        best_checkpoint_step=status.best_checkpoint_step if status and has_best else None,
        phase_changes=view.phase_changes.get(group, 0),
    )


def _folded_metrics(windows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    folded: dict[str, float] = {}
    for name in sorted({name for window in windows for name in window}):
        with_it = [window for window in windows if name in window]
        if name in _SUMS:
            folded[name] = sum(window[name] for window in with_it)
        elif name in _MEANS or _THRESHOLD_MEAN.fullmatch(name):
            mean = _weighted_mean((window[name], window.get(_WEIGHT, 0.0)) for window in with_it)
            if mean is not None:
                folded[name] = mean
        elif name in _STANDARD_ERRORS:
            error = _weighted_error(windows, of=_STANDARD_ERRORS[name], error=name)
            if error is not None:
                folded[name] = error
    return folded


def _weighted_mean(weighted: Iterable[tuple[float, float]]) -> float | None:
    pairs = list(weighted)
    total = math.fsum(weight for _, weight in pairs)
    return math.fsum(value * weight for value, weight in pairs) / total if total > 0 else None


def _weighted_error(windows: Sequence[Mapping[str, float]], *, of: str, error: str) -> float | None:
    """Standard error of the weighted mean; None where one of its parts has none."""
    parts = [window for window in windows if of in window]
    if not all(error in window for window in parts):
        return None
    weights = [window.get(_WEIGHT, 0.0) for window in parts]
    total = math.fsum(weights)
    if total <= 0:
        return None
    return math.hypot(*(weight * part[error] for weight, part in zip(weights, parts, strict=True))) / total


def _folded_layers(states: Sequence[GroupState]) -> list[float]:
    parts = [state for state in states if state.layer_path_distance]
    weights = [state.metrics.get(_WEIGHT, 0.0) for state in parts]
    layers = []
    for values in zip(*(state.layer_path_distance for state in parts), strict=True):
        mean = _weighted_mean(zip(values, weights, strict=True))
        if mean is None:
            return []
        layers.append(mean)
    return layers
