"""In which order the same job runs with and without what is measured, so that a noisy machine cancels out."""

from __future__ import annotations

from collections.abc import Sequence

BASELINE = "without"
BETWEEN_BASELINES = 2
"""Blocks between two blocks of the baseline: each has one of them right beside it."""


def one_round(variants: Sequence[str], number: int) -> list[str]:
    """The blocks of a round, which follow one of `BASELINE`: variants in turn, `BASELINE` after every two.

    Every other round runs backwards: what comes late in a round, or after another variant, does not always.
    """
    ordered = list(variants) if number % 2 == 0 else list(reversed(variants))
    return [
        name
        for start in range(0, len(ordered), BETWEEN_BASELINES)
        for name in (*ordered[start : start + BETWEEN_BASELINES], BASELINE)
    ]
