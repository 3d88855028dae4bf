"""Which test a group of training data belongs to, by what the texts are about (paper B.1)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupEmbeddings:
    """What the texts of one group are about. M texts."""

    vectors_MD: NDArray[np.floating]
    ids_M: NDArray[np.int64] | None
    """Sample id of each text; None where they are not given."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pairing:
    """Groups of training data and tests. A groups, B tests."""

    groups: tuple[str, ...]
    tests: tuple[str, ...]
    similarity_AB: NDArray[np.float64]
    """Mean cosine over all pairs of a training text and a test text; higher = closer."""
    assigned: Mapping[str, str]
    """Group → its test, each test once; the larger side has some that no partner is left for."""

    def similarity(self, group: str, test: str) -> float:
        return float(self.similarity_AB[self.groups.index(group), self.tests.index(test)])


def pair(train: Mapping[str, NDArray[np.floating]], test: Mapping[str, NDArray[np.floating]]) -> Pairing:
    """The one-to-one assignment of the greatest total similarity (Hungarian algorithm; SciPy).

    `train` and `test`: embeddings [M, D] of the texts of each group, of any length but zero. Raises
    ValueError where a side is empty or the embeddings do not fit each other.
    """
    if not train or not test:
        raise ValueError("pairing needs at least one group on each side")
    train_AD = np.stack([_mean_direction(group, vectors) for group, vectors in train.items()])
    test_BD = np.stack([_mean_direction(group, vectors) for group, vectors in test.items()])
    if train_AD.shape[1] != test_BD.shape[1]:
        raise ValueError(
            f"training embeddings have {train_AD.shape[1]} dimensions, test embeddings {test_BD.shape[1]}; "
            "both must come from the same model"
        )
    # The mean of all cosines is the product of the mean unit vectors.
    similarity_AB = train_AD @ test_BD.T
    groups, tests = tuple(train), tuple(test)
    rows, columns = linear_sum_assignment(similarity_AB, maximize=True)
    return Pairing(
        groups=groups,
        tests=tests,
        similarity_AB=similarity_AB,
        assigned={groups[row]: tests[column] for row, column in zip(rows, columns, strict=True)},
    )


def _mean_direction(group: str, vectors: NDArray[np.floating]) -> NDArray[np.float64]:
    vectors_MD = np.asarray(vectors, np.float64)
    if vectors_MD.ndim != 2 or 0 in vectors_MD.shape or not np.isfinite(vectors_MD).all():
        raise ValueError(f"group {group!r}: wanted finite embeddings [M, D], got shape {vectors_MD.shape}")
    lengths_M = np.linalg.norm(vectors_MD, axis=1)
    if not lengths_M.all():
        raise ValueError(f"group {group!r}: embedding {int(np.argmin(lengths_M))} has length zero")
    mean_D: NDArray[np.float64] = (vectors_MD / lengths_M[:, None]).mean(axis=0)
    return mean_D
