"""Rows as they come from SQLite."""

from __future__ import annotations

import json

from pathwatch.server.store.rows import RunRow, WindowRow

RUN_COLUMNS = (
    "name, config, finished, attempt, first_step, step, closed_step, world_size, groups, "
    "created_at, updated_at"
)
WINDOW_COLUMNS = (
    'attempt, first_step, step, "group", partial, judged, phase, reason, metrics, layer_path_distance'
)


def to_run(
    name: str,
    config: bytes,
    finished: int,
    attempt: int,
    first_step: int,
    step: int,
    closed_step: int,
    world_size: int,
    groups: str,
    created_at: float,
    updated_at: float,
) -> RunRow:
    """A row of RUN_COLUMNS."""
    return RunRow(
        name=name,
        config=config,
        finished=bool(finished),
        attempt=attempt,
        first_step=first_step,
        step=step,
        closed_step=closed_step,
        world_size=world_size,
        groups=tuple(json.loads(groups)),
        created_at=created_at,
        updated_at=updated_at,
    )


def to_window(
    run: str,
    attempt: int,
    first_step: int,
    step: int,
    group: str,
    partial: int,
    judged: int,
    phase: int,
    reason: str,
    metrics: str,
    layers: str,
    evidence: bytes,
    losses: bytes,
) -> WindowRow:
    """A row of WINDOW_COLUMNS, evidence and losses."""
    return WindowRow(
        run=run,
        attempt=attempt,
        first_step=first_step,
        step=step,
        group=group,
        partial=bool(partial),
        judged=bool(judged),
        phase=phase,
        reason=reason,
        metrics=json.loads(metrics),
        layer_path_distance=tuple(json.loads(layers)),
        evidence=evidence,
        losses=losses,
    )
