"""A run's history as columns."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pathwatch.server.messages import phase_name
from pathwatch.server.statuspage.documents import VERSION
from pathwatch.server.statuspage.values import JsonObject
from pathwatch.server.store.answers import ThinnedHistory
from pathwatch.server.store.rows import WindowRow
from pathwatch.v1 import signal_pb2


def series_document(run: str, history: ThinnedHistory, metrics: Iterable[str] | None) -> JsonObject:
    """All metrics that the windows of a group have, or the named ones."""
    return {
        "version": VERSION,
        "run": run,
        "closed_step": history.closed_step,
        "attempt": history.attempt,
        "stride": history.stride,
        "groups": {group: _columns(windows, metrics) for group, windows in history.windows.items()},
    }


def layers_document(run: str, group: str, layers: int, history: ThinnedHistory) -> JsonObject:
    """Distance per layer of one group's windows."""
    known = [window for window in history.windows[group] if window.layer_path_distance]
    return {
        "version": VERSION,
        "run": run,
        "group": group,
        "layers": layers,
        "step": [window.step for window in known],
        "distance": [list(window.layer_path_distance) for window in known],
    }


def _columns(windows: Sequence[WindowRow], metrics: Iterable[str] | None) -> JsonObject:
    names = sorted(set().union(*(window.metrics for window in windows))) if metrics is None else metrics
    return {
        "step": [window.step for window in windows],
        "attempt": [window.attempt for window in windows],
        "phase": [phase_name(signal_pb2.Phase.ValueType(window.phase)) for window in windows],
        "partial": [window.partial for window in windows],
        "metrics": {name: [window.metrics.get(name) for window in windows] for name in names},
    }
