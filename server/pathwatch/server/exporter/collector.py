"""Live state as Prometheus metrics, read at every scrape (docs/operations.md)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from pathwatch.server.engine.engine import Engine
from pathwatch.server.engine.stats import Stats
from pathwatch.server.engine.view import RunView
from pathwatch.server.exporter.names import METRIC_HELP, PREFIX, help_text, is_metric_name
from pathwatch.server.phases.verdict import Phase
from pathwatch.v1 import run_pb2

FINISHED_SECONDS = 3600.0
"""How long a finished run is still published, so that its last values are scraped."""


class StateCollector(Collector):
    """Reads the engine's views; a run's series go when it is deleted, or an hour after it finished."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def collect(self) -> Iterator[Metric]:
        """All families, each once."""
        now = self._engine.now()
        views = [view for _, view in sorted(self._engine.views.items()) if _is_published(view, now)]
        yield from _group_metrics(views)
        yield from _phases(views, now)
        yield from _runs(views, now)
        yield from _observations(views)
        yield from _ingest(self._engine.stats)


def _is_published(view: RunView, now: float) -> bool:
    return view.run.state == run_pb2.RUN_STATE_ACTIVE or now - view.updated_at < FINISHED_SECONDS


def _group_metrics(views: Iterable[RunView]) -> Iterator[Metric]:
    families = {
        name: GaugeMetricFamily(PREFIX + name, text, labels=["run", "group"])
        for name, text in METRIC_HELP.items()
    }
    layers = GaugeMetricFamily(
        PREFIX + "layer_path_distance",
        "Path distance of one layer, in symbols; lower = more shared (paper Fig. 5). Only where asked for.",
        labels=["run", "group", "layer"],
    )
    for view in views:
        for group, window in sorted(view.windows.items()):
            for name, value in window.metrics.items():
                if name not in families and is_metric_name(name):
                    families[name] = GaugeMetricFamily(
                        PREFIX + name, help_text(name), labels=["run", "group"]
                    )
                if name in families:
                    families[name].add_metric([view.run.name, group], value)
            for layer, value in enumerate(window.layer_path_distance):
                layers.add_metric([view.run.name, group, str(layer)], value)
    yield from families.values()
    yield layers


def _phases(views: Iterable[RunView], now: float) -> Iterator[Metric]:
    phases = GaugeMetricFamily(
        PREFIX + "group_phase",
        "1 for the phase a group is in, 0 for all others; UNKNOWN too while no data comes.",
        labels=["run", "group", "phase"],
    )
    changes = CounterMetricFamily(
        PREFIX + "phase_changes", "Changes of a group's phase.", labels=["run", "group"]
    )
    for view in views:
        for status in view.signal(now).groups:
            for phase in Phase:
                phases.add_metric(
                    [view.run.name, status.group, phase.name], float(int(status.phase) == phase)
                )
            changes.add_metric([view.run.name, status.group], view.phase_changes.get(status.group, 0))
    yield phases
    yield changes


def _runs(views: Iterable[RunView], now: float) -> Iterator[Metric]:
    step = GaugeMetricFamily(
        PREFIX + "run_step", "Newest optimizer step seen of a run, -1 before the first.", labels=["run"]
    )
    stop = GaugeMetricFamily(
        PREFIX + "run_stop_at_step", "Step at which a run is told to stop; absent = train on.", labels=["run"]
    )
    best = GaugeMetricFamily(
        PREFIX + "best_checkpoint_step",
        "Step of the best registered checkpoint so far; the series with an empty group is the overall one.",
        labels=["run", "group"],
    )
    age = GaugeMetricFamily(
        PREFIX + "state_age_seconds", "Seconds since data of an active run last came.", labels=["run"]
    )
    for view in views:
        name, signal = view.run.name, view.last_signal
        step.add_metric([name], view.run.step)
        if signal.HasField("stop_at_step"):
            stop.add_metric([name], signal.stop_at_step)
        if signal.HasField("best_checkpoint_step"):
            best.add_metric([name, ""], signal.best_checkpoint_step)
        for status in signal.groups:
            if status.HasField("best_checkpoint_step"):
                best.add_metric([name, status.group], status.best_checkpoint_step)
        if view.run.state == run_pb2.RUN_STATE_ACTIVE:
            age.add_metric([name], max(0.0, now - view.updated_at))
    yield from (step, stop, best, age)


def _observations(views: Iterable[RunView]) -> Iterator[Metric]:
    observations = CounterMetricFamily(
        PREFIX + "ingest_observations",
        "Observations received, by what became of them: accepted, late (window closed), "
        "beyond (not in the sketch), duplicate (message sent again), rejected (invalid).",
        labels=["run", "result"],
    )
    for view in views:
        for result, count in view.health.observations.items():
            observations.add_metric([view.run.name, result], count)
    yield observations


def _ingest(stats: Stats) -> Iterator[Metric]:
    yield CounterMetricFamily(
        PREFIX + "ingest_bytes", "Serialized bytes of all messages received on streams.", value=stats.bytes
    )
    limits = CounterMetricFamily(
        PREFIX + "limit_refusals",
        "What was refused because it was past a limit, by the limit (docs/operations.md).",
        labels=["limit"],
    )
    for limit, count in sorted(stats.limits_hit.items()):
        limits.add_metric([limit], count)
    yield limits
    yield CounterMetricFamily(
        PREFIX + "commit_failures",
        "Transactions that could not be written; nothing is acknowledged meanwhile.",
        value=stats.commit_failures,
    )
    yield HistogramMetricFamily(
        PREFIX + "window_close_seconds",
        "Seconds from the close of a round of windows to its durable verdict.",
        buckets=[
            ("+Inf" if bound == float("inf") else str(bound), count)
            for bound, count in stats.window_close.cumulative()
        ],
        sum_value=stats.window_close.total,
    )
