"""A figure knows whether it is good enough, and how much worse than another."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.figures import Figure, Unit, read, told, write


def figure(value: float, *, higher_is_better: bool, aim: float | None = None) -> Figure:
    return Figure(
        name="made.up", value=value, unit=Unit.RATIO, higher_is_better=higher_is_better, aim=aim, detail="x"
    )


@pytest.mark.parametrize(
    ("value", "higher", "aim", "met"),
    [(0.6, True, 0.6, True), (0.59, True, 0.6, False), (1.0, False, 1.0, True), (1.01, False, 1.0, False)],
)
def test_an_aim_is_met_or_missed(value: float, higher: bool, aim: float, met: bool) -> None:
    assert figure(value, higher_is_better=higher, aim=aim).met is met
    assert ("MISSED" in figure(value, higher_is_better=higher, aim=aim).line()) is not met


def test_without_an_aim_there_is_no_verdict() -> None:
    assert figure(1.0, higher_is_better=True).met is None


@pytest.mark.parametrize(
    ("value", "higher", "worse"), [(0.5, True, 1.0), (2.0, True, -0.5), (1.5, False, 0.5)]
)
def test_worse_is_worse_in_either_direction(value: float, higher: bool, worse: float) -> None:
    assert figure(value, higher_is_better=higher).worse_than(1.0) == pytest.approx(worse)


def test_figures_come_back_from_a_file(tmp_path: Path) -> None:
    figures = [figure(0.5, higher_is_better=True, aim=0.6), figure(3.0, higher_is_better=False)]
    write(tmp_path / "figures.json", figures)
    assert read(tmp_path / "figures.json") == figures


@pytest.mark.parametrize(("value", "words"), [(0.0123, "12.3 ms"), (2.0, "2 s")])
def test_times_are_told_in_their_size(value: float, words: str) -> None:
    assert told(Figure(name="a.b", value=value, unit=Unit.SECONDS, higher_is_better=False)) == words
