"""What others do: every pair of pathways in a Python loop with RapidFuzz (paper §4.1)."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from rapidfuzz.distance import Levenshtein


def mean_distance(pathways_N: Sequence[Sequence[Hashable]]) -> float:
    """Mean Levenshtein distance over all unordered pairs."""
    total = pairs = 0
    for i, first in enumerate(pathways_N):
        for second in pathways_N[i + 1 :]:
            total += Levenshtein.distance(first, second)
            pairs += 1
    return total / pairs


def as_numbers(pathway: str) -> list[int]:
    """A pathway as it is written down first: expert numbers, and one more number between layers."""
    return [ord(symbol) for symbol in pathway]
