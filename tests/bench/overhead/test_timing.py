"""Which steps are timed, and what stands attached meanwhile."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import pytest

from bench.overhead.order import BASELINE
from bench.overhead.timing import WARM_UP, Runner


class Job:
    """Counts its steps as an engine does; keeps what was attached in each."""

    def __init__(self) -> None:
        self.engine = SimpleNamespace(global_steps=0)
        self.attached: list[str] = []
        self.log: list[tuple[str, int, int]] = []

    def batch(self, number: int) -> int:
        return number

    def step(self, batch: int, extra: Mapping[str, Any]) -> None:
        assert len(self.attached) == 1
        self.log.append((self.attached[0], self.engine.global_steps, batch))
        self.engine.global_steps += 1


class Variant:
    """Takes something in at every so many of the job's steps; fails where it is told to."""

    def __init__(self, name: str, every: int, fails_at: int | None = None) -> None:
        self.name, self.every, self.fails_at = name, every, fails_at
        self.taken = 0
        self.job: Job | None = None

    def attach(self, job: Job) -> None:
        job.attached.append(self.name)
        self.job = job

    def extra(self) -> Mapping[str, Any]:
        return {}

    def after_step(self, output: object) -> None:
        assert self.job is not None
        step = self.job.engine.global_steps - 1
        if step == self.fails_at:
            raise RuntimeError("on purpose")
        self.taken += bool(self.every) and step % self.every == 0

    def settle(self) -> None:
        """Nothing is under way."""

    def detach(self) -> None:
        assert self.job is not None
        self.job.attached.remove(self.name)


@pytest.fixture
def variants() -> dict[str, Variant]:
    return {v.name: v for v in (Variant(BASELINE, 0), Variant("a", 5), Variant("b", 1))}


def test_every_variant_goes_through_its_own_steps_without_a_gap(variants: dict[str, Variant]) -> None:
    job = Job()
    run = Runner(job, lambda answer: answer).run(variants, steps=6, seconds=0, progress=lambda doing: None)
    assert [block.variant for block in run] == [BASELINE, "a", "b", BASELINE, "b", "a", BASELINE]
    for name in variants:
        steps = [step for variant, step, _ in job.log if variant == name]
        assert steps == list(range(len(steps)))
    for block in run:
        assert len(block.seconds_S) == 6
        assert (block.seconds_S > 0).all()
        assert (block.cpu_S >= 0).all()


def test_steps_that_take_something_in_are_told_apart(variants: dict[str, Variant]) -> None:
    job = Job()
    run = Runner(job, lambda answer: answer).run(variants, steps=6, seconds=0, progress=lambda doing: None)
    first, second = (block for block in run if block.variant == "a")
    block_steps = WARM_UP + 6
    for number, block in enumerate((first, second)):
        timed = range(number * block_steps + WARM_UP, (number + 1) * block_steps)
        assert block.observed_S.tolist() == [step % 5 == 0 for step in timed]
    assert not run[0].observed_S.any()
    assert run[2].observed_S.all()


def test_all_variants_train_on_the_same_batches(variants: dict[str, Variant]) -> None:
    job = Job()
    Runner(job, lambda answer: answer).run(variants, steps=6, seconds=0, progress=lambda doing: None)
    batches = {name: [batch for variant, _, batch in job.log if variant == name] for name in variants}
    assert batches["a"] == batches["b"] == batches[BASELINE][: len(batches["a"])]


def test_rounds_end_when_rank_0_says_so(variants: dict[str, Variant]) -> None:
    answers = iter([True, True, False])
    asked: list[bool] = []

    def agreed(answer: bool) -> bool:
        asked.append(answer)
        return next(answers)

    run = Runner(Job(), agreed).run(variants, steps=1, seconds=0, progress=lambda doing: None)
    assert sum(block.variant == "a" for block in run) == 4
    assert asked == [False, False, False]


def test_a_variant_that_fails_is_taken_off() -> None:
    job = Job()
    runner = Runner(job, lambda answer: answer)
    with pytest.raises(RuntimeError, match="on purpose"):
        runner.block(Variant("a", 1, fails_at=WARM_UP + 1), 6)
    assert not job.attached
