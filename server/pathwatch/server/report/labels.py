"""Scores that the service never saw, for judging it afterwards: test accuracy or validation loss per group.

A labels file is an `.npz` without pickles: `steps [T]` int64, `groups [G]` str, and `test_acc [T, G]` or
`val_loss [T, G]` float. Accuracy is smoothed over five log points: the raw best of a run is mostly noise.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pathwatch.server.npz import NpzError, read_npz
from pathwatch.server.report.data import GroupHistory

SMOOTHING_POINTS = 5
PATIENCE_POINTS = 10
"""Points without improvement after which loss patience stops, a common default."""


class LabelsError(ValueError):
    """A file is not a labels file; the message is one line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Labels:
    """Scores over the run. T steps, G groups."""

    measure: str
    """`test accuracy` (higher = better) or `validation loss` (nats, lower = better)."""
    steps_T: NDArray[np.int64]
    groups: tuple[str, ...]
    scores_TG: NDArray[np.float64]

    @property
    def higher_is_better(self) -> bool:
        return self.measure == "test accuracy"

    def raw(self, group: str) -> NDArray[np.float64] | None:
        """[T] scores as measured, None for a group without labels."""
        return self.scores_TG[:, self.groups.index(group)] if group in self.groups else None

    def smoothed(self, group: str) -> NDArray[np.float64] | None:
        """[T] accuracy as a centred moving average, validation loss as it is; None without labels."""
        raw_T = self.raw(group)
        if raw_T is None or not self.higher_is_better:
            return raw_T
        return moving_average(raw_T, SMOOTHING_POINTS)


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgedCheckpoint:
    """A checkpoint and its score, smoothed where accuracy."""

    step: int
    score: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """The chosen checkpoint of one group beside those of other rules."""

    measure: str
    chosen: JudgedCheckpoint | None
    """None where the service chose none."""
    best: JudgedCheckpoint
    """The best of the whole run; needs the labels."""
    last: JudgedCheckpoint
    loss_patience: JudgedCheckpoint
    """Where patience on the training loss would have stopped."""


def load_labels(path: str | Path) -> Labels:
    """Raises `LabelsError`."""
    path = Path(path)
    try:
        arrays = read_npz(path)
    except NpzError as error:
        raise LabelsError(f"{path}: {error}") from None
    measures = {"test_acc": "test accuracy", "val_loss": "validation loss"}
    name = next((name for name in measures if name in arrays), None)
    if name is None or not {"steps", "groups"} <= arrays.keys():
        raise LabelsError(f"{path}: not a labels file: wanted `steps`, `groups` and `test_acc` or `val_loss`")
    steps_T, groups, scores_TG = arrays["steps"], arrays["groups"], arrays[name]
    shaped = steps_T.dtype.kind in "iu" and groups.dtype.kind == "U" and scores_TG.dtype.kind == "f"
    if not shaped or steps_T.ndim != 1 or groups.ndim != 1 or len(steps_T) == 0:
        raise LabelsError(f"{path}: wanted steps [T] integers, groups [G] text, {name} [T, G] floating point")
    if scores_TG.shape != (len(steps_T), len(groups)):
        raise LabelsError(
            f"{path}: {name} has shape {list(scores_TG.shape)}; wanted {[len(steps_T), len(groups)]}"
        )
    return Labels(
        measure=measures[name],
        steps_T=steps_T.astype(np.int64),
        groups=tuple(map(str, groups)),
        scores_TG=scores_TG.astype(np.float64),
    )


def moving_average(values_T: NDArray[np.float64], points: int) -> NDArray[np.float64]:
    """Centred mean over `points` values, over fewer at the ends; NaN values are left out."""
    half = points // 2
    padded = np.pad(values_T.astype(np.float64), half, constant_values=np.nan)
    windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * half + 1)
    known = np.isfinite(windows).sum(axis=1)
    sums = np.nansum(windows, axis=1)
    means_T: NDArray[np.float64] = np.full(len(values_T), np.nan)
    np.divide(sums, known, out=means_T, where=known > 0)
    return means_T


def loss_patience_step(steps_T: NDArray[np.int64], losses_T: NDArray[np.float64]) -> int:
    """Step at which patience on the training loss stops: `PATIENCE_POINTS` points without a new minimum
    of the loss averaged over the last `SMOOTHING_POINTS`; the last step if it never does."""
    best, waited = np.inf, 0
    for index, step in enumerate(steps_T):
        recent = losses_T[max(0, index + 1 - SMOOTHING_POINTS) : index + 1]
        recent = recent[np.isfinite(recent)]
        loss = recent.mean() if len(recent) else np.inf
        best, waited = (loss, 0) if loss < best else (best, waited + 1)
        if waited >= PATIENCE_POINTS:
            return int(step)
    return int(steps_T[-1])


def compare(history: GroupHistory, labels: Labels) -> Comparison | None:
    """None for a group without labels."""
    scores_T = labels.smoothed(history.group)
    if scores_T is None or not np.isfinite(scores_T).any():
        return None

    def judged(step: int) -> JudgedCheckpoint:
        """Score at the labelled step nearest to `step`."""
        index = int(np.argmin(np.abs(labels.steps_T - step)))
        return JudgedCheckpoint(step=step, score=float(scores_T[index]))

    best = int(np.nanargmax(scores_T) if labels.higher_is_better else np.nanargmin(scores_T))
    losses_T = history.metrics.get("train_loss", np.full(len(history.steps_T), np.nan))
    return Comparison(
        measure=labels.measure,
        chosen=None if history.best_checkpoint_step is None else judged(history.best_checkpoint_step),
        best=judged(int(labels.steps_T[best])),
        last=judged(int(labels.steps_T[-1])),
        loss_patience=judged(loss_patience_step(history.steps_T, losses_T)),
    )
