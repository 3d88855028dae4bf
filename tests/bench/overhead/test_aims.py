"""An aim is met or missed only where the interval says so."""

from __future__ import annotations

import pytest

from bench.overhead.aims import at_most, below
from bench.overhead.ratios import Ratio


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [(0.99, 1.004, "met"), (0.99, 1.02, "undecided"), (1.012, 1.02, "missed"), (1.0, 1.01, "met")],
)
def test_a_limit_within_the_interval_decides_nothing(low: float, high: float, verdict: str) -> None:
    assert at_most(Ratio((low + high) / 2, low, high), 1.01) == verdict


@pytest.mark.parametrize(
    ("low", "high", "verdict"), [(1.0, 1.01, "met"), (1.04, 1.06, "missed"), (1.0, 1.03, "undecided")]
)
def test_intervals_that_overlap_decide_nothing(low: float, high: float, verdict: str) -> None:
    assert below(Ratio((low + high) / 2, low, high), Ratio(1.03, 1.02, 1.035)) == verdict
