"""Views of runs made by hand, and an engine that shows them at a time that a test sets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pathwatch.server.engine.health import RunHealth
from pathwatch.server.engine.view import RunView
from pathwatch.server.phases.verdict import Action, Phase
from pathwatch.server.store.rows import WindowRow
from pathwatch.v1 import run_pb2, signal_pb2

START = 1_700_000_000.0
"""When data of a run last came unless said otherwise, seconds since the epoch."""


@dataclass(kw_only=True)
class Group:
    """Where a group stands; None = it has no window, or no verdict."""

    name: str
    metrics: Mapping[str, float] = field(default_factory=lambda: {"path_distance": 3.5, "window_samples": 64})
    layers: Sequence[float] = ()
    step: int | None = 40
    partial: bool = False
    phase: Phase | None = Phase.LEARNING
    since_step: int = 10
    best: int | None = None
    changes: int = 0


def health(**known: Any) -> RunHealth:
    """All is well."""
    fields: dict[str, Any] = {
        "observations": {"accepted": 0},
        "connected_ranks": 1,
        "missing_ranks": (),
        "partial_rounds": 0,
        "unjudged_rounds": 0,
    }
    return RunHealth(**fields | known)


def run_view(
    name: str,
    groups: Sequence[Group] = (),
    *,
    action: Action = Action.CONTINUE,
    stop_at_step: int | None = None,
    best: int | None = None,
    updated_at: float = START,
    run: Mapping[str, Any] | None = None,
    health: RunHealth = health(),  # noqa: B008  # never changed
    checkpoints: int = 0,
    registrations: int = 0,
) -> RunView:
    """A view whose groups came in the order in which they are given."""
    fields: dict[str, Any] = {
        "config": run_pb2.RunConfig(topology=run_pb2.Topology(layers=3, experts=4), policy="all-groups"),
        "state": run_pb2.RUN_STATE_ACTIVE,
        "step": 40,
        "world_size": 1,
        "closed_step": 40,
    }
    statuses = [
        signal_pb2.GroupStatus(
            group=group.name,
            phase=signal_pb2.Phase.ValueType(group.phase),
            since_step=group.since_step,
            best_checkpoint_step=group.best,
        )
        for group in sorted(groups, key=lambda group: group.name)
        if group.phase is not None
    ]
    return RunView(
        run=run_pb2.Run(name=name, groups=sorted(g.name for g in groups), **fields | dict(run or {})),
        last_signal=signal_pb2.Signal(
            run=name,
            action=signal_pb2.Action.ValueType(action),
            stop_at_step=stop_at_step,
            best_checkpoint_step=best,
            groups=statuses,
        ),
        windows={group.name: _window(name, group, group.step) for group in groups if group.step is not None},
        phase_changes={group.name: group.changes for group in groups if group.changes},
        groups=tuple(group.name for group in groups),
        checkpoints=checkpoints,
        registrations=registrations,
        inherited_revision=0,
        updated_at=updated_at,
        patience=60.0,
        health=health,
    )


def _window(run: str, group: Group, step: int) -> WindowRow:
    return WindowRow(
        run=run,
        attempt=0,
        first_step=step,
        step=step,
        group=group.name,
        partial=group.partial,
        judged=True,
        phase=group.phase or Phase.UNKNOWN,
        reason="",
        metrics=group.metrics,
        layer_path_distance=tuple(group.layers),
        evidence=b"",
        losses=b"",
    )


class ShownEngine:
    """Stands in for the engine where only views and the time are read."""

    def __init__(self, *views: RunView, now: float = START) -> None:
        self.views: Mapping[str, RunView] = {view.run.name: view for view in views}
        self.time = now

    def show(self, *views: RunView) -> None:
        """These and no others from now on."""
        self.views = {view.run.name: view for view in views}

    def now(self) -> float:
        return self.time
