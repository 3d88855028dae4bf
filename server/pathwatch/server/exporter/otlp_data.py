"""Prometheus families as OpenTelemetry's metric data; every name as Prometheus spells it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise

from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Gauge,
    Histogram,
    HistogramDataPoint,
    MetricsData,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
)
from opentelemetry.sdk.metrics.export import Metric as OtelMetric
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from prometheus_client.core import Metric, Sample

_CUMULATIVE = AggregationTemporality.CUMULATIVE
_Series = tuple[str, tuple[tuple[str, str], ...]]
"""Name and labels."""


class OtlpData:
    """Converts one state after the other; remembers of each series since when it counts."""

    def __init__(self, resource: Resource, began: int) -> None:
        """`began`: since when counters count, nanoseconds since the epoch."""
        self._resource = resource
        self._scope = InstrumentationScope("pathwatch")
        self._began = began
        self._before = began
        self._last: Mapping[_Series, tuple[int, float]] = {}
        """Since when a series counts, and how far it had come."""
        self._next: dict[_Series, tuple[int, float]] = {}

    def convert(self, families: Iterable[Metric], now: int) -> MetricsData:
        """The families as they are `now`, nanoseconds since the epoch."""
        self._next = {}
        metrics = [metric for family in families for metric in self._metrics(family, now)]
        self._last, self._before = self._next, now
        scope = ScopeMetrics(self._scope, metrics, schema_url="")
        return MetricsData([ResourceMetrics(self._resource, [scope], schema_url="")])

    def _metrics(self, family: Metric, now: int) -> Iterator[OtelMetric]:
        if family.type == "histogram":
            if points := list(self._histograms(family, now)):
                yield _metric(family, family.name, Histogram(points, _CUMULATIVE))
            return
        by_name: dict[str, list[Sample]] = {}
        for sample in family.samples:
            if not (family.type == "counter" and sample.name.endswith("_created")):
                by_name.setdefault(sample.name, []).append(sample)
        for name, samples in by_name.items():
            if family.type == "counter":
                yield _metric(family, name, Sum(self._sums(samples, now), _CUMULATIVE, is_monotonic=True))
            else:
                yield _metric(family, name, Gauge([_number(sample, 0, now) for sample in samples]))

    def _sums(self, samples: Iterable[Sample], now: int) -> Sequence[NumberDataPoint]:
        return [
            _number(sample, self._since(sample.name, sample.labels, float(sample.value)), now)
            for sample in samples
        ]

    def _histograms(self, family: Metric, now: int) -> Iterator[HistogramDataPoint]:
        by_labels: dict[tuple[tuple[str, str], ...], list[Sample]] = {}
        for sample in family.samples:
            labels = tuple((name, value) for name, value in sample.labels.items() if name != "le")
            by_labels.setdefault(labels, []).append(sample)
        for labels, samples in by_labels.items():
            buckets = sorted(
                (float(sample.labels["le"]), int(sample.value))
                for sample in samples
                if sample.name.endswith("_bucket")
            )
            total = next(float(sample.value) for sample in samples if sample.name.endswith("_sum"))
            count = buckets[-1][1]
            yield HistogramDataPoint(
                attributes=dict(labels),
                start_time_unix_nano=self._since(family.name, dict(labels), count),
                time_unix_nano=now,
                count=count,
                sum=total,
                bucket_counts=[after - before for (_, before), (_, after) in pairwise([(0.0, 0), *buckets])],
                explicit_bounds=[bound for bound, _ in buckets[:-1]],
                min=None,  # type: ignore[arg-type]  # not known; the protocol has them optional
                max=None,  # type: ignore[arg-type]
            )

    def _since(self, name: str, labels: Mapping[str, str], value: float) -> int:
        """Since when a series counts: one that fell, as of a run deleted and made again, counts anew."""
        series = name, tuple(sorted(labels.items()))
        since, last = self._last.get(series, (self._began, 0.0))
        if value < last:
            since = self._before
        self._next[series] = since, value
        return since


def _metric(family: Metric, name: str, data: Gauge | Sum | Histogram) -> OtelMetric:
    # The unit is in the name: said again, receivers would add it to the name once more.
    return OtelMetric(name=name, description=family.documentation, unit="", data=data)


def _number(sample: Sample, since: int, now: int) -> NumberDataPoint:
    return NumberDataPoint(
        attributes=dict(sample.labels),
        start_time_unix_nano=since,
        time_unix_nano=now,
        value=float(sample.value),
    )
