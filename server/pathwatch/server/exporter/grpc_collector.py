"""Calls, their time and their messages as Prometheus metrics, under the names that gRPC shops know."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from pathwatch.server.api.call_counts import CallCounts, MethodCounts
from pathwatch.server.exporter.buckets import buckets_of

_PREFIX = "grpc_server_"
_LABELS = ("grpc_type", "grpc_service", "grpc_method")


class GrpcCollector(Collector):
    """Reads the counts at every scrape."""

    def __init__(self, calls: CallCounts) -> None:
        self._calls = calls

    def collect(self) -> Iterator[Metric]:
        """All families, each once."""
        methods = [(_values(counts), counts) for counts in self._calls.all()]
        handled = CounterMetricFamily(
            _PREFIX + "handled",
            "Calls that have ended, by the code that the server ended them with, refused ones included.",
            labels=[*_LABELS, "grpc_code"],
        )
        seconds = HistogramMetricFamily(
            _PREFIX + "handling_seconds",
            "Seconds from the start of a call to its end; of streams, how long they were open.",
            labels=_LABELS,
        )
        in_flight = GaugeMetricFamily(_PREFIX + "in_flight", "Calls under way.", labels=_LABELS)
        for labels, counts in methods:
            for code, count in sorted(counts.handled.copy().items()):
                handled.add_metric([*labels, code], count)
            seconds.add_metric(labels, buckets_of(counts.handling), counts.handling.total)
            in_flight.add_metric(labels, counts.in_flight)
        yield from (handled, seconds, in_flight)
        for name, text, field in _COUNTERS:
            counter = CounterMetricFamily(_PREFIX + name, text, labels=_LABELS)
            for labels, counts in methods:
                counter.add_metric(labels, getattr(counts, field))
            yield counter


_SIZE = "as serialized: not compressed, without headers of HTTP/2 and gRPC."
_COUNTERS = (
    ("started", "Calls that have begun.", "started"),
    ("msg_received", "Messages received in calls.", "received"),
    ("msg_sent", "Messages sent in calls.", "sent"),
    ("msg_received_bytes", f"Bytes of messages received, {_SIZE}", "received_bytes"),
    ("msg_sent_bytes", f"Bytes of messages sent, {_SIZE}", "sent_bytes"),
)


def _values(counts: MethodCounts) -> tuple[str, str, str]:
    return counts.type, counts.service, counts.method
