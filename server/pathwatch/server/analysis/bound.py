"""The part of the paper's generalization bound that routing alone decides (§4.4, Theorem 4.1), over a run.

The bound's variance term is σ²·d_eff(λ)/n. Its other terms are not computed: they depend on the unknown
target function (docs/bound.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

from pathwatch.server.analysis.windows import trace_windows
from pathwatch.server.metrics.dimension import effective_dimensions
from pathwatch.server.metrics.summary import MetricSettings
from pathwatch.server.traces import Trace

PUBLISHED_RIDGE = MetricSettings().ridge
"""λ of the published `effective_dimension`, by which the others are judged."""
RIDGES = (1e-4, 1e-3, PUBLISHED_RIDGE, 0.1, 1.0)
"""The sweep over λ."""
_FEWEST_POINTS = 3
"""Two points always agree or disagree wholly."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BoundSeries:
    """One group's effective dimension and variance term. P log points of the run, A values of λ."""

    group: str
    samples: int
    """n: samples of the group at each log point."""
    noise: float
    """σ², variance of the noise of the regression targets; 1 = the variance term in units of σ²."""
    ridges_A: tuple[float, ...]
    """λ, ascending; `PUBLISHED_RIDGE` is among them."""
    steps_P: NDArray[np.int64]
    dimensions_PA: NDArray[np.float64]
    """Effective dimension over all real tokens; lower = more shared."""

    @property
    def variance_PA(self) -> NDArray[np.float64]:
        """σ²·d_eff/n (Theorem 4.1); lower = less room for fitting noise."""
        return self.noise * self.dimensions_PA / self.samples

    def at(self, ridge: float) -> int:
        """Place of λ among `ridges_A`."""
        return self.ridges_A.index(ridge)


def bound_series(
    trace: Trace, *, ridges: Sequence[float] = RIDGES, noise: float = 1.0, every: int = 1
) -> tuple[BoundSeries, ...]:
    """Series of all groups, in the trace's order, at every `every`-th log point and the last.

    `PUBLISHED_RIDGE` is added to `ridges`. Raises `ValueError` unless all ridges and the noise are > 0.
    """
    if not all(value > 0 for value in (*ridges, noise)):
        raise ValueError(f"wanted ridges and noise > 0; got ridges {list(ridges)}, noise {noise}")
    ridges_A = tuple(sorted({*ridges, PUBLISHED_RIDGE}))
    last = len(trace.steps_T) - 1
    points = [*range(0, last, every), last]
    dimensions_PGA = np.array(
        [
            [
                effective_dimensions(window.weights_NLK, ridges_A)
                for window in trace_windows(trace, point).values()
            ]
            for point in points
        ]
    )
    return tuple(
        BoundSeries(
            group=group,
            samples=trace.samples,
            noise=noise,
            ridges_A=ridges_A,
            steps_P=trace.steps_T[points],
            dimensions_PA=dimensions_PGA[:, g],
        )
        for g, group in enumerate(trace.groups)
    )


def ridge_agreement(series: BoundSeries) -> tuple[float | None, ...]:
    """Spearman correlation of each λ's series with that of `PUBLISHED_RIDGE`: 1 = the same order over time.

    None below three points and where a series does not change at all.
    """
    published_P = series.dimensions_PA[:, series.at(PUBLISHED_RIDGE)]
    return tuple(_rank_correlation(other_P, published_P) for other_P in series.dimensions_PA.T)


def _rank_correlation(first_P: NDArray[np.float64], second_P: NDArray[np.float64]) -> float | None:
    if len(first_P) < _FEWEST_POINTS or np.ptp(first_P) == 0 or np.ptp(second_P) == 0:
        return None
    return float(spearmanr(first_P, second_P).statistic)
