"""Small pieces of tables."""

from __future__ import annotations

import pytest

from pathwatch.server.cli.tables import number, sparkline


@pytest.mark.parametrize(
    ("values", "bars"),
    [
        ([], ""),
        ([3.0], "▁"),
        ([2.0, 2.0], "▁▁"),
        ([0.0, 7.0, 3.0], "▁█▄"),
        ([0.0, 0.0, 7.0, 7.0, 1.0, 3.0, 0.0, 0.0], "▁█▃▁"),
    ],
)
def test_a_sparkline_runs_from_the_smallest_to_the_largest(values: list[float], bars: str) -> None:
    assert sparkline(values, width=4) == bars


def test_an_undefined_number_is_a_dash() -> None:
    assert number({"loss": 0.12345}, "loss") == "0.123"
    assert number({"loss": float("nan")}, "loss") == "–"
    assert number({}, "loss") == "–"
