"""The variance term of Theorem 4.1 over a run: against plain linear algebra, and as ridge regression."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pathwatch.server.analysis.bound import PUBLISHED_RIDGE, RIDGES, bound_series, ridge_agreement
from pathwatch.server.analysis.windows import trace_windows
from pathwatch.server.metrics.summary import MetricSettings, group_metrics
from pathwatch.server.traces import Trace, load_trace

TRACES = Path(__file__).parents[2] / "data" / "traces"


@pytest.fixture(scope="module")
def make_trace() -> Callable[..., Trace]:
    """Random routing, ever softer from one log point to the next unless weights are given."""

    def make(
        points: int = 5, samples: int = 7, *, seed: int = 0, weights: NDArray[np.floating] | None = None
    ) -> Trace:
        random = np.random.default_rng(seed)
        groups = ("code", "math")
        if weights is None:
            logits = random.normal(size=(points, len(groups), samples, 2, 4))
            exponentials = np.exp(logits * np.linspace(4, 1, points)[:, None, None, None, None])
            weights = exponentials / exponentials.sum(axis=-1, keepdims=True)
        return Trace(
            name="made",
            steps_T=10 * np.arange(points),
            groups=groups,
            losses_TGN=np.ones(weights.shape[:3], np.float32),
            weights_TGNLK=weights.astype(np.float32),
            meta={},
        )

    return make


def kernel(weights_NLK: NDArray[np.floating]) -> NDArray[np.float64]:
    n, layers, _ = weights_NLK.shape
    return np.einsum("ilk,jlk->ij", weights_NLK, weights_NLK, dtype=np.float64) / (n * layers)


@settings(max_examples=25)
@given(st.integers(0, 10**6), st.integers(1, 20), st.floats(0.01, 100))
def test_the_term_is_sigma_squared_trace_over_n(
    make_trace: Callable[..., Trace], seed: int, samples: int, noise: float
) -> None:
    trace = make_trace(3, samples, seed=seed)
    for g, series in enumerate(bound_series(trace, noise=noise)):
        assert (series.group, series.samples, series.ridges_A) == (trace.groups[g], samples, RIDGES)
        for p in range(3):
            H = kernel(trace.weights_TGNLK[p, g])
            for a, ridge in enumerate(RIDGES):
                smoother = np.linalg.solve(H + ridge * np.eye(samples), H)
                assert series.variance_PA[p, a] == pytest.approx(
                    noise * np.trace(smoother) / samples, rel=1e-6
                )


def test_it_bounds_what_ridge_regression_on_the_routing_makes_of_noise(
    make_trace: Callable[..., Trace],
) -> None:
    """Theorem 4.1's meaning: fit pure noise, and the fit's mean square stays under the term; it reaches it
    where nothing is shrunk."""
    samples, noise = 60, 2.0
    trace = make_trace(4, samples, seed=3)
    noise_NR = np.random.default_rng(1).normal(scale=np.sqrt(noise), size=(samples, 20_000))
    series = bound_series(trace, ridges=[1e-9, 0.1], noise=noise)[0]
    for p in range(4):
        features_ND = trace.weights_TGNLK[p, 0].astype(np.float64).reshape(samples, -1) / np.sqrt(2)
        for a, ridge in enumerate(series.ridges_A):
            moment_DD = features_ND.T @ features_ND / samples + ridge * np.eye(8)
            fitted_NR = features_ND @ np.linalg.solve(moment_DD, features_ND.T @ noise_NR / samples)
            fitted = np.square(fitted_NR).mean()
            assert fitted <= series.variance_PA[p, a] * 1.01
            if ridge == 1e-9:
                assert fitted == pytest.approx(series.variance_PA[p, a], rel=0.01)


def test_repeating_every_sample_halves_the_term(make_trace: Callable[..., Trace]) -> None:
    trace = make_trace(4, 6, seed=5)
    twice = make_trace(4, weights=np.repeat(trace.weights_TGNLK, 2, axis=2))
    for once, doubled in zip(bound_series(trace), bound_series(twice), strict=True):
        np.testing.assert_allclose(doubled.dimensions_PA, once.dimensions_PA, rtol=1e-6)
        np.testing.assert_allclose(doubled.variance_PA, once.variance_PA / 2, rtol=1e-6)


def test_the_published_ridge_gives_what_the_live_service_publishes() -> None:
    trace = load_trace(TRACES / "ol_pair_s0.npz")
    series = bound_series(trace, ridges=[0.5], every=20)
    assert series[0].ridges_A == (PUBLISHED_RIDGE, 0.5)
    assert series[0].steps_P.tolist() == [*trace.steps_T[0:-1:20], trace.steps_T[-1]]
    live = group_metrics(trace_windows(trace, 20), None, MetricSettings(max_pairs=16, min_pairs=16))
    for group in series:
        published = live[group.group].values["effective_dimension"]
        assert group.dimensions_PA[1, 0] == pytest.approx(published, rel=1e-9)


def spearman_by_hand(first: Sequence[float], second: Sequence[float]) -> float:
    """Without ties."""
    ranks = [np.argsort(np.argsort(values)) for values in (first, second)]
    return float(np.corrcoef(*ranks)[0, 1])


def test_agreement_is_the_rank_correlation_with_the_published_ridge(
    make_trace: Callable[..., Trace],
) -> None:
    series = bound_series(make_trace(12, 9, seed=2))[1]
    published = RIDGES.index(PUBLISHED_RIDGE)
    for a, agreement in enumerate(ridge_agreement(series)):
        assert agreement == pytest.approx(
            spearman_by_hand(series.dimensions_PA[:, a], series.dimensions_PA[:, published])
        )


def test_agreement_is_absent_where_nothing_can_agree(make_trace: Callable[..., Trace]) -> None:
    still = make_trace(5, weights=np.full((5, 2, 6, 2, 4), 0.25))
    assert ridge_agreement(bound_series(still)[0]) == (None,) * len(RIDGES)
    assert ridge_agreement(bound_series(make_trace(2))[0]) == (None,) * len(RIDGES)


@pytest.mark.parametrize("wrong", [{"ridges": [0.1, 0.0]}, {"noise": -1.0}, {"noise": float("nan")}])
def test_ridges_and_noise_are_positive(make_trace: Callable[..., Trace], wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="> 0"):
        bound_series(make_trace(), **wrong)
