"""Deferred samples: late, and otherwise as if nothing were deferred."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, reject, settings
from hypothesis import strategies as st
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)

from pathwatch.integrations.deferred import DeferredSampler


@dataclass(frozen=True)
class Case:
    """A job and what it defers."""

    size: int
    ranks: int
    micro_batch: int
    accumulation: int
    drop_last: bool
    passes: float
    per_group: int
    release_at: float
    seed: int

    @property
    def batch_size(self) -> int:
        return self.ranks * self.micro_batch * self.accumulation

    @property
    def steps(self) -> int:
        return max(1, round(self.passes * self.size / self.batch_size))

    def groups(self) -> list[str | None]:
        return [("a", "b", None)[(i * i + self.seed) % 3] for i in range(self.size)]

    def deferring(self) -> list[DeferredSampler]:
        return [
            DeferredSampler(
                range(self.size),
                self.groups(),
                batch_size=self.batch_size,
                steps=self.steps,
                accumulation=self.accumulation,
                per_group=self.per_group,
                release_at=self.release_at,
                seed=self.seed,
                num_replicas=self.ranks,
                rank=rank,
                drop_last=self.drop_last,
            )
            for rank in range(self.ranks)
        ]

    def plain(self) -> list[Any]:
        """The same job without us, going on to the next epoch by itself."""
        return [Plain(self, rank) for rank in range(self.ranks)]


class Plain(DistributedSampler):
    def __init__(self, case: Case, rank: int) -> None:
        super().__init__(
            range(case.size), case.ranks, rank, shuffle=True, seed=case.seed, drop_last=case.drop_last
        )

    def __iter__(self) -> Any:
        yield from super().__iter__()
        self.epoch += 1


cases = st.builds(
    Case,
    size=st.integers(60, 200),
    ranks=st.integers(1, 3),
    micro_batch=st.integers(1, 4),
    accumulation=st.integers(1, 2),
    drop_last=st.booleans(),
    passes=st.floats(0.5, 4.0),
    per_group=st.integers(1, 4),
    release_at=st.floats(0.2, 0.8),
    seed=st.integers(0, 1 << 40),
)


@given(case=cases)
@settings(max_examples=80, deadline=None)
def test_only_the_time_of_deferred_samples_changes(case: Case, loop: Callable) -> None:
    try:
        samplers = case.deferring()
    except ValueError:
        reject()
    job = loop(case.micro_batch, case.accumulation, case.drop_last)
    taken, plain = job.steps(samplers, case.steps), job.steps(case.plain(), case.steps)
    deferred = {int(i) for indices in samplers[0].deferred.values() for i in indices}
    assert [len(step) for step in taken] == [len(step) for step in plain]

    release = samplers[0].release_step
    per_epoch = len(list(job.epoch(case.plain())))
    assert release >= round(case.release_at * case.steps)
    assert release == round(case.release_at * case.steps) or release % per_epoch == 0
    before, after = list(chain.from_iterable(taken[:release])), list(chain.from_iterable(taken[release:]))
    assert not deferred & set(before)
    assert deferred <= set(after)

    for start in range(0, case.steps, per_epoch):
        ours, theirs = (
            list(chain.from_iterable(taken[start : start + per_epoch])),
            list(chain.from_iterable(plain[start : start + per_epoch])),
        )
        if start > release:
            assert ours == theirs
        elif start + per_epoch <= release:
            moved = [(a, b) for a, b in zip(ours, theirs, strict=True) if a != b]
            assert {b for _, b in moved} == deferred & set(theirs)
        elif len(theirs) == case.size == len(set(theirs)):
            assert sorted(ours) == sorted(theirs)


@given(case=cases)
@settings(max_examples=60, deadline=None)
def test_visits_and_resuming_follow_from_the_step(case: Case, loop: Callable) -> None:
    try:
        samplers = case.deferring()
    except ValueError:
        reject()
    job = loop(case.micro_batch, case.accumulation, case.drop_last)
    taken = job.steps(samplers, case.steps)
    ids = torch.randperm(case.size, generator=torch.Generator().manual_seed(case.seed % 1000))[:20]
    visits = samplers[0].visits(ids)
    for step in sorted({0, 1, case.steps // 3, samplers[0].release_step, case.steps}):
        counted = Counter(list(chain.from_iterable(taken[:step])))
        assert visits.at(step).tolist() == [counted[i] for i in ids.tolist()], step
    counted = Counter(list(chain.from_iterable(taken[:2])))
    assert visits.at(2).tolist() == [counted[i] for i in ids.tolist()], "after going back"

    at = case.steps // 2
    again = case.deferring()
    for sampler in again:
        sampler.go_to_step(at)
        sampler.set_epoch(sampler.epoch)
    assert job.steps(again, case.steps - at) == taken[at:]


@given(case=cases, drawn=st.integers(0, 500))
@settings(max_examples=40, deadline=None)
def test_a_state_goes_on_where_drawing_stood(case: Case, drawn: int) -> None:
    try:
        (first, *_), (second, *_) = case.deferring(), case.deferring()
    except ValueError:
        reject()

    def forever(sampler: DeferredSampler) -> Any:
        while True:
            yield from sampler

    drawing = forever(first)
    for _ in range(drawn):
        next(drawing)
    second.load_state_dict(first.state_dict())
    assert second.state_dict() == first.state_dict()
    resumed = forever(second)
    assert [next(resumed) for _ in range(100)] == [next(drawing) for _ in range(100)]


def test_other_samples_take_the_places_in_turn() -> None:
    sampler = DeferredSampler(range(120), lambda i: "a", batch_size=10, steps=120, per_group=9, seed=5)
    counts = Counter(index for _ in range(9) for index in sampler)
    deferred = set(sampler.deferred["a"].tolist())
    others = [counts[i] for i in range(120) if i not in deferred]
    assert sum(others) == 9 * 120
    assert max(others) - min(others) <= 1


def test_deferred_samples_are_mixed_into_what_is_left() -> None:
    """Not in one lump: their mean place is that of all places after the release, within four deviations."""
    places = []
    for seed in range(40):
        sampler = DeferredSampler(range(1000), lambda i: "a", batch_size=10, per_group=20, seed=seed)
        order = np.array(list(sampler))
        places.append(np.flatnonzero(np.isin(order, sampler.deferred["a"])))
    flat = np.concatenate(places)
    assert flat.min() >= 900
    deviation = (100**2 / 12 / len(flat)) ** 0.5
    assert abs(flat.mean() - 949.5) < 4 * deviation
    assert np.histogram(flat, 5, (900, 1000))[0].min() > 0.7 * len(flat) / 5


def test_other_seeds_defer_other_samples_but_every_rank_the_same() -> None:
    def chosen(seed: int, rank: int) -> list[int]:
        sampler = DeferredSampler(
            range(300), lambda i: "a", batch_size=10, per_group=8, seed=seed, num_replicas=2, rank=rank
        )
        return sampler.deferred["a"].tolist()

    assert chosen(1, 0) == chosen(1, 1)
    assert len(set(chosen(1, 0)) & set(chosen(2, 0))) < 4


@pytest.mark.parametrize(
    "source",
    [
        DistributedSampler(range(90), num_replicas=1, rank=0, seed=3),
        DistributedSampler(range(90), num_replicas=1, rank=0, shuffle=False),
        SequentialSampler(range(90)),
        RandomSampler(range(90)),
        RandomSampler(range(90), generator=torch.Generator()),
        SubsetRandomSampler(range(0, 90, 2)),
    ],
    ids=["distributed", "distributed-in-order", "sequential", "random", "generator", "subset"],
)
def test_other_samplers_keep_their_order(source: Any) -> None:
    state = torch.get_rng_state()
    sampler = DeferredSampler(source, lambda i: "a", batch_size=5, steps=60, per_group=3, seed=3)
    late = set(sampler.deferred["a"].tolist())
    first, second = list(sampler), list(sampler)
    assert torch.equal(torch.get_rng_state(), state), "training's random numbers are left alone"
    assert len(first) == len(second) == len(source)
    assert not late & set(first + second)
    if isinstance(source, SequentialSampler):
        assert [i for i, place in zip(first, range(90), strict=True) if i == place] == [
            i for i in range(90) if i not in late
        ]
    if isinstance(source, DistributedSampler):
        source.set_epoch(1)
        assert sum(a != b for a, b in zip(second, source, strict=True)) == 3
    again = DeferredSampler(source, lambda i: "a", batch_size=5, steps=60, per_group=3, seed=3)
    again.set_epoch(1)
    assert list(again) == second


def test_workers_that_prefetch_change_nothing() -> None:
    sampler = DeferredSampler(range(64), lambda i: "a", batch_size=4, per_group=3)
    loader = DataLoader(list(range(64)), sampler=sampler, batch_size=4, num_workers=2, prefetch_factor=4)
    taken = []
    visits = sampler.visits(torch.arange(64))
    for step, batch in enumerate(loader):
        counts = Counter(taken)
        assert visits.at(step).tolist() == [counts[i] for i in range(64)]
        taken += batch.tolist()
    assert sorted(taken) == list(range(64))


class Endless(IterableDataset):
    def __iter__(self) -> Any:
        yield 1


@pytest.mark.parametrize(
    ("source", "arguments", "message"),
    [
        (Endless(), {}, "IterableDataset cannot be deferred"),
        (BatchSampler(SequentialSampler(range(90)), 4, False), {}, "not of batches"),
        (WeightedRandomSampler([1.0] * 90, 90), {}, "each sample once an epoch"),
        (RandomSampler(range(90), num_samples=20), {}, "each sample once an epoch"),
        (range(90), {"per_group": 45}, "45 samples, too few to keep 45 back"),
        (range(90), {"per_group": 0}, "per_group must be at least 1"),
        (range(90), {"per_group": 10}, "20 samples are kept back, but after 90% of 18 steps"),
        (range(90), {"release_at": 1.0}, "between 0 and 1"),
        (range(90), {"groups": ["a"] * 30}, "names 30 samples"),
        (range(90), {"groups": lambda i: None}, "no sample in a group"),
        (range(90), {"num_replicas": 2, "rank": 0}, "multiple of 2 ranks"),
        (range(90), {"num_replicas": 5, "rank": 5}, "one of 5 replicas"),
        (range(4), {"batch_size": 5, "drop_last": True, "per_group": 1}, "no full batch"),
    ],
)
def test_what_cannot_be_deferred_is_said_at_once(
    source: Any, arguments: dict[str, Any], message: str
) -> None:
    given = {"groups": lambda i: "ab"[i % 2], "batch_size": 5, "per_group": 4, **arguments}
    with pytest.raises(ValueError, match=message):
        DeferredSampler(source, **given)


def test_a_state_of_another_training_set_is_refused() -> None:
    first, second = (DeferredSampler(range(n), lambda i: "a", batch_size=4, per_group=2) for n in (40, 44))
    with pytest.raises(ValueError, match="of 40 samples, this one draws 44"):
        second.load_state_dict(first.state_dict())


class _Careless(torch.utils.data.Sampler[int]):
    """Shuffles by random numbers that nobody seeds."""

    def __len__(self) -> int:
        return 64

    def __iter__(self) -> Any:
        return iter(np.random.default_rng().permutation(64).tolist())


def test_an_order_that_cannot_be_drawn_again_is_refused() -> None:
    with pytest.raises(ValueError, match="drawn again"):
        DeferredSampler(_Careless(), ["a"] * 64, batch_size=4, steps=16, num_replicas=1, rank=0)
