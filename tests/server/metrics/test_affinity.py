"""Target affinity: golden values, plain loops over pairs, and where it is undefined."""

from __future__ import annotations

import itertools
import statistics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pathwatch.server.metrics.affinity import target_affinity


def affinity_by_hand(features, targets) -> tuple[float | None, int]:
    same, every = [], []
    known = [i for i, target in enumerate(targets) if target >= 0]
    for i, j in itertools.combinations(known, 2):
        square = sum((float(a) - float(b)) ** 2 for a, b in zip(features[i], features[j], strict=True))
        every.append(square)
        if targets[i] == targets[j]:
            same.append(square)
    if not same or statistics.fmean(every) == 0:
        return None, len(same)
    return statistics.fmean(same) / statistics.fmean(every), len(same)


def test_golden(golden):
    found = target_affinity(golden.inputs["weights"][:, -1], golden.inputs["targets"], min_pairs=1)
    assert found.affinity == pytest.approx(golden.expected["target_affinity_last_layer"], rel=1e-9)
    assert found.same_target_pairs == golden.expected["same_target_pairs"]


@given(st.integers(0, 10**6), st.integers(1, 12), st.integers(1, 5))
def test_matches_plain_loops(seed, n, experts):
    generator = np.random.default_rng(seed)
    features = generator.dirichlet(np.ones(experts), size=n).astype(np.float32)
    targets = generator.integers(-1, 3, size=n)
    affinity, pairs = affinity_by_hand(features, targets)

    found = target_affinity(features, targets, min_pairs=1)

    assert found.same_target_pairs == pairs
    if affinity is None:
        assert found.affinity is None
    else:
        assert found.affinity == pytest.approx(affinity, rel=1e-6)
    shuffled = generator.permutation(n)
    again = target_affinity(features[shuffled], targets[shuffled], min_pairs=1)
    assert again.affinity == pytest.approx(found.affinity)


def test_routing_that_depends_on_the_target_alone():
    targets = np.arange(60) % 4
    found = target_affinity(np.eye(4)[targets], targets)
    assert found.affinity == 0
    assert found.same_target_pairs == 4 * 15 * 14 // 2


def test_undefined_below_a_hundred_same_target_pairs():
    features = np.random.default_rng(0).dirichlet(np.ones(4), size=16)
    # 14 samples of one target: 91 pairs; 15: 105.
    below, above = (target_affinity(features, np.where(np.arange(16) < k, 5, -1)) for k in (14, 15))
    assert (below.affinity, below.same_target_pairs) == (None, 91)
    assert above.same_target_pairs == 105
    assert above.affinity == pytest.approx(1)


@pytest.mark.parametrize("n", [1, 40])
def test_undefined_when_all_samples_are_alike(n):
    # 1/3 is not exact in binary: the mean of equal rows must still be the row.
    assert target_affinity(np.full((n, 3), 1 / 3, np.float32), np.zeros(n, np.int32)).affinity is None


def test_undefined_without_any_target():
    found = target_affinity(np.eye(5), np.full(5, -1))
    assert (found.affinity, found.same_target_pairs) == (None, 0)
