import math
from collections import Counter
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rapidfuzz.distance import Levenshtein

from pathwatch.server.metrics import arrays, measured
from pathwatch.server.metrics.dimension import effective_dimension
from pathwatch.server.metrics.summary import MetricSettings, group_metrics
from pathwatch.server.phases import evidence
from pathwatch.server.phases.resampling import (
    RESAMPLES,
    log_affinity,
    log_effective_dimension,
    resample_weights,
)


def affinity_in_loops(positions, targets, weights):
    same = every = same_weight = every_weight = 0.0
    for i, j in combinations(range(len(positions)), 2):
        weight = weights[i] * weights[j]
        distance = float(((positions[i] - positions[j]) ** 2).sum())
        every, every_weight = every + weight * distance, every_weight + weight
        if targets[i] == targets[j] >= 0:
            same, same_weight = same + weight * distance, same_weight + weight
    return (same / same_weight) / (every / every_weight)


def dimension_by_eigenvalues(weights_NLK, sample_weights):
    flat = weights_NLK.reshape(len(weights_NLK), -1) * np.sqrt(sample_weights / sample_weights.sum())[:, None]
    eigenvalues = np.linalg.eigvalsh(flat @ flat.T / weights_NLK.shape[1])
    return float((eigenvalues / (eigenvalues + 1e-2)).sum())


@given(seed=st.integers(0, 2**32 - 1), samples=st.integers(4, 24), classes=st.integers(1, 12))
def test_affinity_and_its_resamples_equal_the_definition(seed, samples, classes):
    generator = np.random.default_rng(seed)
    positions = generator.normal(size=(samples, 5))
    targets = generator.integers(-1, classes, samples).astype(np.int32)
    targets[:2] = 0
    weights = resample_weights(generator.integers(0, 2**62, samples))
    found = log_affinity([positions[:, :2], positions[:, 2:]], targets, weights)
    for row in (0, 1, RESAMPLES):
        assert math.exp(found[row]) == pytest.approx(affinity_in_loops(positions, targets, weights[row]))


def test_of_large_models_positions_are_good_to_a_millionth(make_window, monkeypatch):
    window = make_window(0, samples=60, layers=12, shared=1.5)
    positions = np.log(window.weights_NLK.shape[2] * window.carrying_weights_NLK.astype(float) + 0.4)
    weights = resample_weights(window.sample_ids_N)
    expected = [
        [math.log(affinity_in_loops(some.reshape(60, -1), window.targets_N, weights[row])) for row in (0, 5)]
        for some in (positions[:, -1:], positions)
    ]
    for large_model in (arrays.LARGE_MODEL, window.weights_NLK[0].size - 1):
        monkeypatch.setattr(arrays, "LARGE_MODEL", large_model)
        found = evidence.measure(replace(window))
        for name, values in zip(("log_affinity", "log_deep_affinity"), expected, strict=True):
            assert found[name][[0, 5]] == pytest.approx(values, abs=1e-6)


@pytest.mark.parametrize(("samples", "experts"), [(160, 4), (160, 64)])
def test_effective_dimension_on_either_side_of_the_gram_matrix(make_window, samples, experts):
    weights_NLK = make_window(0, samples=samples, experts=experts, shared=1.0).weights_NLK.astype(float)
    weights = resample_weights(np.arange(samples))
    found = np.exp(log_effective_dimension(effective_dimension(weights_NLK, 1e-2), weights))
    exact = np.array([dimension_by_eigenvalues(weights_NLK, row) for row in weights])
    assert found[0] == pytest.approx(exact[0])
    # First order: resamples are the same up to the curvature, and so is the error they give.
    assert np.corrcoef(found[1:], exact[1:])[0, 1] > 0.9
    assert found[1:].std() == pytest.approx(exact[1:].std(), rel=0.35)


def test_a_sample_weighs_the_same_in_every_window():
    all_ids = np.arange(100, dtype=np.int64) * 7919
    some = np.sort(np.random.default_rng(0).choice(100, 30, replace=False))
    np.testing.assert_array_equal(resample_weights(all_ids)[:, some], resample_weights(all_ids[some]))


def test_resample_weights_are_standard_exponential():
    weights = resample_weights(np.arange(20_000))[1:]
    assert weights.mean() == pytest.approx(1.0, abs=0.01)
    assert weights.std() == pytest.approx(1.0, abs=0.02)
    assert abs(np.corrcoef(weights)[~np.eye(RESAMPLES, dtype=bool)]).max() < 0.05


def test_resampled_error_covers_that_of_drawing_other_samples():
    drawn = []
    errors = []
    for seed in range(40):
        generator = np.random.default_rng(seed)
        of_target = np.random.default_rng(99).normal(size=(10, 6))
        targets = np.repeat(np.arange(10), 10).astype(np.int32)
        positions = of_target[targets] + generator.normal(size=(100, 6))
        found = log_affinity([positions], targets, resample_weights(np.arange(100) + 1000 * seed))
        drawn.append(found[0])
        errors.append(found[1:].std(ddof=1))
    # Never too small, too large by up to √3 where pairs are noisy (see resampling).
    assert 0.9 < np.mean(errors) / np.std(drawn, ddof=1) < 1.9


