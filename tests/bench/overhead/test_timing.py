"""Which steps are timed, and what stands attached meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

import pytest

from bench.overhead import timing
from bench.overhead.order import BASELINE
from bench.overhead.ratios import Block
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
def variants() -> list[Variant]:
    """The baseline first."""
    return [Variant(BASELINE, 0), Variant("a", 5), Variant("b", 1)]


@pytest.fixture(autouse=True)
def _no_collection(monkeypatch: pytest.MonkeyPatch) -> None:
    """Collecting the garbage of a whole test process takes longer than these tests."""
    monkeypatch.setattr(timing, "gc", SimpleNamespace(collect=lambda: None))


@pytest.fixture
def run(variants: list[Variant]) -> Callable[..., list[Block]]:
    """Runs a job with the variants."""

    def make(job: Job, *, steps: int = 6, agreed: Callable[[bool], bool] = bool) -> list[Block]:
        baseline, *others = variants
        return Runner(job, agreed).run(baseline, others, steps=steps, seconds=0, progress=lambda doing: None)

    return make


def test_every_variant_goes_through_its_own_steps_without_a_gap(
    variants: list[Variant], run: Callable[..., list[Block]]
) -> None:
    job = Job()
    blocks = run(job)
    assert [block.variant for block in blocks] == [BASELINE, "a", "b", BASELINE, "b", "a", BASELINE]
    for name in (variant.name for variant in variants):
        steps = [step for variant, step, _ in job.log if variant == name]
        assert steps == list(range(len(steps)))
    for block in blocks:
        assert len(block.seconds_S) == 6
        assert (block.seconds_S > 0).all()
        assert (block.cpu_S >= 0).all()


def test_steps_that_take_something_in_are_told_apart(
    variants: list[Variant], run: Callable[..., list[Block]]
) -> None:
    job = Job()
    blocks = run(job)
    first, second = (block for block in blocks if block.variant == "a")
    block_steps = WARM_UP + 6
    for number, block in enumerate((first, second)):
        timed = range(number * block_steps + WARM_UP, (number + 1) * block_steps)
        assert block.observed_S.tolist() == [step % 5 == 0 for step in timed]
    assert not blocks[0].observed_S.any()
    assert blocks[2].observed_S.all()


def test_all_variants_train_on_the_same_batches(
    variants: list[Variant], run: Callable[..., list[Block]]
) -> None:
    job = Job()
    run(job)
    batches = {
        name: [batch for variant, _, batch in job.log if variant == name]
        for name in (variant.name for variant in variants)
    }
    assert batches["a"] == batches["b"] == batches[BASELINE][: len(batches["a"])]


def test_rounds_end_when_rank_0_says_so(variants: list[Variant], run: Callable[..., list[Block]]) -> None:
    answers = iter([True, True, False])
    asked: list[bool] = []

    def agreed(answer: bool) -> bool:
        asked.append(answer)
        return next(answers)

    blocks = run(Job(), steps=1, agreed=agreed)
    assert sum(block.variant == "a" for block in blocks) == 4
    assert asked == [False, False, False]


def test_a_variant_that_fails_is_taken_off() -> None:
    job = Job()
    runner = Runner(job, lambda answer: answer)
    with pytest.raises(RuntimeError, match="on purpose"):
        runner.block(Variant("a", 1, fails_at=WARM_UP + 1), 6)
    assert not job.attached


def test_what_comes_several_times_a_round_runs_as_often(
    variants: list[Variant], run: Callable[..., list[Block]]
) -> None:
    variants.append(variants[1])
    assert [block.variant for block in run(Job(), steps=1)].count("a") == 4
