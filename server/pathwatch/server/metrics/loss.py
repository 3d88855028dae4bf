"""Losses of a window: on samples trained on, on samples not yet seen, and their gap (docs/metrics.md)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pathwatch.server.metrics.arrays import Ints


@dataclass(frozen=True, slots=True, kw_only=True)
class Losses:
    """Mean losses, nats; None where no sample defines them."""

    train: float | None
    """What training measures: over samples not known to be unseen, over all when every one is unseen."""
    unseen: float | None
    """Over samples with visits 0: held-out loss."""
    gap: float | None
    """Unseen minus seen (visits > 0); higher = more memorized."""
    gap_stderr: float | None
    """Standard error of the gap, the two means' errors added in squares; None below two samples of each."""


def losses(losses_N: NDArray[np.float64], visits_N: Ints | None) -> Losses:
    """Losses from finite `losses_N`; visits: 0 = not yet trained on, -1 = not known, None = not known of any.

    In a single pass every sample is unseen when its loss is taken, so training's own loss is unseen loss
    (progressive validation): `train` and `unseen` are then the same, and there is no gap.
    """
    finite_N = np.isfinite(losses_N)
    values = losses_N[finite_N].astype(np.float64)
    visits = np.full(len(values), -1) if visits_N is None else visits_N[finite_N]
    unseen, seen, not_unseen = values[visits == 0], values[visits > 0], values[visits != 0]
    return Losses(
        train=_mean(not_unseen if len(not_unseen) else values),
        unseen=_mean(unseen),
        gap=float(unseen.mean() - seen.mean()) if len(unseen) and len(seen) else None,
        gap_stderr=(
            math.sqrt(unseen.var(ddof=1) / len(unseen) + seen.var(ddof=1) / len(seen))
            if len(unseen) > 1 and len(seen) > 1
            else None
        ),
    )


def _mean(values: NDArray[np.float64]) -> float | None:
    return float(values.mean()) if len(values) else None
