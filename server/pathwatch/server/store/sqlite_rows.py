"""Rows as they come from SQLite."""

from __future__ import annotations

import json
from typing import Any

import orjson

from pathwatch.server.store.interface import DamagedError
from pathwatch.server.store.rows import RunRow, WindowRow

RUN_COLUMNS = (
    "name, config, finished, attempt, first_step, step, closed_step, world_size, groups, "
    "created_at, updated_at"
)
WINDOW_COLUMNS = (
    'attempt, first_step, step, "group", partial, judged, phase, reason, metrics, layer_path_distance'
)


def from_json(text: str, what: str) -> Any:
    """What a column of text holds. Raises DamagedError, naming what it belongs to."""
    try:
        return orjson.loads(text)
    except ValueError:
        pass  # the standard library takes NaN and infinities, too
    try:
        return json.loads(text)
    except ValueError as error:
        raise DamagedError(
            f"{what} is damaged ({error}); with the server stopped, `pathwatch fsck` on the data folder says "
            "more and restores a snapshot"
        ) from error


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
    """A row of RUN_COLUMNS. Raises DamagedError."""
    return RunRow(
        name=name,
        config=config,
        finished=bool(finished),
        attempt=attempt,
        first_step=first_step,
        step=step,
        closed_step=closed_step,
        world_size=world_size,
        groups=tuple(from_json(groups, f"the list of groups of run {name!r}")),
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
    """A row of WINDOW_COLUMNS, evidence and losses. Raises DamagedError."""
    what = f"the window of run {run!r}, group {group!r}, at step {step}"
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
        metrics=from_json(metrics, what),
        layer_path_distance=tuple(from_json(layers, what)),
        evidence=evidence,
        losses=losses,
    )
