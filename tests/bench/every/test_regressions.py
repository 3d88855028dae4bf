"""What is more than a fifth worse than recorded, every time, is a regression."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from bench.every.regressions import confirmed, regressions
from bench.figures import Figure, Unit


def speed(value: float) -> Figure:
    return Figure(name="made.speed", value=value, unit=Unit.RATIO, higher_is_better=True)


def memory(value: float) -> Figure:
    return Figure(name="made.memory", value=value, unit=Unit.MEGABYTES, higher_is_better=False)


def seconds(value: float) -> Figure:
    return Figure(name="made.seconds", value=value, unit=Unit.SECONDS, higher_is_better=False)


RECORDED = [speed(1.0), memory(100.0), seconds(1.0)]


def test_a_fifth_is_tolerated() -> None:
    assert regressions([speed(0.84), memory(119.0), seconds(1.0)], RECORDED) == {}


def test_more_is_told_with_how_much() -> None:
    assert regressions([speed(0.5), memory(150.0), seconds(1.0)], RECORDED) == {
        "made.speed": 1.0,
        "made.memory": 0.5,
    }


def test_seconds_are_another_machines() -> None:
    assert regressions([speed(1.0), memory(100.0), seconds(9.0)], RECORDED) == {}


def test_parts_of_a_limit_that_moves_are_only_told() -> None:
    part = Figure(name="made.of_disk", value=0.1, unit=Unit.PART, higher_is_better=True)
    assert regressions([part], [replace(part, value=0.4)]) == {}


def test_what_is_not_measured_any_more_is_told() -> None:
    assert regressions([memory(100.0)], RECORDED) == {"made.speed": float("inf")}


def test_one_bad_measurement_is_noise() -> None:
    measured = iter([[speed(0.5), memory(100.0)], [speed(0.95), memory(140.0)]])
    figures, worse = confirmed(lambda: next(measured), RECORDED)
    assert worse == {}
    assert {figure.name: figure.value for figure in figures} == {"made.speed": 0.95, "made.memory": 100.0}


def test_three_bad_ones_are_not() -> None:
    def measure() -> Iterator[Figure]:
        calls.append(1)
        return iter([speed(0.5), memory(100.0)])

    calls: list[int] = []
    assert confirmed(lambda: list(measure()), RECORDED)[1] == {"made.speed": 1.0}
    assert len(calls) == 3
