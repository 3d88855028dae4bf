"""Ratios of step times: right where the answer is known, whatever the machine does meanwhile."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from bench.overhead import ratios
from bench.overhead.order import BASELINE, one_round
from bench.overhead.ratios import Block, amortized, mean, median, p99, ratio, relative

STEPS = 20


def block(name: str, seconds_S: NDArray[np.float64], observed_S: NDArray[np.bool_] | None = None) -> Block:
    """A block that observes nothing, unless told; the processor takes half of the time."""
    nothing_S = np.zeros(len(seconds_S), np.bool_)
    return Block(
        variant=name,
        seconds_S=seconds_S,
        cpu_S=seconds_S / 2,
        observed_S=nothing_S if observed_S is None else observed_S,
    )


@pytest.fixture
def play() -> Callable[..., list[Block]]:
    """Blocks of made-up steps: `costs` by variant [S], the machine's speed by step, and noise."""

    def make(
        costs: dict[str, NDArray[np.float64]],
        *,
        rounds: int,
        speed: Callable[[int], float] = lambda step: 1.0,
        noise: float = 0.0,
        seed: int = 0,
    ) -> list[Block]:
        rng = np.random.default_rng(seed)
        costs = {BASELINE: np.ones(STEPS), **costs}
        others = [name for name in costs if name != BASELINE]
        order = [BASELINE, *(name for number in range(rounds) for name in one_round(others, number))]
        blocks, step = [], 0
        for name in order:
            machine_S = np.array([speed(step + i) for i in range(STEPS)])
            step += STEPS
            seconds_S = 0.05 * costs[name] * machine_S * np.exp(rng.normal(0, noise, STEPS))
            blocks.append(block(name, seconds_S, costs[name] > 1.5))
        return blocks

    return make


def test_the_ratio_is_that_of_the_statistics(play: Callable[..., list[Block]]) -> None:
    times = relative(play({"a": np.full(STEPS, 1.1)}, rounds=6, noise=0.05))
    ours, theirs = np.concatenate(times["a"].times), np.concatenate(times[BASELINE].times)
    for statistic, oracle in (
        (median, lambda x: sorted(x)[len(x) // 2 - 1 : len(x) // 2 + 1]),
        (mean, lambda x: list(x)),
    ):
        expected = np.mean(oracle(ours)) / np.mean(oracle(theirs)) if len(theirs) % 2 == 0 else None
        found = ratio(times["a"].times, times[BASELINE].times, statistic)
        assert found.low < found.value < found.high
        if expected is not None:
            assert found.value == pytest.approx(expected)


def test_p99_is_exceeded_by_one_step_in_a_hundred() -> None:
    times = np.random.default_rng(0).permutation(np.arange(1.0, 1001.0))
    assert (times > p99(times)).mean() == pytest.approx(0.01)


def test_a_machine_that_slows_down_does_not_matter(play: Callable[..., list[Block]]) -> None:
    # Three times slower at the end, in a wave of a third besides: far more than what is to be found.
    def speed(step: int) -> float:
        return (1 + step / 1500) * (1 + 0.3 * np.sin(step / 200))

    costs = {"a": np.full(STEPS, 1.02), "b": np.full(STEPS, 1.0), "c": np.full(STEPS, 1.3)}
    run = play(costs, rounds=50, speed=speed)
    times = relative(run)
    for name, expected in (("a", 1.02), ("b", 1.0), ("c", 1.3)):
        assert ratio(times[name].times, times[BASELINE].times, median).value == pytest.approx(
            expected, abs=2e-3
        )
    seconds = {
        name: np.concatenate([b.seconds_S for b in run[:60] if b.variant == name]) for name in ("a", BASELINE)
    }
    assert abs(np.median(seconds["a"]) / np.median(seconds[BASELINE]) - 1.02) > 5e-3


def test_amortised_weighs_both_kinds_of_steps(play: Callable[..., list[Block]]) -> None:
    cost_S = np.full(STEPS, 1.01)
    cost_S[::10] = 2.0
    times = relative(play({"a": cost_S}, rounds=4))
    found = amortized(times["a"], times[BASELINE])
    assert found.value == pytest.approx(0.9 * 1.01 + 0.1 * 2.0)
    assert found.low == pytest.approx(found.high)
    assert ratio(times["a"].of(observed=False), times[BASELINE].times, median).value == pytest.approx(1.01)


def test_amortised_of_a_variant_that_observes_always_or_never(play: Callable[..., list[Block]]) -> None:
    times = relative(play({"always": np.full(STEPS, 2.0), "never": np.full(STEPS, 1.2)}, rounds=4))
    assert amortized(times["always"], times[BASELINE]).value == pytest.approx(2.0)
    assert amortized(times["never"], times[BASELINE]).value == pytest.approx(1.2)
    with pytest.raises(ValueError, match="no steps of the variant"):
        ratio(times["never"].of(observed=True), times[BASELINE].times, median)


def test_intervals_hold_the_truth_as_often_as_they_say(
    play: Callable[..., list[Block]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ratios, "RESAMPLES", 200)
    held = []
    for seed in range(40):
        times = relative(play({"a": np.full(STEPS, 1.03)}, rounds=12, noise=0.1, seed=seed))
        found = ratio(times["a"].times, times[BASELINE].times, median)
        held.append(found.low <= 1.03 <= found.high)
        assert found.high - found.low < 0.12
    # Of 40 intervals of 95 % fewer than 34 would hold it once in 200 times.
    assert sum(held) >= 34


@given(st.floats(1e-3, 1e3))
def test_the_unit_of_time_does_not_matter(unit: float) -> None:
    rng = np.random.default_rng(1)
    blocks = [
        block(name, rng.uniform(0.9, 1.1, 5)) for name in (BASELINE, "a", "b", BASELINE, "b", "a", BASELINE)
    ]
    scaled = [block(b.variant, b.seconds_S * unit) for b in blocks]
    for name, times in relative(blocks).items():
        np.testing.assert_allclose(relative(scaled)[name].times, times.times, rtol=1e-9)


def test_processor_time_is_compared_with_processor_time(play: Callable[..., list[Block]]) -> None:
    run = play({"a": np.full(STEPS, 1.25)}, rounds=2)
    times = relative(run, lambda made: made.cpu_S)
    assert ratio(times["a"].times, times[BASELINE].times, median).value == pytest.approx(1.25)


def test_a_block_of_the_baseline_is_not_compared_with_itself() -> None:
    run = [block(BASELINE, np.full(4, seconds)) for seconds in (1.0, 2.0, 3.0)]
    assert [times[0] for times in relative(run)[BASELINE].times] == pytest.approx([1 / 2, 2 / 2, 3 / 2])
