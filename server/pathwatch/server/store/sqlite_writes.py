"""Writes as SQL."""

from __future__ import annotations

import json
import sqlite3

from pathwatch.server.store.rows import (
    BeginAttempt,
    DeleteRun,
    ForgetSession,
    PutBatch,
    PutCheckpoint,
    PutGeometry,
    PutPartialRound,
    PutRank,
    PutRound,
    PutRun,
    PutSession,
    PutSignal,
    Rewind,
    Write,
)
from pathwatch.server.store.schema import TABLES_OF_A_RUN
from pathwatch.server.store.sqlite_rows import RUN_COLUMNS, WINDOW_COLUMNS
from pathwatch.server.store.sqlite_timeline import put_windows, rewind


def apply(db: sqlite3.Connection, write: Write) -> None:
    """Apply one write inside the transaction at hand."""
    match write:
        case PutRun(row=run):
            db.execute(
                f"INSERT OR REPLACE INTO runs ({RUN_COLUMNS}) VALUES (?,?,?,?,?,?,?,?,?,?,?)",  # noqa: S608
                (
                    run.name,
                    run.config,
                    run.finished,
                    run.attempt,
                    run.first_step,
                    run.step,
                    run.closed_step,
                    run.world_size,
                    json.dumps(run.groups),
                    run.created_at,
                    run.updated_at,
                ),
            )
        case PutRank(row=rank):
            db.execute(
                "INSERT OR REPLACE INTO ranks (run, attempt, rank, world_size, watermark) VALUES (?,?,?,?,?)",
                (rank.run, rank.attempt, rank.rank, rank.world_size, rank.watermark),
            )
        case PutSession(row=session):
            db.execute(
                "INSERT OR REPLACE INTO sessions (run, attempt, rank, session, last_sequence) "
                "VALUES (?,?,?,?,?)",
                (session.run, session.attempt, session.rank, session.session, session.last_sequence),
            )
        case ForgetSession():
            db.execute(
                "DELETE FROM sessions WHERE run=? AND attempt=? AND rank=? AND session=?",
                (write.run, write.attempt, write.rank, write.session),
            )
        case PutBatch(row=batch):
            db.execute(
                "INSERT INTO batches (run, attempt, step, batch) VALUES (?,?,?,?)",
                (batch.run, batch.attempt, batch.step, batch.batch),
            )
        case PutGeometry(row=geometry):
            db.execute(
                "INSERT OR REPLACE INTO geometries (run, attempt, step, geometry) VALUES (?,?,?,?)",
                (geometry.run, geometry.attempt, geometry.step, geometry.geometry),
            )
        case PutPartialRound(row=partial):
            db.execute(
                "INSERT OR REPLACE INTO partial_rounds (run, attempt, step, missing_ranks) VALUES (?,?,?,?)",
                (partial.run, partial.attempt, partial.step, json.dumps(partial.missing_ranks)),
            )
        case PutRound():
            _put_round(db, write)
        case PutSignal(row=signal):
            values = (signal.run, signal.revision, signal.step, signal.signal)
            db.execute("INSERT OR IGNORE INTO signals (run, revision, step, signal) VALUES (?,?,?,?)", values)
            db.execute(
                "INSERT OR REPLACE INTO last_signals (run, revision, step, signal) VALUES (?,?,?,?)", values
            )
        case PutCheckpoint(run=name, checkpoint=checkpoint):
            db.execute(
                "INSERT OR REPLACE INTO checkpoints (run, attempt, step, tag, superseded) VALUES (?,?,?,?,0)",
                (name, checkpoint.attempt, checkpoint.step, checkpoint.tag),
            )
        case BeginAttempt():
            key = (write.run, write.attempt)
            db.execute("DELETE FROM ranks WHERE run=? AND attempt<?", key)
            db.execute("DELETE FROM sessions WHERE run=? AND attempt<?", key)
            db.execute("DELETE FROM batches WHERE run=? AND attempt<? AND step>?", (*key, write.closed_step))
        case Rewind():
            _rewind(db, write)
        case DeleteRun(run=name):
            for table in TABLES_OF_A_RUN:
                db.execute(f"DELETE FROM {table} WHERE run=?", (name,))  # noqa: S608
            db.execute("DELETE FROM runs WHERE name=?", (name,))


def _put_round(db: sqlite3.Connection, write: PutRound) -> None:
    db.executemany(
        f"INSERT OR REPLACE INTO windows (run, {WINDOW_COLUMNS}, evidence, losses, superseded) "  # noqa: S608
        "VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,0)",
        [
            (
                row.run,
                row.attempt,
                row.first_step,
                row.step,
                row.group,
                row.partial,
                row.judged,
                row.phase,
                row.reason,
                json.dumps(dict(row.metrics)),
                json.dumps(row.layer_path_distance),
                row.evidence,
                row.losses,
            )
            for row in write.windows
        ],
    )
    put_windows(db, write.windows)
    if write.observations:
        db.execute(
            "INSERT OR REPLACE INTO observations (run, attempt, step, observations) VALUES (?,?,?,?)",
            (write.run, write.attempt, write.step, write.observations),
        )
    key = (write.run, write.attempt, write.step)
    db.execute("DELETE FROM batches WHERE run=? AND attempt<=? AND step<=?", key)
    db.execute("DELETE FROM partial_rounds WHERE run=? AND attempt<=? AND step<=?", key)
    # The attempt's newest geometry at or before this round holds for the next one too.
    db.execute(
        "DELETE FROM geometries WHERE run=?1 AND (attempt<?2 OR attempt=?2 "
        "AND step<(SELECT max(step) FROM geometries WHERE run=?1 AND attempt=?2 AND step<=?3))",
        key,
    )


def _rewind(db: sqlite3.Connection, write: Rewind) -> None:
    key = (write.run, write.attempt, write.first_step)
    db.execute("UPDATE windows SET superseded=1 WHERE run=? AND attempt<? AND step>=?", key)
    rewind(db, write)
    db.execute("DELETE FROM observations WHERE run=? AND attempt<? AND step>=?", key)
    db.execute("UPDATE checkpoints SET superseded=1 WHERE run=? AND attempt<? AND step>=?", key)
    db.execute("DELETE FROM geometries WHERE run=? AND attempt<? AND step>=?", key)
    db.execute(
        "DELETE FROM batches WHERE run=? AND attempt<? AND step>=?",
        (write.run, write.attempt, write.first_window_step),
    )
    db.execute("DELETE FROM partial_rounds WHERE run=? AND attempt<? AND step>=?", key)
