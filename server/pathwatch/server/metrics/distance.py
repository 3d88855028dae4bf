"""Pathway distance D_path (paper §4.1, §E.1, §E.4): how far apart pathways are; lower = more shared."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from rapidfuzz.distance import Levenshtein
from rapidfuzz.process import cdist, cpdist

from pathwatch.server.metrics.pairs import PairBudget, PairIndices, cross_pairs, sample_pairs, within_pairs


@dataclass(frozen=True, slots=True, kw_only=True)
class PathDistance:
    """Mean Levenshtein distance over unordered pairs of different samples of a group."""

    mean: float
    """Symbols that differ, separators included."""
    normalized: float
    """Mean of the distance divided by the longer length of the pair, in [0, 1]."""
    stderr: float | None
    """Standard error of `mean` as an estimate for the group that the samples were drawn from.

    Pairs that share a sample are not independent, so it is the delete-one jackknife over *samples* of the
    U-statistic: leave out a sample with all its pairs, and see how the mean moves. Where pairs were sampled
    it includes the error of that. What is particular to single pairs counts double: rather too large than
    too small. None below three samples.
    """
    pairs: int
    """Pairs compared, each distinct pair of pathways once."""
    exact: bool
    """All pairs were taken into account."""
    spread: float | None
    """Standard deviation of the distances compared, relative to `mean`; None where exact or `mean` is 0."""


def path_distance(pathways_N: Sequence[str], budget: PairBudget) -> PathDistance | None:
    """D_path of a group (§4.1) from its samples' pathways; None below two samples.

    Equal pathways are compared once and weighted. Exact while the pairs of distinct pathways fit the budget,
    else over a balanced sample of all pairs. The sampled mean depends on the samples' order, the exact one
    does not.
    """
    if len(pathways_N) < 2:
        return None
    counted = Counter(pathways_N)
    if len(counted) * (len(counted) - 1) // 2 <= budget.max_pairs:
        return _exact(counted)
    n = len(pathways_N)
    known = _Distinct(pathways_N)
    pairs, values_PV = sample_pairs(
        within_pairs(n, budget.max_pairs), lambda pairs: _compare(known, known, pairs), budget
    )
    mean, normalized = values_PV.mean(axis=0).tolist()
    sums_N, pairs_N = np.zeros(n), np.zeros(n)
    for side_P in pairs:
        sums_N += np.bincount(side_P, values_PV[:, 0], minlength=n)
        pairs_N += np.bincount(side_P, minlength=n)
    stderr = _jackknife(sums_N, pairs_N, np.ones(n))
    return PathDistance(
        mean=mean,
        normalized=normalized,
        stderr=stderr,
        pairs=len(values_PV),
        exact=False,
        spread=float(values_PV[:, 0].std()) / mean if mean > 0 else None,
    )


def cross_path_distance(
    pathways_N: Sequence[str], other_pathways_M: Sequence[str], budget: PairBudget
) -> float:
    """Mean distance over pairs of one sample from each of two groups, neither empty (§E.4)."""
    counted, other = Counter(pathways_N), Counter(other_pathways_M)
    if len(counted) * len(other) <= budget.max_pairs:
        distances_UV = cdist(sorted(counted), sorted(other), scorer=Levenshtein.distance, dtype=np.int32)
        total = _counts(counted) @ distances_UV @ _counts(other)
        return float(total / (len(pathways_N) * len(other_pathways_M)))
    firsts, seconds = _Distinct(pathways_N), _Distinct(other_pathways_M)
    _, values_PV = sample_pairs(
        cross_pairs(len(pathways_N), len(other_pathways_M), budget.max_pairs),
        lambda pairs: _compare(firsts, seconds, pairs),
        budget,
    )
    return float(values_PV[:, 0].mean())


def layer_path_distance(layers_LN: Sequence[Sequence[str]], budget: PairBudget) -> NDArray[np.float64] | None:
    """D_path [L] of each layer's own expert sequences (Fig. 5); None below two samples."""
    distances = [path_distance(pathways_N, budget) for pathways_N in layers_LN]
    means = [distance.mean for distance in distances if distance is not None]
    return np.array(means) if means else None


def _exact(counted: Counter[str]) -> PathDistance:
    distinct = sorted(counted)
    counts_U = _counts(counted)
    n = counts_U.sum()
    distances_UU = cdist(distinct, distinct, scorer=Levenshtein.distance, dtype=np.int32)
    lengths_U = np.array([len(pathway) for pathway in distinct])
    normalized_UU = distances_UU / np.maximum.outer(lengths_U, lengths_U)
    # Of each sample to all others; the distance to itself, and to its equals, is 0.
    sums_U = distances_UU @ counts_U
    return PathDistance(
        mean=float(counts_U @ sums_U / (n * (n - 1))),
        normalized=float(counts_U @ normalized_UU @ counts_U / (n * (n - 1))),
        stderr=_jackknife(sums_U, np.full(len(distinct), n - 1), counts_U),
        pairs=len(distinct) * (len(distinct) - 1) // 2,
        exact=True,
        spread=None,
    )


class _Distinct:
    """Samples' pathways, equal ones known as one."""

    def __init__(self, pathways_N: Sequence[str]) -> None:
        places = {pathway: place for place, pathway in enumerate(dict.fromkeys(pathways_N))}
        self.place_N = np.array([places[pathway] for pathway in pathways_N])
        self.pathways_U = list(places)
        self.lengths_U = np.array([len(pathway) for pathway in self.pathways_U])


def _compare(firsts: _Distinct, seconds: _Distinct, pairs: PairIndices) -> NDArray[np.float64]:
    """Distance and normalized distance [P, 2] of pairs of pathways; equal pairs are compared once."""
    first_P, second_P = firsts.place_N[pairs[0]], seconds.place_N[pairs[1]]
    if firsts is seconds:
        first_P, second_P = np.minimum(first_P, second_P), np.maximum(first_P, second_P)
    codes_Q, which_P = np.unique(first_P * len(seconds.pathways_U) + second_P, return_inverse=True)
    first_Q, second_Q = np.divmod(codes_Q, len(seconds.pathways_U))
    distances_Q = cpdist(
        [firsts.pathways_U[i] for i in first_Q],
        [seconds.pathways_U[j] for j in second_Q],
        scorer=Levenshtein.distance,
        dtype=np.int32,
    ).astype(np.float64)
    longer_Q = np.maximum(firsts.lengths_U[first_Q], seconds.lengths_U[second_Q])
    return np.stack([distances_Q, distances_Q / longer_Q], axis=-1)[which_P]


def _jackknife(
    sums_U: NDArray[np.float64], pairs_U: NDArray[np.float64], counts_U: NDArray[np.float64]
) -> float | None:
    """Delete-one jackknife standard error of a mean over pairs.

    Given per kind of sample, of which there are counts_U each: the sum of the values of the pairs that a
    sample is in, and the number of these pairs.
    """
    involved = pairs_U > 0
    sums, pairs, counts = sums_U[involved], pairs_U[involved], counts_U[involved]
    n = counts.sum()
    # Every pair is in the sums of two samples.
    left_U = (counts @ pairs) / 2 - pairs
    if n < 3 or (left_U <= 0).any():
        return None
    without_U = ((counts @ sums) / 2 - sums) / left_U
    deviations_U = without_U - (counts @ without_U) / n
    return math.sqrt((n - 1) / n * float(counts @ deviations_U**2))


def _counts(counted: Counter[str]) -> NDArray[np.float64]:
    return np.array([counted[pathway] for pathway in sorted(counted)], dtype=np.float64)
