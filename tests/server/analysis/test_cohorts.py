"""Cohorts against the definition: who is memorized, since when, and how neighbouring t* are merged."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pathwatch.server.analysis.cohorts import group_cohorts, memorized_counts, merged_cohorts
from pathwatch.server.sketch.memorization import MemorizationTracker
from pathwatch.server.traces import Trace

STEPS = st.lists(st.sampled_from([-1, *range(0, 200, 25)]), min_size=1, max_size=60)


def memorized_since(losses: list[float], steps: list[int], epsilon: float, delta: float) -> int:
    """§3.1 word for word; NaN = no loss."""
    seen = [(step, loss) for step, loss in zip(steps, losses, strict=True) if loss == loss]
    for at, (step, _) in enumerate(seen):
        if all(loss <= epsilon and abs(loss - seen[-1][1]) <= delta for _, loss in seen[at:]):
            return step
    return -1


@given(STEPS, st.integers(1, 8))
def test_cohorts_hold_every_memorized_sample_once_in_order_of_time(steps: list[int], limit: int) -> None:
    cohorts = merged_cohorts(np.array(steps), limit)
    assert len(cohorts) <= limit
    held = [int(sample) for cohort in cohorts for sample in cohort.samples_M]
    assert sorted(held) == [sample for sample, step in enumerate(steps) if step >= 0]
    for cohort in cohorts:
        own = [steps[sample] for sample in cohort.samples_M]
        assert (min(own), max(own)) == (cohort.first_step, cohort.last_step)
    assert all(a.last_step < b.first_step for a, b in pairwise(cohorts))


@given(STEPS)
def test_few_distinct_steps_stay_apart(steps: list[int]) -> None:
    counted = Counter(step for step in steps if step >= 0)
    cohorts = merged_cohorts(np.array(steps), max(1, len(counted)))
    assert {cohort.first_step: len(cohort.samples_M) for cohort in cohorts} == counted
    assert all(cohort.name == f"t*={cohort.first_step}" for cohort in cohorts)


@given(st.integers(1, 100), st.integers(1, 9))
def test_distinct_steps_are_merged_into_near_equal_parts(samples: int, limit: int) -> None:
    cohorts = merged_cohorts(np.random.default_rng(samples).permutation(samples), limit)
    sizes = [len(cohort.samples_M) for cohort in cohorts]
    assert len(sizes) == min(samples, limit)
    assert max(sizes) - min(sizes) <= 1


def test_a_crowded_step_is_not_split() -> None:
    cohorts = merged_cohorts(np.array([10, 20, 20, 20, 20, 20, 20, 30, 40, 50]), 3)
    assert [(cohort.name, len(cohort.samples_M)) for cohort in cohorts] == [
        ("t*=10", 1),
        ("t*=20", 6),
        ("t*=30-50", 3),
    ]


@pytest.mark.parametrize("epsilon", [0.1, 0.3, 1.0])
@pytest.mark.parametrize("delta", [0.0, 0.03, 0.5])
def test_memorized_steps_are_the_definition(
    random_trace: Callable[..., Trace], epsilon: float, delta: float
) -> None:
    trace = random_trace(3)
    for g, group in enumerate(trace.groups):
        found = group_cohorts(trace, group, epsilon=epsilon, delta=delta, limit=4)
        assert found.memorized_steps_N.tolist() == [
            memorized_since(
                trace.losses_TGN[:, g, n].astype(float).tolist(), trace.steps_T.tolist(), epsilon, delta
            )
            for n in range(trace.samples)
        ]
        assert found.memorized_samples == sum(step >= 0 for step in found.memorized_steps_N.tolist())


def test_auto_epsilon_is_the_live_service_s_at_the_end_of_the_run(random_trace: Callable[..., Trace]) -> None:
    trace = random_trace(5)
    for g, group in enumerate(trace.groups):
        tracker = MemorizationTracker(None)
        for step, losses_N in zip(trace.steps_T.tolist(), trace.losses_TGN[:, g], strict=True):
            tracker.update(step, np.arange(trace.samples), losses_N)
        found = group_cohorts(trace, group, epsilon=None, delta=0.05, limit=4)
        assert found.epsilon == tracker.epsilon
        assert (found.memorized_steps_N >= 0).mean() == tracker.ratio


def test_losses_that_are_not_finite_were_not_seen(random_trace: Callable[..., Trace]) -> None:
    losses = np.full((4, 1, 3), np.inf, dtype=np.float32)
    losses[1:, 0, 0] = [2.0, 0.2, 0.2]
    losses[:3, 0, 1] = [0.2, np.nan, 0.2]
    trace = random_trace(points=4, groups=1, samples=3, losses_TGN=losses)
    found = group_cohorts(trace, "group0", epsilon=None, delta=0.05, limit=4)
    assert found.epsilon == pytest.approx(0.3)
    assert found.memorized_steps_N.tolist() == [50, 0, -1]


def test_a_group_without_losses_has_no_cohort(random_trace: Callable[..., Trace]) -> None:
    losses = np.full((4, 1, 3), np.nan, dtype=np.float32)
    trace = random_trace(points=4, groups=1, samples=3, losses_TGN=losses)
    found = group_cohorts(trace, "group0", epsilon=None, delta=0.05, limit=4)
    assert (found.epsilon, found.cohorts, found.memorized_samples, found.median_step) == (None, (), 0, None)


@given(STEPS)
def test_counts_add_up(steps: list[int]) -> None:
    log = np.arange(0, 250, 25)
    counts = memorized_counts(np.array(steps), log)
    assert counts.new_T.tolist() == [steps.count(step) for step in log.tolist()]
    assert counts.cumulative_T.tolist() == [
        sum(0 <= memorized <= step for memorized in steps) for step in log.tolist()
    ]
