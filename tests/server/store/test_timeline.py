"""The numbered windows in force say what windows say, whatever was put, superseded or migrated."""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pathwatch.server.phases.verdict import Phase
from pathwatch.server.store.interface import Store, StoreReader
from pathwatch.server.store.rows import PutRound, PutRun, Rewind, RunRow, WindowRow, Write
from pathwatch.server.store.sqlite import SqliteStore
from pathwatch.server.store.sqlite_check import database_findings
from pathwatch.server.store.sqlite_folder import FILE_NAME

GROUPS = ("code", "math", "text")
TO_VERSION_5 = """
DROP TABLE timeline;
DROP INDEX signals_by_step;
CREATE INDEX windows_by_phase ON windows (run, "group", phase, step) WHERE superseded=0;
PRAGMA user_version=5;
"""
"""What version 6 brought, taken back."""

Course = list[tuple[int, dict[str, Phase]]]
"""Rounds: steps since the round before, and the phases of the groups that have a window."""
Attempts = list[tuple[float, Course]]
"""The share of the rounds so far that each attempt keeps, and its own."""

courses = st.lists(
    st.tuples(
        st.integers(1, 5),
        st.dictionaries(
            st.sampled_from(GROUPS), st.sampled_from([Phase.LEARNING, Phase.MEMORIZED, Phase.UNKNOWN])
        ),
    ),
    max_size=25,
)
attempts = st.lists(st.tuples(st.floats(0, 1), courses), min_size=1, max_size=3)


def writes(told: Attempts) -> list[Write]:
    made: list[Write] = []
    steps: list[int] = []
    for attempt, (share, course) in enumerate(told):
        if attempt:
            steps = steps[: int(share * len(steps))]
            first = steps[-1] + 1 if steps else 0
            made.append(Rewind(run="run", attempt=attempt, first_step=first, first_window_step=first))
        for gap, phases in course:
            steps.append(gap + (steps[-1] if steps else -1))
            made.append(put_round(steps[-1], phases, attempt=attempt))
    row = RunRow(
        name="run",
        config=b"",
        finished=False,
        attempt=len(told) - 1,
        first_step=0,
        step=max(steps, default=-1),
        closed_step=max(steps, default=-1),
        world_size=1,
        groups=GROUPS,
        created_at=0.0,
        updated_at=0.0,
    )
    return [*made, PutRun(row=row)]


def put_round(step: int, phases: dict[str, Phase], *, attempt: int = 0) -> PutRound:
    windows = tuple(
        WindowRow(
            run="run",
            attempt=attempt,
            first_step=step,
            step=step,
            group=group,
            partial=False,
            judged=True,
            phase=phase,
            reason="so it is",
            metrics={"train_loss": float(step)},
            layer_path_distance=(1.0,),
            evidence=b"",
            losses=b"",
        )
        for group, phase in sorted(phases.items())
    )
    return PutRound(run="run", attempt=attempt, step=step, windows=windows)


def numbered(store: StoreReader) -> list[tuple[str, int, int, int, int, int]]:
    """The timeline as it should be: from all windows."""
    found = []
    for group in GROUPS:
        windows = [row for row in store.windows("run") if row.group == group]
        for number, (before, row) in enumerate(pairwise([None, *windows]), 1):
            assert row is not None
            turn = before is not None and before.phase != row.phase
            found.append((group, row.step, row.attempt, row.phase, number, int(turn)))
    return found


def stored(path: Path) -> list[tuple[str, int, int, int, int, int]]:
    with closing(sqlite3.connect(path / FILE_NAME)) as db:
        return db.execute(
            'SELECT "group", step, attempt, phase, ordinal, turn FROM timeline ORDER BY "group", step'
        ).fetchall()


