"""What the JSON API says of runs as they stand (docs/api.md): views in, documents out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from importlib.metadata import version

from pathwatch.server.engine.view import RunView
from pathwatch.server.exporter.names import help_text
from pathwatch.server.messages import (
    action_name,
    best_checkpoint_step,
    phase_name,
    state_name,
    stop_at_step,
)
from pathwatch.server.statuspage.values import JsonObject, number, numbers, time_text
from pathwatch.server.store.rows import WindowRow
from pathwatch.v1 import run_pb2, signal_pb2

VERSION = 1
"""Of the documents; part of every path."""
_UNSEEN = signal_pb2.GroupStatus(
    phase=signal_pb2.PHASE_UNKNOWN, reason="No window of this group has been judged yet."
)


@cache
def server_version() -> str:
    """Of the installed distribution."""
    return version("pathwatch")


def runs_document(views: Iterable[RunView], now: float) -> JsonObject:
    """All runs, newest first. `now` is in seconds since the epoch, here and below."""
    newest_first = sorted(views, key=lambda view: (-view.run.created_at.ToNanoseconds(), view.run.name))
    return {
        "version": VERSION,
        "now": time_text(now),
        "server_version": server_version(),
        "runs": [_summary(view, view.signal(now)) for view in newest_first],
    }


def run_document(view: RunView, now: float) -> JsonObject:
    """All that is known of a run at this moment, without its history."""
    signal = view.signal(now)
    metrics = sorted({name for window in view.windows.values() for name in window.metrics})
    return {
        "version": VERSION,
        "now": time_text(now),
        **_summary(view, signal),
        "config": _config(view.run.config),
        "signal": {
            "revision": signal.revision,
            "created_at": time_text(signal.created_at.ToMicroseconds() / 1e6),
            "step": signal.step,
            "action": action_name(signal.action),
            "stop_at_step": stop_at_step(signal),
            "reason": signal.reason,
            "stale": signal.stale,
            "best_checkpoint_step": best_checkpoint_step(signal),
        },
        "groups": [
            {
                **_group(name, status, window),
                "reason": status.reason,
                "evidence": numbers(status.evidence),
                "best_checkpoint_step": best_checkpoint_step(status),
                "window": window and _window(window),
            }
            for name, status, window in _groups(view, signal)
        ],
        "health": _health(view, now),
        "metric_help": {name: help_text(name) for name in metrics},
    }


def _summary(view: RunView, signal: signal_pb2.Signal) -> JsonObject:
    run = view.run
    return {
        "name": run.name,
        "state": state_name(run.state).lower(),
        "step": run.step,
        "closed_step": run.closed_step,
        "attempt": run.attempt,
        "created_at": time_text(run.created_at.ToMicroseconds() / 1e6),
        "updated_at": time_text(view.updated_at),
        "stale": signal.stale,
        "action": action_name(signal.action),
        "stop_at_step": stop_at_step(signal),
        "reason": signal.reason,
        "best_checkpoint_step": best_checkpoint_step(signal),
        "groups": [_group(*group) for group in _groups(view, signal)],
    }


def _groups(
    view: RunView, signal: signal_pb2.Signal
) -> list[tuple[str, signal_pb2.GroupStatus, WindowRow | None]]:
    """Every group that data came of, judged or not, by name."""
    judged: Mapping[str, signal_pb2.GroupStatus] = {status.group: status for status in signal.groups}
    names = sorted({*view.run.groups, *judged})
    return [(name, judged.get(name, _UNSEEN), view.windows.get(name)) for name in names]


def _group(name: str, status: signal_pb2.GroupStatus, window: WindowRow | None) -> JsonObject:
    memorized = window.metrics.get("memorized_ratio") if window else None
    return {
        "group": name,
        "phase": phase_name(status.phase),
        "since_step": status.since_step if status.group else None,
        "memorized_ratio": None if memorized is None else number(memorized),
    }


def _window(window: WindowRow) -> JsonObject:
    return {
        "step": window.step,
        "first_step": window.first_step,
        "partial": window.partial,
        "metrics": numbers(window.metrics),
    }


def _health(view: RunView, now: float) -> JsonObject:
    return {
        "world_size": view.run.world_size,
        "connected_ranks": view.health.connected_ranks,
        "missing_ranks": list(view.health.missing_ranks),
        "partial_rounds": view.health.partial_rounds,
        "unjudged_rounds": view.health.unjudged_rounds,
        "observations": dict(view.health.observations),
        "seconds_since_data": round(max(0.0, now - view.updated_at), 3),
        "patience_seconds": round(view.patience, 3),
    }


def _config(config: run_pb2.RunConfig) -> JsonObject:
    return {
        "mode": run_pb2.ObservationMode.Name(config.mode).removeprefix("OBSERVATION_MODE_").lower(),
        "window_steps": config.window_steps or None,
        "layers": config.topology.layers,
        "experts": config.topology.experts,
        "capacity": config.capacity,
        "grace_seconds": config.grace_seconds,
        "thresholds": list(config.thresholds),
        "detector": config.detector,
        "policy": config.policy,
        "policy_options": dict(sorted(config.policy_options.items())),
        "per_layer": config.per_layer,
        "keep_observations": config.keep_observations,
    }