@settings(max_examples=20)
@given(seed=st.integers(0, 1000))
def test_order_of_samples_is_irrelevant(seed):
    generator = np.random.default_rng(seed)
    positions = generator.normal(size=(20, 4))
    targets = generator.integers(0, 3, 20).astype(np.int32)
    ids = generator.integers(0, 2**62, 20)
    order = generator.permutation(20)
    straight = log_affinity([positions], targets, resample_weights(ids))
    shuffled = log_affinity([positions[order]], targets[order], resample_weights(ids[order]))
    np.testing.assert_allclose(straight, shuffled, rtol=1e-9)


def test_evidence_is_small_and_plain(make_window):
    window = make_window(0, samples=512, layers=16, experts=64, unseen_loss=2.0)
    found = evidence.measure(window)
    assert sum(array.nbytes for array in found.values()) < 12_000
    assert all(array.dtype.kind in "iuf" for array in found.values())


def test_measuring_changes_nothing_and_repeats_to_the_bit(make_window):
    window = make_window(3)
    before = window.weights_NLK.copy()
    first, second = evidence.measure(window), evidence.measure(window)
    assert first.keys() == second.keys()
    assert all(np.array_equal(first[name], second[name]) for name in first)
    np.testing.assert_array_equal(window.weights_NLK, before)


def test_target_tokens_are_preferred_where_they_differ(make_window):
    window = make_window(0)
    other = make_window(0, shared=2.0).weights_NLK
    by_target = evidence.read(evidence.measure(replace(window, target_weights_NLK=other)))
    plain = evidence.read(evidence.measure(replace(window, weights_NLK=other)))
    assert by_target.same_as(plain)


def test_too_few_pairs_with_one_target_keep_affinity_silent(make_window):
    window = make_window(0)
    few = np.where(window.targets_N < 1, window.targets_N, np.arange(96) + 100).astype(np.int32)
    reading = evidence.read(evidence.measure(replace(window, targets_N=few)))
    assert reading.sharing_B is None
    assert reading.dimension_B is not None


def test_without_targets_dimension_and_normalized_distance_stand_in(make_window):
    window = make_window(0, samples=20, targets=False)
    reading = evidence.read(evidence.measure(window))
    assert not reading.by_target
    sequences = []
    for sample in window.weights_NLK.astype(float):
        symbols = []
        for layer in sample:
            total = 0.0
            for expert in sorted(range(8), key=lambda k: (-layer[k], k)):
                symbols.append(expert)
                total += layer[expert]
                if total > 0.7:
                    break
            symbols.append("|")
        sequences.append(symbols[:-1])
    distances = [Levenshtein.distance(a, b) / max(len(a), len(b)) for a, b in combinations(sequences, 2)]
    dimension = dimension_by_eigenvalues(window.weights_NLK.astype(float), np.ones(20))
    expected = (math.log(np.mean(distances)) + math.log(dimension)) / 2
    assert reading.sharing_B[0] == pytest.approx(expected, rel=0.02)


def test_samples_without_a_loss_are_left_out_of_the_losses(make_window):
    window = make_window(0, visits=True)
    window.losses_N[3] = float("nan")
    reading = evidence.read(evidence.measure(window))
    assert len(reading.losses_N) == len(reading.sample_ids_N) == len(reading.visits_N) == 95
    assert window.sample_ids_N[3] not in reading.sample_ids_N


def test_what_metrics_found_out_is_not_found_out_again(make_window, monkeypatch):
    """Pathways and dimensions are most of the work."""
    counts = Counter()
    for name in ("pathways_at", "effective_dimension"):
        counted = getattr(measured, name)
        monkeypatch.setattr(
            measured,
            name,
            lambda *given, counted=counted, name=name: counts.update([name]) or counted(*given),
        )
    for targets in (True, False):
        window = make_window(0, samples=40, targets=targets)
        expected = evidence.measure(replace(window))
        counts.clear()
        group_metrics({"g": window}, None, MetricSettings())
        found = evidence.measure(window)
        assert counts == {"pathways_at": 1, "effective_dimension": 1}
        assert all(np.array_equal(found[name], expected[name]) for name in expected)


def test_of_long_pathways_fewer_pairs_say_as_much(make_window, monkeypatch):
    window = make_window(0, samples=96, layers=40, targets=False)
    every = evidence.read(evidence.measure(replace(window))).sharing_B
    monkeypatch.setattr(evidence, "_LONG_PATHWAYS", window.weights_NLK[0].size / 2)
    asked = Counter()
    cpdist = evidence.cpdist
    monkeypatch.setattr(
        evidence, "cpdist", lambda a, *rest, **named: asked.update(a) or cpdist(a, *rest, **named)
    )
    fewer = evidence.read(evidence.measure(replace(window))).sharing_B
    assert asked.total() == 2048 // 4
    assert fewer[0] == pytest.approx(every[0], abs=0.01)
