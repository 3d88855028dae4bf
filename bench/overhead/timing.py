"""Running blocks of steps, and what each step took."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from bench.overhead.job import DeepSpeedJob
from bench.overhead.order import one_round
from bench.overhead.ratios import Block
from bench.overhead.variants import Variant

WARM_UP = 4
"""Steps before a block is timed: attaching opens a connection, and caches are cold."""


class Runner:
    """Runs blocks of one job, each with one variant attached; every variant counts its own steps."""

    def __init__(self, job: DeepSpeedJob, agreed: Callable[[bool], bool]) -> None:
        """`agreed` gives every rank the answer of rank 0."""
        self._job = job
        self._agreed = agreed
        self._steps: dict[str, int] = {}

    def run(
        self,
        baseline: Variant,
        others: Sequence[Variant],
        *,
        steps: int,
        seconds: float,
        progress: Callable[[str], None],
    ) -> list[Block]:
        """Rounds of blocks for about so long, at least two; `progress` is told of each.

        Of a variant that comes several times in `others` as many blocks are run a round.
        """
        variants = {variant.name: variant for variant in (baseline, *others)}
        names = [variant.name for variant in others]
        run = [self.block(baseline, steps)]
        start = time.monotonic()
        number = 0
        while number < 2 or self._goes_on(start, number, seconds):
            progress(f"round {number + 1}: {len(names)} blocks of {steps} steps, and the baseline's")
            run += [self.block(variants[name], steps) for name in one_round(names, number)]
            number += 1
        return run

    def _goes_on(self, start: float, rounds: int, seconds: float) -> bool:
        """Whether another round fits in."""
        elapsed = time.monotonic() - start
        return self._agreed(elapsed * (rounds + 1) / rounds <= seconds)

    def block(self, variant: Variant, steps: int) -> Block:
        """Time `steps` steps with a variant attached."""
        seconds_S, cpu_S, observed_S = np.empty(steps), np.empty(steps), np.empty(steps, np.bool_)
        with self.attached(variant):
            for number in range(steps):
                taken = variant.taken
                cpu, start = time.thread_time(), time.perf_counter()
                self.step(variant, number)
                seconds_S[number] = time.perf_counter() - start
                cpu_S[number] = time.thread_time() - cpu
                observed_S[number] = variant.taken != taken
        return Block(variant=variant.name, seconds_S=seconds_S, cpu_S=cpu_S, observed_S=observed_S)

    @contextmanager
    def attached(self, variant: Variant) -> Iterator[None]:
        """Attach a variant where its own steps ended last, warm up, and detach it in the end."""
        engine = self._job.engine
        engine.global_steps = self._steps.get(variant.name, 0)
        variant.attach(self._job)
        try:
            for number in range(WARM_UP):
                self.step(variant, number)
            variant.settle()
            gc.collect()
            yield
        finally:
            self._steps[variant.name] = int(engine.global_steps)
            variant.detach()

    def step(self, variant: Variant, number: int) -> None:
        """One step on a batch, with all that the training script would call."""
        output = self._job.step(self._job.batch(number), variant.extra())
        variant.after_step(output)
