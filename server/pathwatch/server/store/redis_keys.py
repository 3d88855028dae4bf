"""Names of keys in Redis. All keys of a run have its name as their hash tag: one slot of a cluster holds
them, so that a script may change them together."""

from __future__ import annotations

RUNS = "pathwatch:runs"
"""Set of the names of runs that may be there."""
KINDS = (
    *("commits", "run", "ranks", "sessions"),
    *("batches", "batch_steps", "geometries", "partial_rounds"),
    *("windows", "timeline", "turns", "rows", "layers", "remains"),
    *("observations", "observed", "checkpoints"),
    *("signals", "revisions", "signal_steps"),
    "lease",
)
"""Of the keys of a run, in the order in which scripts are given them.

commits: the mark of the last commit (see redis_log).
run: hash of the run's row, its configuration and its last signal.
ranks, sessions, geometries, partial_rounds, checkpoints: hashes.
batches: hash of batches by id, `COMMIT:NUMBER:ATTEMPT:SIZE`; batch_steps: the ids by step.
rows, layers, remains: hashes of windows by `STEP NUL GROUP`; windows: all of those, sorted; timeline: the
same as `GROUP NUL STEP`; turns: those whose phase is not that of the group's window before.
observed: kept rounds as `ATTEMPT:STEP:PIECES`, by step; observations: hash of pieces by that and a
number.
signals: hash by revision; revisions, signal_steps: the revisions by themselves and by step.
lease: hash of whose the run is: `epoch` (NUMBER-TOKEN), `owner` (HOST:PORT; empty = nobody's) and `until`
(milliseconds since 1970, by Redis's clock); see redis_lease.lua.
"""
STEP_DIGITS = 16
"""Steps are below 2^53; with as many digits their text sorts as they do."""


def key(run: str, kind: str) -> str:
    """The key of a kind of a run."""
    return f"pathwatch:{{{run}}}:{kind}"


def keys(run: str) -> list[str]:
    """All keys of a run, in the order of `KINDS`."""
    return [key(run, kind) for kind in KINDS]
