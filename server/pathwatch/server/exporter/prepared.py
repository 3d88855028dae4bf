"""A family whose lines are at hand, for whoever writes lines; others ask it for samples like any family."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property

from prometheus_client.core import Metric, Sample

from pathwatch.server.exporter.families import Family, Point

PointsByFamily = Callable[[], Mapping[Family, Sequence[Point]]]


class PreparedFamily(Metric):
    """One of many that are collected together."""

    def __init__(self, family: Family, lines: Sequence[str], points: PointsByFamily) -> None:
        """`points` gives the points of all families; it is called only where samples are asked for."""
        super().__init__(family.name, family.help, family.kind)
        del self.samples  # made when asked for
        self._family = family
        self._lines = lines
        self._points = points

    def text(self, *, openmetrics: bool) -> str:
        """Header and lines, in OpenMetrics or in the text format."""
        return self._family.header(openmetrics=openmetrics) + "".join(self._lines)

    @cached_property
    def samples(self) -> list[Sample]:  # type: ignore[override]  # the base class sets it, and it is deleted
        """As prometheus_client wants them."""
        return [
            Sample(family.sample_name, dict(labels.pairs), float(value))
            for family, labels, value in self._points().get(self._family, ())
        ]
