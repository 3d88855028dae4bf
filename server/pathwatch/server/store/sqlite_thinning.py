"""Few windows that stand for many, found by seeks: the rest is neither read nor counted, so that the longest
history is shown as fast as a short one."""

from __future__ import annotations

import json
import math
import sqlite3

from pathwatch.server.store.rows import WindowRow
from pathwatch.server.store.sqlite_rows import WINDOW_COLUMNS, to_window

_WITHOUT_LAYERS = WINDOW_COLUMNS.replace("layer_path_distance", "'[]'")
"""Numbers as text take long to read."""
_OF_GROUP = 'run=:run AND "group"=:group'
_STEPS = f"SELECT step FROM timeline WHERE {_OF_GROUP} AND step>:after ORDER BY step LIMIT :limit"  # noqa: S608
_FIRST = f"SELECT step, ordinal FROM timeline WHERE {_OF_GROUP} AND step>:after ORDER BY step LIMIT 1"  # noqa: S608
_LAST = f"SELECT step, ordinal FROM timeline WHERE {_OF_GROUP} ORDER BY step DESC LIMIT 1"  # noqa: S608
_TURNS = f"""
SELECT step FROM timeline INDEXED BY turns
WHERE {_OF_GROUP} AND step>:after AND turn=1 ORDER BY step LIMIT :limit
"""  # noqa: S608
_AT_OR_AFTER = f"""
SELECT {{columns}}, x'', x'' FROM (
    SELECT DISTINCT (
        SELECT step FROM timeline WHERE {_OF_GROUP} AND step>=target.value ORDER BY step LIMIT 1
    ) AS found FROM json_each(:targets) AS target
) CROSS JOIN windows
WHERE run=:run AND step=found AND "group"=:group AND superseded=0 ORDER BY step
"""  # noqa: S608


def thinned_windows(
    db: sqlite3.Connection, run: str, group: str, after_step: int, points: int, *, layers: bool
) -> tuple[list[WindowRow], int]:
    """At most `points` windows with step > after_step, and their stride: as `StoreReader.thinned_history`."""
    key = {"run": run, "group": group, "after": after_step}
    steps = [step for (step,) in db.execute(_STEPS, {**key, "limit": points + 1})]
    if len(steps) <= points:
        return _windows(db, run, group, steps, layers=layers), 1
    first, number = db.execute(_FIRST, key).fetchone()
    last, newest_number = db.execute(_LAST, key).fetchone()
    turns = [step for (step,) in db.execute(_TURNS, {**key, "after": first, "limit": points})]
    kept = {first, last, *turns}
    if len(kept) > points:
        kept = {first, last}
    between = points - len(kept)
    kept.update(first + (last - first) * i // (between + 1) for i in range(1, between + 1))
    windows = _windows(db, run, group, sorted(kept), layers=layers)
    return windows, math.ceil((newest_number - number + 1) / len(windows))


def newest_window(db: sqlite3.Connection, run: str, group: str) -> WindowRow:
    """The newest window of a group that has any, without evidence and losses."""
    step, _ = db.execute(_LAST, {"run": run, "group": group}).fetchone()
    (window,) = _windows(db, run, group, [step], layers=True)
    return window


def _windows(
    db: sqlite3.Connection, run: str, group: str, targets: list[int], *, layers: bool
) -> list[WindowRow]:
    """The first window at or after each step."""
    query = _AT_OR_AFTER.format(columns=WINDOW_COLUMNS if layers else _WITHOUT_LAYERS)
    rows = db.execute(query, {"run": run, "group": group, "targets": json.dumps(targets)})
    return [to_window(run, *row) for row in rows]
