"""State in one SQLite file: every commit is on disk when it returns."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path

from pathwatch.server.failpoints import reach
from pathwatch.server.phases.verdict import Checkpoint
from pathwatch.server.store.interface import History, StoreError
from pathwatch.server.store.rows import (
    BatchRow,
    GeometryRow,
    ObservationsRow,
    PartialRoundRow,
    RankRow,
    RunRow,
    SessionRow,
    SignalRow,
    WindowRow,
    Write,
)
from pathwatch.server.store.schema import APPLICATION_ID, MIGRATIONS, SCHEMA, VERSION
from pathwatch.server.store.sqlite_rows import RUN_COLUMNS, WINDOW_COLUMNS, to_run, to_window
from pathwatch.server.store.sqlite_writes import apply

FILE_NAME = "pathwatch.sqlite3"
LOCK_NAME = "lock"


class SqliteStore:
    """`Store` on the standard library's sqlite3, write-ahead log, synchronous=FULL."""

    def __init__(self, folder: Path) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(folder / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StoreError(f"cannot use {folder} for data: {error.strerror}") from error
        self._path = folder / FILE_NAME
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._lock)
            raise StoreError(
                f"another pathwatch server uses {folder}; stop it or give another --data"
            ) from error
        try:
            self._writer = self._connect()
            self._prepare()
        except (sqlite3.Error, StoreError) as error:
            os.close(self._lock)
            if isinstance(error, StoreError):
                raise
            raise StoreError(
                f"{self._path} cannot be read ({error}); move it away or restore a copy"
            ) from error

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA busy_timeout=10000")
        return connection

    def _prepare(self) -> None:
        db = self._writer
        version = db.execute("PRAGMA user_version").fetchone()[0]
        application = db.execute("PRAGMA application_id").fetchone()[0]
        tables = db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        if tables and application != APPLICATION_ID:
            raise StoreError(f"{self._path} belongs to another program; give another --data")
        if version > VERSION:
            raise StoreError(
                f"{self._path} was written by a newer pathwatch (schema {version}, "
                f"this one knows {VERSION}); upgrade pathwatch or give another --data"
            )
        db.execute("PRAGMA journal_mode=WAL")
        if not tables:
            db.executescript(
                f"BEGIN; {SCHEMA} PRAGMA application_id={APPLICATION_ID}; "
                f"PRAGMA user_version={VERSION}; COMMIT;"
            )
            return
        for older in range(version, VERSION):
            db.executescript(f"BEGIN; {MIGRATIONS[older]} PRAGMA user_version={older + 1}; COMMIT;")

    @contextlib.contextmanager
    def _reader(self) -> Iterator[sqlite3.Connection]:
        # A connection per read: any thread, a snapshot of its own, never in the writer's way.
        try:
            with contextlib.closing(self._connect()) as db:
                db.execute("BEGIN")
                yield db
        except sqlite3.Error as error:
            raise StoreError(f"cannot read {self._path}: {error}") from error

    def commit(self, writes: Sequence[Write]) -> None:
        db = self._writer
        try:
            db.execute("BEGIN IMMEDIATE")
            for write in writes:
                apply(db, write)
            reach("commit.before")
            db.execute("COMMIT")
            reach("commit.after")
        except (sqlite3.Error, OSError) as error:
            with contextlib.suppress(sqlite3.Error):
                db.execute("ROLLBACK")
            raise StoreError(f"cannot write {self._path}: {error}") from error

    def runs(self) -> list[RunRow]:
        with self._reader() as db:
            rows = db.execute(
                f"SELECT {RUN_COLUMNS} FROM runs ORDER BY created_at, name"  # noqa: S608
            ).fetchall()
        return [to_run(*row) for row in rows]

    def ranks(self, run: str, attempt: int) -> list[RankRow]:
        with self._reader() as db:
            rows = db.execute(
                "SELECT rank, world_size, watermark FROM ranks WHERE run=? AND attempt=? ORDER BY rank",
                (run, attempt),
            ).fetchall()
        return [
            RankRow(run=run, attempt=attempt, rank=rank, world_size=world_size, watermark=watermark)
            for rank, world_size, watermark in rows
        ]

    def sessions(self, run: str, attempt: int) -> list[SessionRow]:
        with self._reader() as db:
            rows = db.execute(
                "SELECT rank, session, last_sequence FROM sessions WHERE run=? AND attempt=?",
                (run, attempt),
            ).fetchall()
        return [
            SessionRow(run=run, attempt=attempt, rank=rank, session=session, last_sequence=last)
            for rank, session, last in rows
        ]

    def batches(self, run: str) -> Iterator[BatchRow]:
        with self._reader() as db:
            for attempt, step, batch in db.execute(
                "SELECT attempt, step, batch FROM batches WHERE run=? ORDER BY id", (run,)
            ):
                yield BatchRow(run=run, attempt=attempt, step=step, batch=batch)

    def geometries(self, run: str) -> list[GeometryRow]:
        with self._reader() as db:
            rows = db.execute(
                "SELECT attempt, step, geometry FROM geometries WHERE run=? ORDER BY step", (run,)
            ).fetchall()
        return [GeometryRow(run=run, attempt=a, step=step, geometry=blob) for a, step, blob in rows]

    def partial_rounds(self, run: str) -> list[PartialRoundRow]:
        with self._reader() as db:
            rows = db.execute(
                "SELECT attempt, step, missing_ranks FROM partial_rounds WHERE run=? ORDER BY attempt, step",
                (run,),
            ).fetchall()
        return [
            PartialRoundRow(run=run, attempt=attempt, step=step, missing_ranks=tuple(json.loads(ranks)))
            for attempt, step, ranks in rows
        ]

    def windows(self, run: str) -> Iterator[WindowRow]:
        with self._reader() as db:
            for row in db.execute(
                f"SELECT {WINDOW_COLUMNS}, evidence, losses FROM windows "  # noqa: S608
                'WHERE run=? AND superseded=0 ORDER BY step, "group"',
                (run,),
            ):
                yield to_window(run, *row)

    def newest_windows(self, run: str) -> list[WindowRow]:
        with self._reader() as db:
            rows = db.execute(
                f"SELECT {WINDOW_COLUMNS}, x'', x'', max(step) FROM windows "  # noqa: S608
                'WHERE run=? AND superseded=0 GROUP BY "group" ORDER BY "group"',
                (run,),
            ).fetchall()
        return [to_window(run, *row[:-1]) for row in rows]

    def phase_changes(self, run: str) -> dict[str, int]:
        with self._reader() as db:
            rows = db.execute(
                'SELECT "group", count(*) FROM (SELECT "group", phase, lag(phase) OVER '
                '(PARTITION BY "group" ORDER BY step) AS before FROM windows WHERE run=? AND superseded=0) '
                'WHERE phase<>before GROUP BY "group"',
                (run,),
            ).fetchall()
        return dict(rows)

    def checkpoints(self, run: str) -> list[Checkpoint]:
        with self._reader() as db:
            rows = db.execute(
                "SELECT step, tag, attempt FROM checkpoints WHERE run=? AND superseded=0 "
                "ORDER BY step, attempt",
                (run,),
            ).fetchall()
        return [Checkpoint(step=step, tag=tag, attempt=attempt) for step, tag, attempt in rows]

    def last_signal(self, run: str) -> SignalRow | None:
        with self._reader() as db:
            row = db.execute("SELECT revision, step, signal FROM last_signals WHERE run=?", (run,)).fetchone()
        return row and SignalRow(run=run, revision=row[0], step=row[1], signal=row[2])

    def history(self, run: str, *, after_step: int = -1, group: str = "", limit: int = 0) -> History:
        with self._reader() as db:
            windows = db.execute(
                f"SELECT {WINDOW_COLUMNS}, x'', x'' FROM windows "  # noqa: S608
                """WHERE run=? AND superseded=0 AND step>? AND (?='' OR "group"=?) """
                'ORDER BY step, "group" LIMIT ?',
                (run, after_step, group, group, limit or -1),
            ).fetchall()
            signals = db.execute(
                "SELECT revision, step, signal FROM signals WHERE run=? AND step>? ORDER BY revision",
                (run, after_step),
            ).fetchall()
            closed = db.execute("SELECT closed_step FROM runs WHERE name=?", (run,)).fetchone()
        return History(
            windows=[to_window(run, *row) for row in windows],
            signals=[SignalRow(run=run, revision=r, step=s, signal=blob) for r, s, blob in signals],
            closed_step=closed[0] if closed else -1,
        )

    def observations(self, run: str, *, after_step: int = -1) -> Iterator[ObservationsRow]:
        # A snapshot for each: one held as long as a slow reader needs would let the log grow.
        while True:
            with self._reader() as db:
                row = db.execute(
                    "SELECT attempt, step, observations FROM observations WHERE run=? AND step>? "
                    "ORDER BY step LIMIT 1",
                    (run, after_step),
                ).fetchone()
            if row is None:
                return
            attempt, after_step, observations = row
            yield ObservationsRow(run=run, attempt=attempt, step=after_step, observations=observations)

    def close(self) -> None:
        self._writer.close()
        os.close(self._lock)
