"""Checks a data folder without changing it: file, pages, rows that contradict each other, snapshots."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from pathwatch.server.store.finding import Finding, Severity
from pathwatch.server.store.interface import StoreError
from pathwatch.server.store.schema import TABLES_OF_A_RUN, VERSION
from pathwatch.server.store.sqlite_connection import (
    ERRORS,
    connect,
    describe,
    integrity_problems,
    is_damage,
    read_only,
)
from pathwatch.server.store.sqlite_folder import FILE_NAME
from pathwatch.server.store.sqlite_opening import identify
from pathwatch.server.store.sqlite_snapshots import Snapshots, snapshot_problem

_RESTORE = "restore a snapshot"
_REPORT = "restore a snapshot if one is good, and report this"

_FOREIGN = "SELECT run, count(*) FROM {table} WHERE run NOT IN (SELECT name FROM runs) GROUP BY run"
_LATER = (
    "SELECT run, count(*), max(t.attempt), r.attempt FROM {table} t JOIN runs r ON r.name = t.run "
    "WHERE t.attempt > r.attempt GROUP BY run"
)
_AHEAD = (
    "SELECT run, count(*), max(w.step), r.closed_step FROM windows w JOIN runs r ON r.name = w.run "
    "WHERE w.superseded = 0 AND w.step > r.closed_step GROUP BY run"
)
_BACKWARDS = "SELECT run, count(*) FROM windows WHERE first_step > step GROUP BY run"
_UNNUMBERED = (
    "SELECT w.run, count(*) FROM windows w LEFT JOIN timeline t "
    'ON t.run = w.run AND t."group" = w."group" AND t.step = w.step AND t.attempt = w.attempt '
    "WHERE w.superseded = 0 AND t.phase IS NOT w.phase GROUP BY w.run"
)
_NOT_IN_FORCE = (
    "SELECT t.run, count(*) FROM timeline t LEFT JOIN windows w "
    'ON w.run = t.run AND w.step = t.step AND w."group" = t."group" AND w.attempt = t.attempt '
    "WHERE w.superseded IS NOT 0 GROUP BY t.run"
)
_MISNUMBERED = (
    'SELECT run, "group", count(*), min(ordinal), max(ordinal) FROM timeline GROUP BY run, "group" '
    "HAVING min(ordinal) <> 1 OR max(ordinal) <> count(*)"
)
_GAPS = (
    "SELECT s.run, count(*), min(s.revision), max(s.revision), l.revision FROM signals s "
    "LEFT JOIN last_signals l ON l.run = s.run GROUP BY s.run"
)


def database_findings(path: Path) -> Iterator[Finding]:
    """What is wrong with the database file. Raises StoreError where it is missing or not for us to read.

    The folder must be locked.
    """
    if not path.exists() or path.stat().st_size == 0:
        raise StoreError(f"there is no database in {path.parent}: {path.name} is missing or empty")
    try:
        with closing(connect(path, read_only(path))) as db:
            version = identify(db, path)
            problems = integrity_problems(db)
            yield from (_damage(str(path), problem, _RESTORE) for problem in problems)
            if problems:
                return
            if version < VERSION:
                yield Finding(
                    item=str(path),
                    severity=Severity.NOTE,
                    problem=f"has schema {version}, older than {VERSION}: rows were not looked at",
                    remedy="start the server once: it takes a snapshot and migrates the file",
                )
                return
            yield from _row_findings(db)
    except ERRORS as error:
        if not is_damage(error):
            raise StoreError(f"cannot read {path}: {describe(error)}") from error
        yield _damage(str(path), describe(error), _RESTORE)


def snapshot_findings(folder: Path) -> Iterator[Finding]:
    """What is wrong with the snapshots of a data folder. Raises StoreError where one cannot be read."""
    snapshots = Snapshots(folder)
    for snapshot in snapshots.all():
        try:
            problem = snapshot_problem(snapshot.path)
        except ERRORS as error:
            raise StoreError(f"cannot read {snapshot.path}: {describe(error)}") from error
        if problem:
            yield Finding(
                item=str(snapshot.path),
                severity=Severity.WRONG,
                problem=f"is damaged: {problem}",
                remedy="remove it",
            )
    for path in snapshots.leftovers():
        yield Finding(
            item=str(path),
            severity=Severity.NOTE,
            problem="is what is left of a snapshot that was not finished",
            remedy="the next start of the server removes it",
        )
    for path in sorted(folder.glob(f"{FILE_NAME}.*")):
        yield Finding(
            item=str(path),
            severity=Severity.NOTE,
            problem="was put aside by a restore",
            remedy="remove it when it is not needed any more",
        )


def _row_findings(db: sqlite3.Connection) -> Iterator[Finding]:
    for table in TABLES_OF_A_RUN:
        for run, count in db.execute(_FOREIGN.format(table=table)):
            yield _damage(f"table {table}", f"has {count} rows of run {run!r}, which does not exist", _REPORT)
        if not _has_attempts(db, table):
            continue
        for run, count, found, attempt in db.execute(_LATER.format(table=table)):
            problem = f"has {count} rows of attempts up to {found} of run {run!r}, which is at {attempt}"
            yield _damage(f"table {table}", problem, _REPORT)
    for run, count, found, closed in db.execute(_AHEAD):
        problem = f"has {count} windows up to step {found}, but was judged up to step {closed}"
        yield _damage(f"run {run!r}", problem, _REPORT)
    for run, count in db.execute(_BACKWARDS):
        yield _damage(f"run {run!r}", f"has {count} windows that end before they begin", _REPORT)
    for run, count in db.execute(_UNNUMBERED):
        yield _damage(f"run {run!r}", f"has {count} windows that its timeline does not know", _REPORT)
    for run, count in db.execute(_NOT_IN_FORCE):
        yield _damage(f"timeline of run {run!r}", f"has {count} windows that are superseded or gone", _REPORT)
    for run, group, count, first, last in db.execute(_MISNUMBERED):
        problem = f"has {count} windows of group {group!r}, numbered from {first} to {last}"
        yield _damage(f"timeline of run {run!r}", problem, _REPORT)
    for run, count, first, newest, last in db.execute(_GAPS):
        if (first, count) != (1, newest) or last != newest:
            problem = f"has {count} signals, from {first} to {newest}; the last given was {last}"
            yield _damage(f"signals of run {run!r}", problem, _REPORT)


def _has_attempts(db: sqlite3.Connection, table: str) -> bool:
    columns = db.execute("SELECT name FROM pragma_table_info(?)", (table,))
    return ("attempt",) in columns.fetchall()


def _damage(item: str, problem: str, remedy: str) -> Finding:
    return Finding(item=item, severity=Severity.DAMAGE, problem=problem, remedy=remedy)
