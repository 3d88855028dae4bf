"""A recorded run as the windows that the live service would have computed on."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from pathwatch.server.metrics.window import Geometry, WindowArrays
from pathwatch.server.traces import Trace


def trace_windows(trace: Trace, point: int) -> Mapping[str, WindowArrays]:
    """The windows of all groups at log point `point` (0 … T-1), by group; sample ids are 0 … N-1."""
    step = int(trace.steps_T[point])
    return {
        group: WindowArrays(
            group=group,
            first_step=step,
            step=step,
            sample_ids_N=np.arange(trace.samples, dtype=np.int64),
            losses_N=trace.losses_TGN[point, g].astype(np.float64),
            weights_NLK=trace.weights_TGNLK[point, g].astype(np.float32),
            target_weights_NLK=None
            if trace.target_weights_TGNLK is None
            else trace.target_weights_TGNLK[point, g].astype(np.float32),
            targets_N=None if trace.targets_GN is None else trace.targets_GN[g],
            visits_N=None if trace.visits_TGN is None else trace.visits_TGN[point, g],
            tokens_N=np.ones(trace.samples, dtype=np.int64),
        )
        for g, group in enumerate(trace.groups)
    }


def trace_geometry(trace: Trace, point: int) -> Geometry | None:
    """Inner products of expert embeddings at a log point; None where the trace has none."""
    if trace.gram_self_TLKK is None or trace.gram_next_TLKK is None:
        return None
    return Geometry(
        step=int(trace.steps_T[point]),
        gram_self_LKK=trace.gram_self_TLKK[point],
        gram_next_LKK=trace.gram_next_TLKK[point],
    )
