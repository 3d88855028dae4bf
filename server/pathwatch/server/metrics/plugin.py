"""What a further metric implements: entry points `pathwatch.metrics`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from pathwatch.server.metrics.window import Geometry, WindowArrays


class Metric(Protocol):
    """A function, or an object that can be called; pure, without memory."""

    def __call__(
        self, window: WindowArrays, others: Sequence[WindowArrays], geometry: Geometry | None
    ) -> Mapping[str, float]:
        """Values of one window, by name.

        `others` are the windows of the run's other groups that end at the same step. Names consist of
        letters, digits and underscores, as a Prometheus name does, and are published with the prefix
        `pathwatch_`; leave out what is undefined.
        """
        ...
