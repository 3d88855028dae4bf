"""Tables of the SQLite store."""

VERSION = 6
"""Raised with every change of the schema; kept in PRAGMA user_version."""
APPLICATION_ID = 0x70617468
"""Marks the file as pathwatch's: "path" in ASCII."""

TABLES_OF_A_RUN = (
    "ranks",
    "sessions",
    "batches",
    "geometries",
    "windows",
    "timeline",
    "checkpoints",
    "observations",
    "partial_rounds",
    "signals",
    "last_signals",
)

_OBSERVATIONS = """
CREATE TABLE observations (
    run TEXT NOT NULL, attempt INTEGER NOT NULL, step INTEGER NOT NULL, observations BLOB NOT NULL,
    PRIMARY KEY (run, step)
);
"""
_PARTIAL_ROUNDS = """
CREATE TABLE partial_rounds (
    run TEXT NOT NULL, attempt INTEGER NOT NULL, step INTEGER NOT NULL, missing_ranks TEXT NOT NULL,
    PRIMARY KEY (run, attempt, step)
);
"""

_GEOMETRIES = """
CREATE TABLE geometries (
    run TEXT NOT NULL, attempt INTEGER NOT NULL, step INTEGER NOT NULL, geometry BLOB NOT NULL,
    PRIMARY KEY (run, attempt, step)
);
"""
_WINDOWS_BY_PHASE = """
CREATE INDEX windows_by_phase ON windows (run, "group", phase, step) WHERE superseded=0;
"""
_GEOMETRIES_BY_ATTEMPT = f"""
ALTER TABLE geometries RENAME TO old_geometries;
{_GEOMETRIES}
INSERT INTO geometries SELECT run, attempt, step, geometry FROM old_geometries;
DROP TABLE old_geometries;
"""  # noqa: S608

_TIMELINE = """
CREATE TABLE timeline (
    run TEXT NOT NULL, "group" TEXT NOT NULL, step INTEGER NOT NULL, attempt INTEGER NOT NULL,
    phase INTEGER NOT NULL, ordinal INTEGER NOT NULL, turn INTEGER NOT NULL,
    PRIMARY KEY (run, "group", step)
) WITHOUT ROWID;
CREATE INDEX turns ON timeline (run, "group", step) WHERE turn=1;
CREATE INDEX signals_by_step ON signals (run, step, revision);
"""
"""Windows that are not superseded, each with its number in its group, and whether its phase is new."""
_TIMELINE_OF_WINDOWS = f"""
{_TIMELINE}
INSERT INTO timeline
SELECT run, "group", step, attempt, phase,
    row_number() OVER in_order, phase<>lag(phase, 1, phase) OVER in_order
FROM (
    SELECT run, "group", step, max(attempt) AS attempt, phase FROM windows
    WHERE superseded=0 GROUP BY run, "group", step
)
WINDOW in_order AS (PARTITION BY run, "group" ORDER BY step);
DROP INDEX windows_by_phase;
"""  # noqa: S608

MIGRATIONS = {
    1: _OBSERVATIONS,
    2: _PARTIAL_ROUNDS,
    3: _GEOMETRIES_BY_ATTEMPT,
    4: _WINDOWS_BY_PHASE,
    5: _TIMELINE_OF_WINDOWS,
}
"""What makes a file of each older version one of the next."""

SCHEMA = f"""
CREATE TABLE runs (
    name TEXT PRIMARY KEY, config BLOB NOT NULL, finished INTEGER NOT NULL, attempt INTEGER NOT NULL,
    first_step INTEGER NOT NULL, step INTEGER NOT NULL, closed_step INTEGER NOT NULL,
    world_size INTEGER NOT NULL, groups TEXT NOT NULL, created_at REAL NOT NULL, updated_at REAL NOT NULL
);
CREATE TABLE ranks (
    run TEXT NOT NULL, attempt INTEGER NOT NULL, rank INTEGER NOT NULL, world_size INTEGER NOT NULL,
    watermark INTEGER NOT NULL, PRIMARY KEY (run, attempt, rank)
);
CREATE TABLE sessions (
    run TEXT NOT NULL, attempt INTEGER NOT NULL, rank INTEGER NOT NULL, session TEXT NOT NULL,
    last_sequence INTEGER NOT NULL, PRIMARY KEY (run, attempt, rank, session)
);
CREATE TABLE batches (
    id INTEGER PRIMARY KEY, run TEXT NOT NULL, attempt INTEGER NOT NULL, step INTEGER NOT NULL,
    batch BLOB NOT NULL
);
CREATE INDEX batches_by_step ON batches (run, step);
CREATE TABLE windows (
    run TEXT NOT NULL, attempt INTEGER NOT NULL, first_step INTEGER NOT NULL, step INTEGER NOT NULL,
    "group" TEXT NOT NULL, partial INTEGER NOT NULL, judged INTEGER NOT NULL, phase INTEGER NOT NULL,
    reason TEXT NOT NULL, metrics TEXT NOT NULL, layer_path_distance TEXT NOT NULL, evidence BLOB NOT NULL,
    losses BLOB NOT NULL, superseded INTEGER NOT NULL, PRIMARY KEY (run, step, "group", attempt)
);
CREATE TABLE checkpoints (
    run TEXT NOT NULL, attempt INTEGER NOT NULL, step INTEGER NOT NULL, tag TEXT NOT NULL,
    superseded INTEGER NOT NULL, PRIMARY KEY (run, attempt, step)
);
CREATE TABLE signals (
    run TEXT NOT NULL, revision INTEGER NOT NULL, step INTEGER NOT NULL, signal BLOB NOT NULL,
    PRIMARY KEY (run, revision)
);
CREATE TABLE last_signals (
    run TEXT PRIMARY KEY, revision INTEGER NOT NULL, step INTEGER NOT NULL, signal BLOB NOT NULL
);
{_GEOMETRIES}{_OBSERVATIONS}{_PARTIAL_ROUNDS}{_TIMELINE}"""
