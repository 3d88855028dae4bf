"""A metric: how many experts a group leaves unused."""

from collections.abc import Mapping, Sequence

from pathwatch.server.metrics.window import Geometry, WindowArrays

UNUSED_SHARE = 0.1
"""An expert is unused when it gets less than this share of what it would get under uniform routing."""


def dead_experts(
    window: WindowArrays, others: Sequence[WindowArrays], geometry: Geometry | None
) -> Mapping[str, float]:
    """`dead_experts`: mean number of experts per layer with next to no weight; lower = better balanced."""
    load_LK = window.weights_NLK.mean(axis=0, dtype=float)
    dead_L = (load_LK < UNUSED_SHARE / load_LK.shape[1]).sum(axis=1)
    return {"dead_experts": float(dead_L.mean())}
