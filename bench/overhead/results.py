"""The numbers of a bench, by variant."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

import numpy as np

from bench.overhead.order import BASELINE
from bench.overhead.ratios import Block, Ratio, amortized, mean, median, p99, ratio, relative


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """Step times of one variant over the baseline's."""

    steps: int
    unobserved_median: Ratio | None
    """None where there are no such steps."""
    unobserved_p99: Ratio | None
    observed_median: Ratio | None
    amortized: Ratio
    mean: Ratio
    cpu: Ratio
    """Amortised, in processor time of the main thread."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Synchronised:
    """What a variant did to the device."""

    once: int
    """Waits for the device in the first interval."""
    copies: float
    """Asynchronous copies to the host, per step in which something is taken in."""
    blocking: float
    """Waits for the device, per such step, after the first interval."""
    unobserved_launched: int
    """Operations in all other steps after the first interval."""


def costs_of(run: Sequence[Block]) -> dict[str, Costs]:
    """Ratios of every variant of a run."""
    times, cpu = relative(run), relative(run, attrgetter("cpu_S"))
    baseline = times.pop(BASELINE)
    result = {}
    for name, variant in times.items():
        unobserved, observed = variant.of(observed=False), variant.of(observed=True)
        has_unobserved, has_observed = any(map(len, unobserved)), any(map(len, observed))
        result[name] = Costs(
            steps=sum(map(len, variant.times)),
            unobserved_median=ratio(unobserved, baseline.times, median) if has_unobserved else None,
            unobserved_p99=ratio(unobserved, baseline.times, p99) if has_unobserved else None,
            observed_median=ratio(observed, baseline.times, median) if has_observed else None,
            amortized=amortized(variant, baseline),
            mean=ratio(variant.times, baseline.times, mean),
            cpu=amortized(cpu[name], cpu[BASELINE]),
        )
    return result


def baseline_seconds(run: Sequence[Block]) -> tuple[float, float]:
    """Median and p99 of the baseline's steps."""
    seconds = np.concatenate([block.seconds_S for block in run if block.variant == BASELINE])
    return median(seconds), p99(seconds)


def synchronised(rows: Sequence[Mapping[str, Any]], every: int) -> Synchronised:
    """Of the rows of `synchronisation`, a step each: those with most operations are the ones that take in."""
    once, later = rows[:every], rows[every:]
    observed = len(later) // every
    launched = sorted((int(row["launched"]) for row in later), reverse=True)
    return Synchronised(
        once=sum(row["blocking"] for row in once),
        copies=sum(row["copies"] for row in later) / observed,
        blocking=sum(row["blocking"] for row in later) / observed,
        unobserved_launched=sum(launched[observed:]),
    )
