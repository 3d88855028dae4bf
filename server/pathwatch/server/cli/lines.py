"""The JSON lines that commands print (docs/operations.md)."""

from __future__ import annotations

import math

from pathwatch.server.messages import (
    action_name,
    best_checkpoint_by_group,
    best_checkpoint_step,
    phase_name,
    state_name,
    stop_at_step,
)
from pathwatch.v1 import run_pb2, signal_pb2


def window_line(run: str, window: signal_pb2.Window) -> dict[str, object]:
    """Undefined metrics are absent."""
    return {
        "type": "window",
        "run": run,
        "group": window.group,
        "step": window.step,
        "phase": phase_name(window.phase),
        "metrics": {name: value for name, value in sorted(window.metrics.items()) if math.isfinite(value)},
    }


def signal_line(signal: signal_pb2.Signal) -> dict[str, object]:
    """Free of times and counters, so that the same run always prints the same."""
    return {
        "type": "signal",
        "step": signal.step,
        "action": action_name(signal.action),
        "stop_at_step": stop_at_step(signal),
        "reason": signal.reason,
        "best_checkpoint_step": best_checkpoint_step(signal),
        "best_checkpoint_by_group": best_checkpoint_by_group(signal),
    }


def verdict_line(signal: signal_pb2.Signal) -> dict[str, object]:
    """A signal with everything known about it."""
    return {
        **signal_line(signal),
        "run": signal.run,
        "stale": signal.stale,
        "revision": signal.revision,
        "created_at": signal.created_at.ToJsonString(),
        "groups": {
            status.group: {
                "phase": phase_name(status.phase),
                "since_step": status.since_step,
                "reason": status.reason,
                "evidence": {
                    name: value for name, value in sorted(status.evidence.items()) if math.isfinite(value)
                },
                "best_checkpoint_step": best_checkpoint_step(status),
            }
            for status in signal.groups
        },
    }


def run_line(run: run_pb2.Run) -> dict[str, object]:
    return {
        "type": "run",
        "run": run.name,
        "state": state_name(run.state),
        "attempt": run.attempt,
        "step": run.step,
        "closed_step": run.closed_step,
        "groups": list(run.groups),
        "layers": run.config.topology.layers,
        "experts": run.config.topology.experts,
        "world_size": run.world_size,
        "created_at": run.created_at.ToJsonString(),
        "updated_at": run.updated_at.ToJsonString(),
    }


def checkpoint_line(place: int, ranked: run_pb2.RankedCheckpoint) -> dict[str, object]:
    return {
        "type": "checkpoint",
        "place": place,
        "step": ranked.checkpoint.step,
        "tag": ranked.checkpoint.tag,
        "attempt": ranked.checkpoint.attempt,
        "score": ranked.score if math.isfinite(ranked.score) else None,
        "reason": ranked.reason,
    }
