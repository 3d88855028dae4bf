"""The windows in force of each group, numbered: kept beside them so that a long history need not be read to
be counted, thinned or looked through for changes of phase."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

from pathwatch.server.store.rows import Rewind, WindowRow

_OF_GROUP = 'run=:run AND "group"=:group'

_GROUPS = """
WITH RECURSIVE found(name) AS (
    SELECT min("group") FROM timeline WHERE run=:run
    UNION ALL
    SELECT (SELECT min("group") FROM timeline WHERE run=:run AND "group">name) FROM found
    WHERE name IS NOT NULL
)
SELECT name FROM found WHERE name IS NOT NULL
"""


def groups_of(db: sqlite3.Connection, run: str) -> list[str]:
    """The groups that have windows in force, sorted: by a seek each."""
    return [group for (group,) in db.execute(_GROUPS, {"run": run})]


def put_windows(db: sqlite3.Connection, windows: Iterable[WindowRow]) -> None:
    """Windows are new, or in the place of one of the same step; mostly each is the newest of its group."""
    for window in windows:
        _put(db, window)


def rewind(db: sqlite3.Connection, write: Rewind) -> None:
    """Windows of older attempts are superseded from a step on."""
    for group in groups_of(db, write.run):
        db.execute(
            'DELETE FROM timeline WHERE run=? AND "group"=? AND step>=? AND attempt<?',
            (write.run, group, write.first_step, write.attempt),
        )


def _put(db: sqlite3.Connection, window: WindowRow) -> None:
    key = {"run": window.run, "group": window.group, "step": window.step, "phase": window.phase}
    before = db.execute(
        f"SELECT step, ordinal, phase FROM timeline WHERE {_OF_GROUP} AND step<=:step "  # noqa: S608
        "ORDER BY step DESC LIMIT 2",
        key,
    ).fetchall()
    is_new = not before or before[0][0] < window.step
    _, number, phase = next((row for row in before if row[0] < window.step), (-1, 0, window.phase))
    if is_new:
        db.execute(
            f"UPDATE timeline SET ordinal=ordinal+1 WHERE {_OF_GROUP} AND step>:step",  # noqa: S608
            key,
        )
    db.execute(
        "INSERT OR REPLACE INTO timeline VALUES (:run, :group, :step, :attempt, :phase, :ordinal, :turn)",
        {**key, "attempt": window.attempt, "ordinal": number + 1, "turn": phase != window.phase},
    )
    db.execute(
        f"UPDATE timeline SET turn=phase<>:phase WHERE {_OF_GROUP} AND step="  # noqa: S608
        f"(SELECT min(step) FROM timeline WHERE {_OF_GROUP} AND step>:step)",
        key,
    )
