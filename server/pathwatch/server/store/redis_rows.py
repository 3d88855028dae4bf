"""Rows as they stand in Redis: text where it is short, bytes where it is not."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from pathwatch.server.store.interface import DamagedError
from pathwatch.server.store.redis_keys import STEP_DIGITS
from pathwatch.server.store.rows import RunRow, SignalRow, WindowRow


def step_text(step: int) -> str:
    """A step, 0 or more, as it sorts."""
    return f"{step:0{STEP_DIGITS}d}"


def field_of(step: int, group: str) -> str:
    """By which the window of a step and group is known."""
    return f"{step_text(step)}\0{group}"


def run_text(row: RunRow) -> str:
    """A run's row without its configuration."""
    return json.dumps(
        [
            row.finished,
            row.attempt,
            row.first_step,
            row.step,
            row.closed_step,
            row.world_size,
            row.groups,
            row.created_at,
            row.updated_at,
        ]
    )


def to_run(name: str, text: bytes, config: bytes) -> RunRow:
    """Raises DamagedError."""
    finished, attempt, first, step, closed, world_size, groups, created, updated = _from_json(
        text, 9, f"run {name!r}"
    )
    return RunRow(
        name=name,
        config=config,
        finished=finished,
        attempt=attempt,
        first_step=first,
        step=step,
        closed_step=closed,
        world_size=world_size,
        groups=tuple(groups),
        created_at=created,
        updated_at=updated,
    )


def window_text(row: WindowRow) -> str:
    """A window without its distances per layer, evidence and losses; attempt and phase first, for scripts."""
    told = [row.first_step, row.partial, row.judged, row.reason, dict(row.metrics)]
    return f"{row.attempt} {int(row.phase)} {json.dumps(told)}"


def to_window(
    run: str, known_by: bytes, text: bytes, layers: bytes, evidence: bytes, losses: bytes
) -> WindowRow:
    """Raises DamagedError."""
    step, _, group = known_by.partition(b"\0")
    what = f"the window of run {run!r} known by {known_by!r}"
    attempt, phase, told = (*text.split(b" ", 2), b"", b"")[:3]
    first_step, partial, judged, reason, metrics = _from_json(told, 5, what)
    return WindowRow(
        run=run,
        attempt=int(attempt),
        first_step=first_step,
        step=int(step),
        group=group.decode(),
        partial=partial,
        judged=judged,
        phase=int(phase),
        reason=reason,
        metrics=metrics,
        layer_path_distance=tuple(_from_json(layers, None, what)),
        evidence=evidence,
        losses=losses,
    )


def remains(row: WindowRow) -> bytes:
    """Evidence and losses of a window, in one."""
    return b"%d %b%b" % (len(row.evidence), row.evidence, row.losses)


def split_remains(run: str, value: bytes | None) -> tuple[bytes, bytes]:
    """Evidence and losses. Raises DamagedError."""
    size, blank, both = (value or b"").partition(b" ")
    if not blank or not size.isdigit() or int(size) > len(both):
        raise _damaged(f"the evidence of a window of run {run!r}", "it has no size")
    return both[: int(size)], both[int(size) :]


def signal_value(row: SignalRow) -> bytes:
    """A signal with its revision and step."""
    return b"%d %d %b" % (row.revision, row.step, row.signal)


def to_signal(run: str, value: bytes) -> SignalRow:
    """Raises DamagedError."""
    try:
        revision, step, signal = value.split(b" ", 2)
        return SignalRow(run=run, revision=int(revision), step=int(step), signal=signal)
    except ValueError as error:
        raise _damaged(f"a signal of run {run!r}", error) from error


def _from_json(text: bytes, count: int | None, what: str) -> Sequence[Any]:
    try:
        found = json.loads(text)
        if not isinstance(found, list) or (count is not None and len(found) != count):
            raise ValueError("another list was wanted")
    except ValueError as error:
        raise _damaged(what, error) from error
    return found


def _damaged(what: str, problem: object) -> DamagedError:
    return DamagedError(
        f"{what} is damaged in Redis ({problem}); restore Redis from a backup, or delete the run"
    )
