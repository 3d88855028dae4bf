"""Choosing samples by hash: the same ones on every rank, after every restart, with every library version."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Indices: TypeAlias = NDArray[np.int64]
Groups: TypeAlias = Sequence[str | None] | Callable[[int], str | None]
"""Data group of every sample, by its index in the dataset; None = in none."""


def members_of(groups: Groups, indices_N: Indices) -> dict[str, Indices]:
    """Group name → those of the indices that are in it, ascending; names in alphabetical order.

    Raises:
        ValueError: fewer groups are told than there are samples, or none of the samples is in a group.
    """
    if not callable(groups) and len(indices_N) and len(groups) <= int(indices_N.max()):
        raise ValueError(
            f"groups names {len(groups)} samples, the dataset has one with index {int(indices_N.max())}: "
            "give the group of every sample, None where it is in none"
        )
    found: dict[str, list[int]] = {}
    for index in indices_N.tolist():
        name = groups(index) if callable(groups) else groups[index]
        if name is not None:
            found.setdefault(name, []).append(index)
    if not found:
        raise ValueError("groups puts no sample in a group")
    return {name: np.sort(np.array(found[name], dtype=np.int64)) for name in sorted(found)}


def smallest_by_hash(indices_N: Indices, count: int, seed: int) -> Indices:
    """The `count` indices of smallest hash, in the order of their hashes; all if there are fewer."""
    hashes_N = _hashes(indices_N, seed)
    if count < len(indices_N):
        kept = np.argpartition(hashes_N, count)[:count]
        indices_N, hashes_N = indices_N[kept], hashes_N[kept]
    return indices_N[np.lexsort((indices_N, hashes_N))]


def _hashes(indices_N: Indices, seed: int) -> NDArray[np.uint64]:
    """SplitMix64 of index and seed (Steele, Lea and Flood 2014), vectorized."""
    return _mixed(indices_N.astype(np.uint64) ^ _mixed(np.array([seed % (1 << 64)], dtype=np.uint64)))


def _mixed(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
