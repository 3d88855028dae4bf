"""Cohorts of a recorded run: the samples of a group by when they were memorized (paper §3.2)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pathwatch.server.sketch.memorization import auto_epsilon, memorized_step
from pathwatch.server.traces import Trace


@dataclass(frozen=True, slots=True, kw_only=True)
class Cohort:
    """Samples memorized at the same t* (the paper's `Pretrain@t*`), or at neighbouring ones, merged."""

    name: str
    """`t*=250`, or `t*=250-1400` where merged."""
    first_step: int
    """Smallest t*."""
    last_step: int
    """Largest t*: from here on all of the cohort's samples are memorized."""
    samples_M: NDArray[np.int64]
    """Sample ids, ascending."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupCohorts:
    """Who of a group is memorized, and since when, seen from the end of the run."""

    group: str
    epsilon: float | None
    """Largest loss that counts as memorized, nats; None where `auto` and the group has no loss at all."""
    delta: float
    """Largest distance from the sample's last loss, nats."""
    memorized_steps_N: NDArray[np.int64]
    """t* of each sample, −1 = not memorized."""
    cohorts: tuple[Cohort, ...]
    """In order of t*; together every memorized sample once."""

    @property
    def memorized_samples(self) -> int:
        return int((self.memorized_steps_N >= 0).sum())

    @property
    def median_step(self) -> float | None:
        """Median t* of the memorized samples; None where there are none."""
        steps = self.memorized_steps_N[self.memorized_steps_N >= 0]
        return float(np.median(steps)) if len(steps) else None

    def memorized_by(self, step: int) -> NDArray[np.int64]:
        """Ids of the samples with t* <= step, ascending."""
        return np.flatnonzero((self.memorized_steps_N >= 0) & (self.memorized_steps_N <= step))


@dataclass(frozen=True, slots=True, kw_only=True)
class MemorizedCounts:
    """How many samples are memorized over time (Fig. 1)."""

    steps_T: NDArray[np.int64]
    new_T: NDArray[np.int64]
    """Samples with t* at this step."""
    cumulative_T: NDArray[np.int64]
    """Samples with t* at this step or before."""


def group_losses(trace: Trace, group: str) -> NDArray[np.float64]:
    """[N, T] losses of a group's samples, nats; NaN where none was seen."""
    losses_NT = trace.losses_TGN[:, trace.groups.index(group)].T.astype(np.float64)
    losses_NT[~np.isfinite(losses_NT)] = np.nan
    return losses_NT


def group_epsilon(trace: Trace, group: str) -> float | None:
    """`auto` ε of a group over the whole run, nats (B.1); None where no sample ever had a loss."""
    losses_NT = group_losses(trace, group)
    last_losses = [row[~np.isnan(row)][-1] for row in losses_NT if not np.isnan(row).all()]
    return auto_epsilon(np.array(last_losses)) if last_losses else None


def group_cohorts(
    trace: Trace, group: str, *, epsilon: float | None, delta: float, limit: int
) -> GroupCohorts:
    """At most `limit` cohorts of one group; ε (None = `auto`) and δ in nats, both inclusive (§3.1)."""
    chosen = group_epsilon(trace, group) if epsilon is None else epsilon
    if chosen is None:
        memorized_steps_N = np.full(trace.samples, -1, dtype=np.int64)
    else:
        memorized_steps_N = memorized_step(group_losses(trace, group), trace.steps_T, chosen, delta)
    return GroupCohorts(
        group=group,
        epsilon=chosen,
        delta=delta,
        memorized_steps_N=memorized_steps_N,
        cohorts=merged_cohorts(memorized_steps_N, limit),
    )


def merged_cohorts(memorized_steps_N: NDArray[np.int64], limit: int) -> tuple[Cohort, ...]:
    """The memorized samples (t* >= 0) in at most `limit` >= 1 cohorts, in order of t*.

    Every distinct t* is a cohort where there are no more than `limit`. Else neighbours are merged into
    cohorts of near-equal size: the k-th cut is the boundary between two t* nearest to k/limit of the
    samples (the earlier of two as near). Samples with the same t* stay together.
    """
    steps_U, counts_U = np.unique(memorized_steps_N[memorized_steps_N >= 0], return_counts=True)
    if not len(steps_U):
        return ()
    if len(steps_U) <= limit:
        ends = list(range(1, len(steps_U) + 1))
    else:
        reached_U = np.cumsum(counts_U)
        shares = reached_U[-1] * np.arange(1, limit) / limit
        cuts = {int(np.argmin(np.abs(reached_U - share))) + 1 for share in shares}
        ends = sorted(cuts | {len(steps_U)})
    starts = [0, *ends[:-1]]
    return tuple(
        _cohort(memorized_steps_N, int(steps_U[start]), int(steps_U[end - 1]))
        for start, end in zip(starts, ends, strict=True)
    )


def memorized_counts(memorized_steps_N: NDArray[np.int64], steps_T: NDArray[np.int64]) -> MemorizedCounts:
    """Counts at every log point (Fig. 1); `steps_T` rising, every t* among them."""
    new_T = (memorized_steps_N[None, :] == steps_T[:, None]).sum(axis=1)
    return MemorizedCounts(steps_T=steps_T, new_T=new_T, cumulative_T=np.cumsum(new_T))


def _cohort(memorized_steps_N: NDArray[np.int64], first_step: int, last_step: int) -> Cohort:
    steps = str(first_step) if first_step == last_step else f"{first_step}-{last_step}"
    return Cohort(
        name=f"t*={steps}",
        first_step=first_step,
        last_step=last_step,
        samples_M=np.flatnonzero((memorized_steps_N >= first_step) & (memorized_steps_N <= last_step)),
    )
