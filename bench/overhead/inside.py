"""What a variant takes of the main thread, and of memory: measured inside it, in blocks of their own."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bench.overhead import memory
from bench.overhead.attribution import Attribution
from bench.overhead.timing import Runner
from bench.overhead.variants import Variant


@dataclass(frozen=True, slots=True, kw_only=True)
class Inside:
    """Of one variant."""

    unobserved_seconds: float | None
    """Main thread, median of the steps in which nothing is taken in; None where there are none."""
    observed_seconds: float | None
    """The same of the other steps. On a CPU that includes the arithmetic itself."""
    amortized_seconds: float
    """Both, weighted by how often they come."""
    longest_seconds: float
    """In one step."""
    peak_bytes: int
    """How far the resident set rose above where it was with the variant attached."""
    tensor_bytes: int
    """What tensors held more at the end than before attaching."""
    steps: int


def look_inside(runner: Runner, variant: Variant, steps: int) -> Inside:
    """Run one block, timing the code of the variant's package only; slower than without, and not compared."""
    attribution = Attribution(variant.package)
    seconds_S, observed_S = np.empty(steps), np.empty(steps, np.bool_)
    held = memory.tensor_bytes()
    with runner.attached(variant):
        before = memory.resident_bytes()
        memory.reset_peak()
        for number in range(steps):
            taken, so_far = variant.taken, attribution.seconds
            with attribution.running():
                runner.step(variant, number)
            seconds_S[number] = attribution.seconds - so_far
            observed_S[number] = variant.taken != taken
        peak = memory.peak_bytes() - before
        held = memory.tensor_bytes() - held
    unobserved, observed = _median(seconds_S[~observed_S]), _median(seconds_S[observed_S])
    share = float(observed_S.mean())
    return Inside(
        unobserved_seconds=unobserved,
        observed_seconds=observed,
        amortized_seconds=(1 - share) * (unobserved or 0.0) + share * (observed or 0.0),
        longest_seconds=float(seconds_S.max()),
        peak_bytes=peak,
        tensor_bytes=held,
        steps=steps,
    )


def _median(seconds: NDArray[np.float64]) -> float | None:
    return float(np.median(seconds)) if len(seconds) else None
