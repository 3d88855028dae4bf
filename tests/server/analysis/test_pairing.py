"""Pairing finds the assignment that brute force finds."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from pathwatch.server.analysis.pairing import pair

Vectors = dict[str, NDArray[np.float64]]


def texts(seed: int, names: str) -> Vectors:
    rng = np.random.default_rng(seed)
    return {name: rng.normal(size=(int(rng.integers(1, 6)), 5)) for name in names}


def mean_cosine(a_MD: NDArray[np.float64], b_MD: NDArray[np.float64]) -> float:
    cosines = [a @ b / (np.linalg.norm(a) * np.linalg.norm(b)) for a in a_MD for b in b_MD]
    return float(np.mean(cosines))


@given(st.integers(0, 2**32 - 1), st.integers(1, 4), st.integers(1, 4))
def test_the_assignment_is_one_to_one_and_the_best(seed: int, groups: int, tests: int) -> None:
    train, test = texts(seed, "abcd"[:groups]), texts(seed + 1, "wxyz"[:tests])
    found = pair(train, test)
    for group, other in itertools.product(train, test):
        assert found.similarity(group, other) == pytest.approx(mean_cosine(train[group], test[other]))
    assert len(found.assigned) == min(groups, tests) == len(set(found.assigned.values()))
    few, many = (list(train), list(test)) if groups <= tests else (list(test), list(train))
    best = max(
        sum(
            mean_cosine(train[a], test[b]) if groups <= tests else mean_cosine(train[b], test[a])
            for a, b in zip(few, chosen, strict=True)
        )
        for chosen in itertools.permutations(many, len(few))
    )
    assert sum(found.similarity(*one) for one in found.assigned.items()) == pytest.approx(best)


def test_the_whole_is_best_even_where_two_groups_want_the_same_test() -> None:
    train = {"a": np.array([[1.0, 0.0]]), "b": np.array([[1.0, 0.2]])}
    test = {"near": np.array([[1.0, 0.0]]), "far": np.array([[0.0, 1.0]])}
    assert pair(train, test).assigned == {"a": "near", "b": "far"}


@pytest.mark.parametrize(
    ("train", "test", "wrong"),
    [
        ({}, {"t": np.ones((1, 2))}, "at least one group"),
        ({"a": np.ones((1, 3))}, {"t": np.ones((1, 2))}, "3 dimensions, test embeddings 2"),
        ({"a": np.ones((0, 2))}, {"t": np.ones((1, 2))}, r"'a'.*\(0, 2\)"),
        (
            {"a": np.ones((1, 2))},
            {"t": np.array([[1.0, 1.0], [0.0, 0.0]])},
            "'t': embedding 1 has length zero",
        ),
        ({"a": np.full((1, 2), np.nan)}, {"t": np.ones((1, 2))}, "finite"),
    ],
)
def test_unusable_embeddings_are_refused(train: Vectors, test: Vectors, wrong: str) -> None:
    with pytest.raises(ValueError, match=wrong):
        pair(train, test)