def thinned(windows: Sequence[WindowRow], points: int) -> tuple[list[WindowRow], int]:
    """docs/api.md in slow words, of one group's windows."""
    if len(windows) <= points:
        return list(windows), 1
    first, last = windows[0].step, windows[-1].step
    wanted = {first, last} | {b.step for a, b in pairwise(windows) if a.phase != b.phase}
    if len(wanted) > points:
        wanted = {first, last}
    even = points - len(wanted)
    wanted |= {first + (last - first) * i // (even + 1) for i in range(1, even + 1)}
    shown = {min(row.step for row in windows if row.step >= step) for step in wanted}
    kept = [row for row in windows if row.step in shown]
    return kept, math.ceil(len(windows) / len(kept))


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["sqlite", "redis"])
@settings(max_examples=40, deadline=None)
@given(told=attempts, points=st.integers(2, 12), after_step=st.integers(-1, 40))
def test_it_says_what_the_windows_say(
    tmp_path_factory: pytest.TempPathFactory,
    new_store: Callable[[str, Path], Callable[[], Store]],
    engine: str,
    told: Attempts,
    points: int,
    after_step: int,
) -> None:
    folder = tmp_path_factory.mktemp("timeline")
    with closing(new_store(engine, folder)()) as store:
        for write in writes(told):
            store.commit([write])
        if engine == "sqlite":
            assert stored(folder) == numbered(store)
        newest = {row.group: row for row in store.newest_windows("run")}
        history = store.thinned_history("run", GROUPS, points=points, after_step=after_step)
        assert history is not None
        strides = []
        for group in GROUPS:
            whole = [row for row in store.windows("run") if row.group == group]
            assert newest.get(group) == (whole[-1] if whole else None)
            kept, stride = thinned([row for row in whole if row.step > after_step], points)
            assert history.windows[group] == kept
            strides.append(stride)
        assert history.stride == max(strides)


@settings(max_examples=15, deadline=None)
@given(told=attempts)
def test_a_file_of_version_5_gets_one(tmp_path_factory: pytest.TempPathFactory, told: Attempts) -> None:
    folder = tmp_path_factory.mktemp("migrated")
    with closing(SqliteStore(folder)) as store:
        store.commit(writes(told))
        expected = numbered(store)
    with closing(sqlite3.connect(folder / FILE_NAME)) as db:
        db.executescript(TO_VERSION_5)
    SqliteStore(folder).close()
    assert stored(folder) == expected


def test_windows_may_be_put_again_and_between_others(tmp_path: Path) -> None:
    with closing(SqliteStore(tmp_path)) as store:
        for step in (10, 30, 20, 30, 5):
            store.commit([put_round(step, {"math": Phase(1 + step // 10)})])
        store.commit([put_round(20, {"math": Phase.UNKNOWN})])
        assert stored(tmp_path) == numbered(store)
        assert [row[1] for row in stored(tmp_path)] == [5, 10, 20, 30]


def test_phases_turn_where_windows_come_between_others(store: Store) -> None:
    phases = {10: Phase.LEARNING, 40: Phase.LEARNING, 20: Phase.MEMORIZED, 30: Phase.LEARNING}
    for step, phase in phases.items():
        store.commit([put_round(step, {"math": phase})])
    store.commit([w for w in writes([(0, [(41, {})])]) if isinstance(w, PutRun)])
    store.commit([put_round(step, {"math": Phase.LEARNING}) for step in range(50, 90, 10)])

    def shown() -> list[int]:
        history = store.thinned_history("run", ["math"], points=4)
        assert history is not None
        return [row.step for row in history.windows["math"]]

    assert shown() == [10, 20, 30, 80]
    store.commit([put_round(20, {"math": Phase.LEARNING}), put_round(40, {"math": Phase.MEMORIZED})])
    assert shown() == [10, 40, 50, 80]


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ("DELETE FROM timeline WHERE step=20", "1 windows that its timeline does not know"),
        ("UPDATE timeline SET phase=5 WHERE step=20", "1 windows that its timeline does not know"),
        ("UPDATE windows SET superseded=1", "3 windows that are superseded or gone"),
        ("UPDATE windows SET step=40 WHERE step=30", "1 windows that are superseded or gone"),
        ("UPDATE timeline SET ordinal=9 WHERE step=30", "3 windows of group 'math', numbered from 1 to 9"),
    ],
)
def test_fsck_finds_what_does_not_fit(tmp_path: Path, change: str, problem: str) -> None:
    with closing(SqliteStore(tmp_path)) as store:
        for step in (10, 20, 30):
            store.commit([put_round(step, {"math": Phase.LEARNING})])
        store.commit([w for w in writes([(0, [(31, {"math": Phase.LEARNING})])]) if isinstance(w, PutRun)])
    assert list(database_findings(tmp_path / FILE_NAME)) == []
    with closing(sqlite3.connect(tmp_path / FILE_NAME)) as db:
        db.executescript(f"BEGIN; {change}; COMMIT;")
    found = [finding.problem for finding in database_findings(tmp_path / FILE_NAME)]
    assert any(problem in text for text in found)
