"""What is read of the SQLite store."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path

from pathwatch.server.phases.verdict import Checkpoint
from pathwatch.server.store.answers import History, ThinnedHistory
from pathwatch.server.store.interface import DamagedError, StoreError
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
)
from pathwatch.server.store.sqlite_connection import ERRORS, READ_WRITE, connect, describe, is_damage
from pathwatch.server.store.sqlite_damage import damage_message
from pathwatch.server.store.sqlite_rows import RUN_COLUMNS, WINDOW_COLUMNS, from_json, to_run, to_window
from pathwatch.server.store.sqlite_thinning import newest_window, thinned_windows
from pathwatch.server.store.sqlite_timeline import groups_of

# Revisions rise with steps but after a rewind: those before the first that is wanted are not read.
_SIGNALS_AFTER = """
SELECT revision, step, signal FROM signals WHERE run=?1 AND step>?2
AND revision>=(SELECT min(revision) FROM signals INDEXED BY signals_by_step WHERE run=?1 AND step>?2)
ORDER BY revision LIMIT ?3
"""


class SqliteReader:
    """`StoreReader` on a database file of this version's schema."""

    def __init__(self, path: Path, access: str = READ_WRITE) -> None:
        self._path = path
        self._access = access
        self._damage: str | None = None
        """What was said of the file when it turned out to be damaged."""

    def _failure(self, doing: str, error: Exception) -> StoreError:
        """What to raise for an error of SQLite or of the disk."""
        if not is_damage(error):
            return StoreError(f"cannot {doing} {self._path}: {describe(error)}")
        if self._damage is None:
            self._damage = damage_message(self._path, describe(error))
        return DamagedError(self._damage)

    @contextlib.contextmanager
    def _reader(self) -> Iterator[sqlite3.Connection]:
        # A connection per read: any thread, a state of its own, never in the writer's way. It neither writes
        # nor checkpoints: where one connection alone does, SQLite's WAL-reset race (to 3.51.2) cannot be.
        try:
            with contextlib.closing(connect(self._path, self._access)) as db:
                db.execute("BEGIN")
                yield db
        except ERRORS as error:
            raise self._failure("read", error) from error

    def runs(self) -> list[RunRow]:
        with self._reader() as db:
            rows = db.execute(
                f"SELECT {RUN_COLUMNS} FROM runs ORDER BY created_at, name"  # noqa: S608
            ).fetchall()
        return [to_run(*row) for row in rows]

    def names(self) -> list[str]:
        with self._reader() as db:
            return [name for (name,) in db.execute("SELECT name FROM runs ORDER BY name")]

    def run(self, name: str) -> RunRow | None:
        with self._reader() as db:
            row = db.execute(f"SELECT {RUN_COLUMNS} FROM runs WHERE name=?", (name,)).fetchone()  # noqa: S608
        return None if row is None else to_run(*row)

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
                "SELECT rank, session, last_sequence FROM sessions WHERE run=? AND attempt=? ORDER BY rowid",
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
                "SELECT attempt, step, geometry FROM geometries WHERE run=? ORDER BY attempt, step", (run,)
            ).fetchall()
        return [GeometryRow(run=run, attempt=a, step=step, geometry=blob) for a, step, blob in rows]

    def partial_rounds(self, run: str) -> list[PartialRoundRow]:
        with self._reader() as db:
            rows = db.execute(
                "SELECT attempt, step, missing_ranks FROM partial_rounds WHERE run=? ORDER BY attempt, step",
                (run,),
            ).fetchall()
        return [
            PartialRoundRow(
                run=run,
                attempt=attempt,
                step=step,
                missing_ranks=tuple(from_json(ranks, f"the partial round of run {run!r} at step {step}")),
            )
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
            return [newest_window(db, run, group) for group in groups_of(db, run)]

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

    def signals(self, run: str, *, after_revision: int = 0, limit: int = 0) -> list[SignalRow]:
        with self._reader() as db:
            rows = db.execute(
                "SELECT revision, step, signal FROM signals WHERE run=? AND revision>? "
                "ORDER BY revision LIMIT ?",
                (run, after_revision, limit or -1),
            ).fetchall()
        return [SignalRow(run=run, revision=r, step=s, signal=blob) for r, s, blob in rows]

    def history(
        self, run: str, *, after_step: int = -1, group: str = "", limit: int = 0, signal_limit: int = 0
    ) -> History:
        with self._reader() as db:
            windows = db.execute(
                f"SELECT {WINDOW_COLUMNS}, x'', x'' FROM windows "  # noqa: S608
                """WHERE run=? AND superseded=0 AND step>? AND (?='' OR "group"=?) """
                'ORDER BY step, "group" LIMIT ?',
                (run, after_step, group, group, limit or -1),
            ).fetchall()
            signals = db.execute(_SIGNALS_AFTER, (run, after_step, signal_limit or -1)).fetchall()
            closed = db.execute("SELECT closed_step FROM runs WHERE name=?", (run,)).fetchone()
        return History(
            windows=[to_window(run, *row) for row in windows],
            signals=[SignalRow(run=run, revision=r, step=s, signal=blob) for r, s, blob in signals],
            closed_step=closed[0] if closed else -1,
        )

    def thinned_history(
        self, run: str, groups: Sequence[str], *, points: int, after_step: int = -1, layers: bool = True
    ) -> ThinnedHistory | None:
        with self._reader() as db:
            row = db.execute("SELECT attempt, closed_step FROM runs WHERE name=?", (run,)).fetchone()
            if row is None:
                return None
            found = {
                group: thinned_windows(db, run, group, after_step, points, layers=layers) for group in groups
            }
        return ThinnedHistory(
            windows={group: windows for group, (windows, _) in found.items()},
            stride=max((stride for _, stride in found.values()), default=1),
            attempt=row[0],
            closed_step=row[1],
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
