"""Damaged copies of a trace, to see what verdicts hang on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from pathwatch.server.traces import Trace

_Number = TypeVar("_Number", bound=np.generic)

REPEATS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Damaged:
    """A damaged trace, and which log point of the original each of its own is."""

    trace: Trace
    points_T: NDArray[np.intp]


def _same_points(trace: Trace) -> Damaged:
    return Damaged(trace=trace, points_T=np.arange(len(trace.steps_T)))


def _at(values: NDArray[_Number] | None, points_T: NDArray[np.intp]) -> NDArray[_Number] | None:
    return None if values is None else values[points_T]


def _at_points(trace: Trace, points_T: NDArray[np.intp], steps_T: NDArray[np.int64]) -> Damaged:
    damaged = replace(
        trace,
        steps_T=steps_T,
        losses_TGN=trace.losses_TGN[points_T],
        weights_TGNLK=trace.weights_TGNLK[points_T],
        target_weights_TGNLK=_at(trace.target_weights_TGNLK, points_T),
        visits_TGN=_at(trace.visits_TGN, points_T),
        gram_self_TLKK=_at(trace.gram_self_TLKK, points_T),
        gram_next_TLKK=_at(trace.gram_next_TLKK, points_T),
    )
    return Damaged(trace=damaged, points_T=points_T)


def _half_samples(trace: Trace) -> Damaged:
    """Every other sample."""
    target_weights, targets, visits = trace.target_weights_TGNLK, trace.targets_GN, trace.visits_TGN
    return _same_points(
        replace(
            trace,
            losses_TGN=trace.losses_TGN[:, :, ::2],
            weights_TGNLK=trace.weights_TGNLK[:, :, ::2],
            target_weights_TGNLK=None if target_weights is None else target_weights[:, :, ::2],
            targets_GN=None if targets is None else targets[:, ::2],
            visits_TGN=None if visits is None else visits[:, :, ::2],
        )
    )


def _thinned(trace: Trace) -> Damaged:
    """Every other log point."""
    points_T = np.arange(0, len(trace.steps_T), 2)
    return _at_points(trace, points_T, trace.steps_T[points_T])


def _repeated(trace: Trace) -> Damaged:
    """Every log point `REPEATS` times at evenly spread steps; steps × `REPEATS`, so that they stay whole."""
    points_T = np.repeat(np.arange(len(trace.steps_T)), REPEATS)
    # A trace of one point has no spacing of its own.
    last_gap = int(trace.steps_T[-1] - trace.steps_T[-2]) if len(trace.steps_T) > 1 else 1
    gaps = np.append(np.diff(trace.steps_T), last_gap)
    within = np.tile(np.arange(REPEATS), len(trace.steps_T))
    return _at_points(trace, points_T, trace.steps_T[points_T] * REPEATS + within * gaps[points_T])


VARIANTS: dict[str, Callable[[Trace], Damaged]] = {
    "as-is": _same_points,
    "half-samples": _half_samples,
    "thinned": _thinned,
    "repeated": _repeated,
    "steps-x250": lambda trace: _same_points(replace(trace, steps_T=trace.steps_T * 250)),
    "no-targets": lambda trace: _same_points(replace(trace, targets_GN=None)),
    "no-visits": lambda trace: _same_points(replace(trace, visits_TGN=None)),
}
