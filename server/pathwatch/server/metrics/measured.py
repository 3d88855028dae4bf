"""Routing weights with what several metrics and the detector need of them: computed when first asked for."""

from __future__ import annotations

from collections.abc import Sequence

from pathwatch.server.metrics.arrays import Floats
from pathwatch.server.metrics.dimension import EffectiveDimension, effective_dimension
from pathwatch.server.metrics.pathways import pathways_at


class MeasuredRouting:
    """The routing of n >= 1 samples. The weights must not change any more."""

    def __init__(self, weights_NLK: Floats) -> None:
        self._weights_NLK = weights_NLK
        self._pathways: dict[float, list[str]] = {}
        self._dimensions: dict[float, EffectiveDimension] = {}

    def pathways(self, thresholds: Sequence[float]) -> list[list[str]]:
        """Each sample's pathway at each of some thresholds (`pathways`): [thresholds][n]."""
        missing = [threshold for threshold in thresholds if threshold not in self._pathways]
        if missing:
            self._pathways.update(zip(missing, pathways_at(self._weights_NLK, missing), strict=True))
        return [self._pathways[threshold] for threshold in thresholds]

    def dimension(self, ridge: float) -> EffectiveDimension:
        """The effective dimension at λ = `ridge` (`dimension`)."""
        if ridge not in self._dimensions:
            self._dimensions[ridge] = effective_dimension(self._weights_NLK, ridge)
        return self._dimensions[ridge]
