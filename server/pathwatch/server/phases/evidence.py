"""What the detector remembers of a window: the losses, and the routing statistics with their resamples."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from rapidfuzz.distance import Levenshtein
from rapidfuzz.process import cpdist

from pathwatch.server.metrics.arrays import Floats, layer_blocks
from pathwatch.server.metrics.pairs import within_pairs
from pathwatch.server.metrics.window import WindowArrays
from pathwatch.server.phases.resampling import (
    log_affinity,
    log_effective_dimension,
    log_pair_mean,
    resample_weights,
)
from pathwatch.server.phases.verdict import Evidence

MIN_SAMPLES = 16
"""Fewer samples say nothing about routing."""
MIN_TARGET_PAIRS = 40
"""Pairs of samples with one target below which the affinity is silent (docs/science.md: 60 misled, with an
estimate of its error 40 do not)."""
_DISTANCE_PAIRS = 2048
_FEWEST_PAIRS = 128
_LONG_PATHWAYS = 4096
"""Layers times experts above which fewer pairs are compared: the longer pathways are, the less pairs differ
and, by the square, the more each costs. It depends on the model alone, so that the pairs stay the same."""
_RIDGE = 1e-2
"""λ of the effective dimension, the paper's."""
_THRESHOLD = 0.7
"""τ of the pathways, the paper's."""
_FLOOR = 0.4
"""x = log(K·g + 0.4): steady where experts have next to no weight, logarithmic where they matter."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """A window's evidence, typed. Statistics are logs, [B]: the estimate, then its resamples."""

    sample_ids_N: NDArray[np.int64]
    losses_N: NDArray[np.float64]
    """Only samples that have a loss."""
    visits_N: NDArray[np.int32]
    """-1 = not known."""
    sharing_B: NDArray[np.float64] | None
    """What falls when samples come to share pathways: the last layer's target affinity, or, without targets,
    the mean of effective dimension and normalized distance. None = too few samples."""
    depth_B: NDArray[np.float64] | None
    """The same over all layers; settles later than the last."""
    dimension_B: NDArray[np.float64] | None
    """Effective dimension."""
    by_target: bool
    """Whether `sharing_B` is a target affinity, which resists being dragged along."""

    def same_as(self, other: Reading) -> bool:
        """Whether both hold the same samples with the same losses, visits and routing."""
        return (
            _same(self.sample_ids_N, other.sample_ids_N)
            and _same(self.losses_N, other.losses_N)
            and _same(self.visits_N, other.visits_N)
            and _same(self.dimension_B, other.dimension_B)
            and _same(self.sharing_B, other.sharing_B)
        )


def measure(window: WindowArrays) -> Evidence:
    """The evidence of a window; a few KB."""
    with_loss_N = np.isfinite(window.losses_N)
    evidence: dict[str, NDArray[np.generic]] = {
        "sample_ids": window.sample_ids_N[with_loss_N],
        "losses": window.losses_N[with_loss_N].astype(np.float32),
    }
    if window.visits_N is not None:
        evidence["visits"] = window.visits_N[with_loss_N]
    if len(window.sample_ids_N) >= MIN_SAMPLES:
        evidence |= _routing_evidence(window)
    return evidence


def read(evidence: Evidence) -> Reading:
    """Evidence as `measure` made it, perhaps long ago and stored since."""
    losses_N = evidence["losses"].astype(np.float64)
    dimension_B = _floats(evidence, "log_dimension")
    sharing_B, depth_B = _floats(evidence, "log_affinity"), _floats(evidence, "log_deep_affinity")
    by_target = sharing_B is not None
    distance_B = _floats(evidence, "log_distance")
    if distance_B is not None and dimension_B is not None:
        sharing_B = depth_B = (distance_B + dimension_B) / 2
    return Reading(
        sample_ids_N=evidence["sample_ids"].astype(np.int64),
        losses_N=losses_N,
        visits_N=evidence["visits"].astype(np.int32)
        if "visits" in evidence
        else np.full(len(losses_N), -1, dtype=np.int32),
        sharing_B=sharing_B,
        depth_B=depth_B,
        dimension_B=dimension_B,
        by_target=by_target,
    )


def _routing_evidence(window: WindowArrays) -> dict[str, NDArray[np.generic]]:
    weights_BN = resample_weights(window.sample_ids_N)
    found = {"log_dimension": log_effective_dimension(window.carrying_routing.dimension(_RIDGE), weights_BN)}
    targets_N = window.targets_N
    if targets_N is not None and _same_target_pairs(targets_N) >= MIN_TARGET_PAIRS:
        weights_NLK = window.carrying_weights_NLK
        found["log_affinity"] = log_affinity(_positions(weights_NLK[:, -1:]), targets_N, weights_BN)
        found["log_deep_affinity"] = log_affinity(_positions(weights_NLK), targets_N, weights_BN)
    elif targets_N is None or (targets_N < 0).all():
        found["log_distance"] = _log_normalized_distance(window, weights_BN)
    return {name: values_B.astype(np.float32) for name, values_B in found.items()}


def _positions(weights_NLK: Floats) -> Iterator[Floats]:
    """Where samples stand for the affinity, some layers at a time: x = log(K·g + `_FLOOR`) [N, l·K].

    Of large models (`precision`) in float32: good to 1e-6.
    """
    experts = weights_NLK.shape[2]
    for block_ND in layer_blocks(weights_NLK):
        block_ND *= experts
        block_ND += _FLOOR
        yield np.log(block_ND, out=block_ND)


def _log_normalized_distance(window: WindowArrays, weights_BN: NDArray[np.float64]) -> NDArray[np.float64]:
    """Log of D_path divided by the longer pathway of each pair (docs/metrics.md), over at most 2048 pairs."""
    (sequences,) = window.carrying_routing.pathways([_THRESHOLD])
    size = window.weights_NLK[0].size
    share = min(1.0, _LONG_PATHWAYS / size) ** 2
    first_P, second_P = within_pairs(len(sequences), max(_FEWEST_PAIRS, int(_DISTANCE_PAIRS * share)))
    distances_P = cpdist(
        [sequences[i] for i in first_P],
        [sequences[i] for i in second_P],
        scorer=Levenshtein.normalized_distance,
        dtype=np.float64,
    )
    return log_pair_mean(distances_P, first_P, second_P, weights_BN)


def _same_target_pairs(targets_N: NDArray[np.int32]) -> int:
    counts = np.unique(targets_N[targets_N >= 0], return_counts=True)[1]
    return int((counts * (counts - 1) // 2).sum())


def _floats(evidence: Evidence, name: str) -> NDArray[np.float64] | None:
    return evidence[name].astype(np.float64) if name in evidence else None


def _same(mine: NDArray[np.generic] | None, theirs: NDArray[np.generic] | None) -> bool:
    if mine is None or theirs is None:
        return mine is theirs
    return bool(np.array_equal(mine, theirs))
