"""t*, ε and the memorized share: the definition, and that the tracker equals it at every step."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pathwatch.server.sketch.memorization import MAX_SAMPLES, MemorizationTracker, memorized_step

GOLDEN = Path(__file__).parents[2] / "data" / "golden"


def definition(losses: list[float], steps: list[int], epsilon: float, delta: float) -> int:
    """Paper §3.1, word for word; NaN = not observed."""
    seen = [(step, loss) for step, loss in zip(steps, losses, strict=True) if loss == loss]
    for start in range(len(seen)):
        if all(loss <= epsilon and abs(loss - seen[-1][1]) <= delta for _, loss in seen[start:]):
            return seen[start][0]
    return -1


@pytest.mark.parametrize("case", [0, 1, 2, 3])
def test_golden_values(case: int) -> None:
    inputs = np.load(GOLDEN / f"case{case}.npz")
    expected = json.loads((GOLDEN / f"case{case}.json").read_text())["memorized_step_eps_0_55_delta_0_05"]
    steps = memorized_step(inputs["losses"], inputs["steps"], 0.55, 0.05)
    assert steps.dtype == np.int64
    assert [None if step < 0 else step for step in steps.tolist()] == expected


# Few different values, so that limits are met exactly and values repeat.
LOSS = st.one_of(
    st.integers(0, 30).map(lambda tenth: tenth / 20),
    st.floats(0, 2, width=32),
    st.just(float("nan")),
)
HISTORY = st.integers(1, 4).flatmap(
    lambda n: st.lists(st.lists(LOSS, min_size=n, max_size=n), min_size=1, max_size=25)
)
DELTA = st.sampled_from([0.0, 0.05, 0.1, 0.5])


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(history=HISTORY, epsilon=st.sampled_from([0.0, 0.1, 0.55, 1.0]), delta=DELTA)
def test_offline_is_the_definition(history: list[list[float]], epsilon: float, delta: float) -> None:
    losses_NT = np.array(history).T
    steps = [25 * t for t in range(len(history))]
    expected = [definition(row, steps, epsilon, delta) for row in losses_NT.tolist()]
    assert memorized_step(losses_NT, np.array(steps), epsilon, delta).tolist() == expected


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(history=HISTORY, epsilon=st.sampled_from([None, 0.1, 0.55, 1.0]), delta=DELTA)
def test_the_share_online_is_that_of_the_definition_at_every_step(
    history: list[list[float]], epsilon: float | None, delta: float
) -> None:
    tracker = MemorizationTracker(epsilon)
    for t, losses in enumerate(history):
        tracker.update(25 * t, np.arange(len(losses)), np.array(losses))
        losses_NT = np.array(history[: t + 1]).T
        seen = np.flatnonzero(~np.isnan(losses_NT).all(axis=1))
        if not seen.size:
            assert tracker.ratio is None
            assert tracker.epsilon == epsilon
            continue
        assert tracker.epsilon is not None
        expected = memorized_step(losses_NT, 25 * np.arange(t + 1), tracker.epsilon, delta)[seen]
        assert tracker.ratio == (expected >= 0).mean()


@given(st.lists(st.floats(0, 12, width=32), min_size=1, max_size=40))
def test_auto_epsilon_is_the_smallest_multiple_that_a_fifth_meets(losses: list[float]) -> None:
    tracker = MemorizationTracker(None)
    tracker.update(0, np.arange(len(losses)), np.array(losses))
    candidates = [tenth / 10 for tenth in range(1, 125)]
    expected = next(
        epsilon for epsilon in candidates if 5 * sum(loss <= epsilon for loss in losses) >= len(losses)
    )
    assert tracker.epsilon == expected


def test_auto_epsilon_follows_the_losses_and_a_fixed_one_does_not() -> None:
    ids = np.arange(10)
    auto, fixed = MemorizationTracker(None), MemorizationTracker(0.5)
    assert (auto.epsilon, auto.ratio) == (None, None)
    assert (fixed.epsilon, fixed.ratio) == (0.5, None)
    seen = []
    for step, level in enumerate((4.0, 1.0, 0.19)):
        losses = level * (1 + ids / 10)
        auto.update(step, ids, losses)
        fixed.update(step, ids, losses)
        seen.append((auto.epsilon, auto.ratio, fixed.epsilon, fixed.ratio))
    assert seen == [(4.4, 0.2, 0.5, 0.0), (1.1, 0.2, 0.5, 0.0), (0.3, 0.6, 0.5, 1.0)]


def test_forgets_the_samples_not_seen_for_longest() -> None:
    """Half as many as are remembered, four times: the memorized ones of the first two windows are gone."""
    tracker, half = MemorizationTracker(0.5), MAX_SAMPLES // 2
    shares = []
    for step, loss in enumerate((0.1, 0.1, 0.9, 0.9)):
        tracker.update(step, np.arange(step * half, (step + 1) * half), np.full(half, loss))
        shares.append(tracker.ratio)
    assert shares == [1.0, 1.0, 0.5, 0.0]


def test_of_samples_seen_equally_long_ago_the_larger_ids_are_forgotten() -> None:
    tracker, ids = MemorizationTracker(0.5), np.arange(MAX_SAMPLES)[::-1]
    tracker.update(0, ids, np.where(ids < 100, 0.1, 0.9))
    tracker.update(1, np.arange(MAX_SAMPLES, 2 * MAX_SAMPLES - 100), np.full(MAX_SAMPLES - 100, 0.9))
    assert tracker.ratio == 100 / MAX_SAMPLES


def test_steps_must_rise() -> None:
    tracker = MemorizationTracker(0.5)
    tracker.update(10, np.array([1]), np.array([0.1]))
    with pytest.raises(ValueError, match="step 10 does not come after step 10"):
        tracker.update(10, np.array([1]), np.array([0.2]))


def test_a_sample_that_is_unlearned_counts_no_more() -> None:
    tracker = MemorizationTracker(0.5)
    seen = []
    for step, loss in enumerate((0.9, 0.3, 0.28, 0.7, 0.31, float("nan"))):
        tracker.update(step, np.array([7]), np.array([loss]))
        seen.append(tracker.ratio)
    assert seen == [0.0, 1.0, 1.0, 0.0, 1.0, 1.0]
