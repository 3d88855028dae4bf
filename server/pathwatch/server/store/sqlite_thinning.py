"""Few windows that stand for many, found by seeks: the rest is counted in an index but not read, so that the
longest history is shown about as fast as a short one."""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Iterator

from pathwatch.server.phases.verdict import Phase
from pathwatch.server.store.rows import WindowRow
from pathwatch.server.store.sqlite_rows import WINDOW_COLUMNS, to_window

# Without its +, SQLite would take the index by phase, and sort the whole group for each answer.
_IN_FORCE = 'run=:run AND +"group"=:group AND step>:after AND superseded=0'

_AT_OR_AFTER = f"""
SELECT {WINDOW_COLUMNS}, x'', x'' FROM windows WHERE rowid IN (
    SELECT (
        SELECT rowid FROM windows
        WHERE run=:run AND +"group"=:group AND step>=target.value AND superseded=0 ORDER BY step LIMIT 1
    ) FROM json_each(:targets) AS target
) ORDER BY step
"""  # noqa: S608

_NEXT_TURN = f"""
SELECT (
    SELECT min(step) FROM windows
    WHERE run=:run AND "group"=:group AND phase=other.value AND step>:after AND superseded=0
) AS turn, other.value FROM json_each('{json.dumps([*Phase])}') AS other
WHERE other.value<>:phase AND turn IS NOT NULL ORDER BY turn LIMIT 1
"""  # noqa: S608


def thinned_windows(
    db: sqlite3.Connection, run: str, group: str, after_step: int, points: int
) -> tuple[list[WindowRow], int]:
    """At most `points` windows with step > after_step, and their stride: as `StoreReader.thinned_history`."""
    key = {"run": run, "group": group, "after": after_step}
    steps = [
        step
        for (step,) in db.execute(
            f"SELECT step FROM windows WHERE {_IN_FORCE} ORDER BY step LIMIT :limit",  # noqa: S608
            {**key, "limit": points + 1},
        )
    ]
    if len(steps) <= points:
        return _windows(db, run, group, steps), 1
    first = steps[0]
    last, total = db.execute(
        # The other way round: counted in the index by phase, which alone holds all that is asked.
        'SELECT max(step), count(*) FROM windows WHERE run=:run AND "group"=:group AND +step>:after '
        "AND superseded=0",
        key,
    ).fetchone()
    kept = {first, last}
    for turn in _turns(db, run, group, first):
        kept.add(turn)
        if len(kept) > points:
            kept = {first, last}
            break
    between = points - len(kept)
    kept.update(first + (last - first) * i // (between + 1) for i in range(1, between + 1))
    windows = _windows(db, run, group, sorted(kept))
    return windows, math.ceil(total / len(windows))


def _windows(db: sqlite3.Connection, run: str, group: str, targets: list[int]) -> list[WindowRow]:
    """The first window at or after each step."""
    rows = db.execute(_AT_OR_AFTER, {"run": run, "group": group, "targets": json.dumps(targets)})
    return [to_window(run, *row) for row in rows]


def _turns(db: sqlite3.Connection, run: str, group: str, first: int) -> Iterator[int]:
    """Steps after `first` at which the phase is not what it was before."""
    (window,) = _windows(db, run, group, [first])
    step, phase = window.step, window.phase
    while turn := db.execute(
        _NEXT_TURN, {"run": run, "group": group, "after": step, "phase": phase}
    ).fetchone():
        step, phase = turn
        yield step
