"""When which sample is drawn: a training order in which some come late."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from pathwatch.integrations.deferred.choice import Indices, smallest_by_hash


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """Changes the order of each epoch so that deferred samples are drawn from the release on only.

    A draw is one place in an epoch's order, over all ranks. Steps do not cross epochs: the last step of one
    may be smaller.
    """

    deferred_D: Indices
    size: int
    """Different samples of an epoch."""
    draws: int
    """Draws of an epoch that are trained on: padding included, what a loader drops left out."""
    step_draws: int
    """Draws of one optimizer step."""
    steps: int
    """Optimizer steps of the run."""
    release_at: float
    """Part of the steps after which deferred samples are drawn."""
    seed: int
    release_step: int = field(init=False)
    """First step that may train on deferred samples."""

    def __post_init__(self) -> None:
        if not 0 < self.release_at < 1:
            raise ValueError(f"release_at must be between 0 and 1, got {self.release_at}")
        if self.draws < 1:
            raise ValueError("no full batch is left of an epoch: the loader would drop all of it")
        wanted = round(self.release_at * self.steps)
        # Where too little of an epoch is left for all of them, they wait for the next one.
        following = -(-wanted // self.epoch_steps) * self.epoch_steps
        fitting = [step for step in (wanted, following) if self._room(step) >= len(self.deferred_D)]
        if not fitting:
            raise ValueError(
                f"{len(self.deferred_D)} samples are kept back, but after {self.release_at:.0%} of "
                f"{self.steps} steps only {max(self._room(wanted), 0)} samples are left to be drawn: "
                "lower release_at or per_group"
            )
        object.__setattr__(self, "release_step", fitting[0])

    @property
    def epoch_steps(self) -> int:
        """Optimizer steps of an epoch."""
        return -(-self.draws // self.step_draws)

    def position(self, step: int) -> tuple[int, int]:
        """Epoch, and draws of it that are done, once `step` optimizer steps are done."""
        epoch, steps = divmod(step, self.epoch_steps)
        return epoch, steps * self.step_draws

    def order(self, base_N: Indices, epoch: int) -> Indices:
        """The order of an epoch, from what it would be if none were deferred: `base_N`, each sample once.

        Before the release other samples stand in their places, as often as each other over the epochs. In
        the epoch of the release they change places with samples drawn after it; later all is as it would be.
        """
        release_epoch, released = self.position(self.release_step)
        if epoch > release_epoch or not len(self.deferred_D):
            return base_N
        is_deferred_N = np.isin(base_N, self.deferred_D)
        order_N = base_N.copy()
        if epoch < release_epoch:
            order_N[is_deferred_N] = self._substitutes(base_N[~is_deferred_N], epoch)
            return order_N
        places_N = np.arange(len(base_N))
        late_N = (places_N >= released) & (places_N < released + self._room(self.release_step))
        early = places_N[is_deferred_N & ~late_N]
        free = places_N[~is_deferred_N & late_N]
        taken = smallest_by_hash(free, len(early), self.seed)
        order_N[early], order_N[taken] = base_N[taken], base_N[early]
        return order_N

    def _room(self, step: int) -> int:
        """Draws of the run from a step on within its epoch."""
        epoch, done = self.position(step)
        end = min(self.draws, self.size, (self.steps - epoch * self.epoch_steps) * self.step_draws)
        return end - done

    def _substitutes(self, others_N: Indices, epoch: int) -> Indices:
        """Who stands in for the deferred samples in an epoch: all others in turn."""
        ranked_N = smallest_by_hash(others_N, len(others_N), self.seed + 1)
        count = len(self.deferred_D)
        return ranked_N[(epoch * count + np.arange(count)) % len(ranked_N)]
