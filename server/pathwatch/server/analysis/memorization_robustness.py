"""Do the limits of memorization matter? t* and D_path under other ε and δ (paper §E.3)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from pathwatch.server.analysis.cohorts import GroupCohorts, group_cohorts
from pathwatch.server.analysis.series_correlation import series_correlation
from pathwatch.server.metrics.distance import PathDistance, path_distance
from pathwatch.server.metrics.pathways import pathways, rank_experts
from pathwatch.server.metrics.summary import MetricSettings
from pathwatch.server.traces import Trace

FACTORS = (0.5, 1.0, 2.0)
"""What ε and δ are multiplied with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitVariant:
    """Memorization of a group under one pair of limits."""

    epsilon_factor: float
    delta_factor: float
    epsilon: float
    delta: float
    memorized_samples: int
    median_step: float | None
    """Median t*; None where no sample is memorized."""
    path_distance_P: NDArray[np.float64]
    """D_path of the samples memorized by each of the P log points asked for; NaN below two samples."""
    spearman: float | None
    """Rank correlation of that series with the one under the limits as they are."""


def limit_variants(
    trace: Trace, cohorts: GroupCohorts, points: Sequence[int], settings: MetricSettings
) -> tuple[LimitVariant, ...]:
    """All combinations of `FACTORS` for ε and δ of a group, ε first; none where the group has no ε."""
    epsilon, delta = cohorts.epsilon, cohorts.delta
    if epsilon is None:
        return ()
    factors = list(product(FACTORS, FACTORS))
    variants = [
        group_cohorts(
            trace, cohorts.group, epsilon=epsilon_factor * epsilon, delta=delta_factor * delta, limit=1
        )
        for epsilon_factor, delta_factor in factors
    ]
    distances_VP = _distances(trace, variants, points, settings)
    as_is_P = distances_VP[factors.index((1.0, 1.0))]
    return tuple(
        LimitVariant(
            epsilon_factor=epsilon_factor,
            delta_factor=delta_factor,
            epsilon=epsilon_factor * epsilon,
            delta=delta_factor * delta,
            memorized_samples=variant.memorized_samples,
            median_step=variant.median_step,
            path_distance_P=distances_P,
            spearman=_spearman(distances_P, as_is_P),
        )
        for (epsilon_factor, delta_factor), variant, distances_P in zip(
            factors, variants, distances_VP, strict=True
        )
    )


def _spearman(distances_P: NDArray[np.float64], as_is_P: NDArray[np.float64]) -> float | None:
    correlation = series_correlation(distances_P, as_is_P)
    return None if correlation is None else correlation.spearman.r


def _distances(
    trace: Trace, variants: Sequence[GroupCohorts], points: Sequence[int], settings: MetricSettings
) -> NDArray[np.float64]:
    """[V, P] D_path of the samples memorized by each point under each variant's limits."""
    group = trace.groups.index(variants[0].group)
    distances_VP = np.full((len(variants), len(points)), np.nan)
    for at, point in enumerate(points):
        weights_NLK = trace.weights_TGNLK[point, group].astype(np.float32)
        pathways_N = pathways(rank_experts(weights_NLK), settings.thresholds[0])
        known: dict[bytes, PathDistance | None] = {}  # Many limits name the same samples.
        for variant, cohorts in enumerate(variants):
            samples_M = cohorts.memorized_by(int(trace.steps_T[point]))
            key = samples_M.tobytes()
            if key not in known:
                known[key] = path_distance([pathways_N[sample] for sample in samples_M], settings.pair_budget)
            distance = known[key]
            if distance is not None:
                distances_VP[variant, at] = distance.mean
    return distances_VP
