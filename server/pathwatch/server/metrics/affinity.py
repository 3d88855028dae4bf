"""Target affinity (ours): is routing closer for the same target? Lower = closer."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pathwatch.server.metrics.arrays import Floats, Ints

MIN_SAME_TARGET_PAIRS = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetAffinity:
    """Affinity and what it rests on."""

    affinity: float | None
    """1 = targets play no part, 0 = routing depends on the target alone; None where undefined."""
    same_target_pairs: int


def target_affinity(
    features_NF: Floats, targets_N: Ints, *, min_pairs: int = MIN_SAME_TARGET_PAIRS
) -> TargetAffinity:
    """Mean squared distance over pairs of samples with the same target, divided by that over all pairs.

    `features_NF` are one layer's (by default the last's) routing weights over target tokens. Samples
    without a target (-1) take no part in either mean. Undefined below `min_pairs` same-target pairs,
    and where all features are equal.
    """
    known_N = targets_N >= 0
    features = features_NF[known_N].astype(np.float64)
    _, classes, counts = np.unique(targets_N[known_N], return_inverse=True, return_counts=True)
    pairs = int((counts * (counts - 1) // 2).sum())
    if pairs < max(min_pairs, 1):
        return TargetAffinity(affinity=None, same_target_pairs=pairs)
    # Σ_{i<j} |x_i − x_j|² = n · Σ |x_i − mean|², so no pair need be formed.
    sums = np.zeros((len(counts), features.shape[1]))
    np.add.at(sums, classes, features)
    within = _squares(features - (sums / counts[:, None])[classes])
    same = float((counts[classes] * within).sum()) / pairs
    n = len(features)
    every = n * float(_squares(features - features.mean(axis=0)).sum()) / (n * (n - 1) / 2)
    return TargetAffinity(affinity=same / every if every > 0 else None, same_target_pairs=pairs)


def _squares(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    squares: NDArray[np.float64] = (rows**2).sum(axis=-1)
    return squares
