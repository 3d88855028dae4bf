"""What a rank holds back: nothing that was asked for is lost, memory is counted, and no call takes long."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pathwatch.client.held_group import ALL, HeldGroup
from pathwatch.client.held_windows import HeldWindows
from pathwatch.client.messages import OVERHEAD
from pathwatch.client.observations import Observations, checked
from pathwatch.v1 import routing_pb2


def observed(ids: Iterable[int], *, step: int = 0, group: str = "g", layers: int = 2) -> Observations:
    samples = np.array(list(ids), np.int64)
    return checked(
        step=step,
        group=group,
        sample_ids=samples,
        weights=np.full((samples.size, layers, 8), 1 / 8, np.float32),
        raw=None,
        losses=np.full(samples.size, float(step)),
        target_weights=None,
        layers=None,
        token_part=0,
        token_parts=1,
    )


def rows(parts: Iterable[Observations]) -> list[tuple[int, float]]:
    """Sample and loss of each observation; `observed` makes the step the loss."""
    return [
        (int(i), float(loss))
        for part in parts
        for i, loss in zip(part.arrays["sample_ids"], part.arrays["losses"], strict=True)
    ]


def holding(groups: int, samples: int, *, capacity: int = 512) -> HeldWindows:
    held = HeldWindows("run", routing_pb2.SamplingPlan(window_steps=100, capacity=capacity), tells_begin=True)
    for number in range(groups):
        held.offer(observed(range(samples), group=f"g{number}"))
    return held


def test_of_small_observations_the_objects_are_counted_too() -> None:
    held = HeldWindows("run", routing_pb2.SamplingPlan(window_steps=2000, capacity=512), tells_begin=True)
    for sample in range(1000):
        held.offer(observed([sample], step=sample))
    assert held.nbytes >= 1000 * OVERHEAD


def test_a_turn_takes_no_more_observations_than_it_may_of_all_groups_together() -> None:
    held = holding(40, 200)
    held.release()
    held.reach(99)
    turns = []
    while taken := held.take(50):
        turns.append(sum(part.samples for part in taken))
    assert max(turns) <= 50
    assert sum(turns) == 40 * 200
    assert held.nbytes == 0


@pytest.mark.parametrize(("per_step", "layers"), [(1, 2), (8, 2), (8, 16), (64, 16)])
def test_what_is_of_no_use_is_given_back_a_little_at_a_time(
    monkeypatch: pytest.MonkeyPatch, per_step: int, layers: int
) -> None:
    """Training waits for an offer: none copies many blocks, whatever became useless all at once."""
    select = Observations.select
    copies = 0

    def counted(self: Observations, rows_N: np.ndarray) -> Observations:
        nonlocal copies
        copies += 1
        return select(self, rows_N)

    monkeypatch.setattr(Observations, "select", counted)
    group, most = HeldGroup(512), 0
    generator = np.random.default_rng(0)
    for step in range(2500 // per_step):
        ids = range(step * per_step, (step + 1) * per_step)
        offered = observed(ids, step=step, layers=layers)
        copies = 0
        group.offer(offered, generator.integers(0, 2**63, per_step).astype(np.uint64))
        most = max(most, copies)
    assert most <= 32
    one = observed([0], layers=layers)
    each = one.nbytes + one.array_overhead + OVERHEAD
    assert group.nbytes <= 2 * 1024 * each  # capacity samples twice, and rows of no use as many again


steps = st.lists(
    st.tuples(
        st.sampled_from(["offer", "offer", "offer", "again", "take", "cut"]), st.integers(1, 12), st.randoms()
    ),
    max_size=40,
)


@given(steps)
def test_what_is_taken_is_what_plain_lists_hold(moves: list) -> None:
    """An oracle without blocks: rows of (hash, step, sample), of each sample the newest step's."""
    capacity, group = 1000, HeldGroup(1000)
    hashes: dict[int, int] = {}
    expected: dict[int, tuple[int, float]] = {}
    limit, samples = ALL, 0
    for step, (move, count, random) in enumerate(moves):
        if move in {"offer", "again"}:
            known = sorted(hashes)
            ids = list(range(samples, samples + count)) if move == "offer" or not known else []
            ids = ids or random.sample(known, min(count, len(known)))
            samples = max(samples, *(i + 1 for i in ids))
            for i in ids:
                hashes.setdefault(i, random.randrange(2**54) << 10 | i)  # no two alike
                if hashes[i] < limit:
                    expected[i] = (i, float(step))
            hashes_N = np.array([hashes[i] for i in ids], np.uint64)
            assert group.offer(observed(ids, step=step), hashes_N) is None
        elif move == "cut":
            limit = min(limit, random.randrange(2**62, 2**64 - 1))
            group.cut(limit)
            expected = {i: row for i, row in expected.items() if hashes[i] < limit}
        else:
            group.through = ALL
            taken = rows(group.take(count))
            assert len(taken) == min(count, len(expected))
            for i, loss in taken:
                assert expected.pop(i) == (i, loss)
            group.through = -1
        assert len(group) == len(expected) <= capacity
    group.through = ALL
    assert sorted(rows(group.take(10**6))) == sorted(expected.values())
    assert len(group) == 0
