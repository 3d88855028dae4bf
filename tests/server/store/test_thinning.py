"""Few windows that stand for many."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import accumulate, pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from redis_process import RedisProcess

from pathwatch.server.phases.verdict import Phase
from pathwatch.server.store import sqlite_reads
from pathwatch.server.store.interface import Store
from pathwatch.server.store.rows import DeleteRun, PutRound, PutRun, Rewind, RunRow, WindowRow
from pathwatch.server.store.sqlite_connection import connect

Life = list[tuple[int, Phase]]
"""Steps with phases, by step."""


@pytest.fixture(scope="module", params=["sqlite", "redis"])
def shared_store(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    new_store: Callable[[str, Path], Callable[[], Store]],
) -> Iterator[Store]:
    """For many examples, each of which makes its run anew."""
    with closing(new_store(request.param, tmp_path_factory.mktemp("shared"))()) as store:
        yield store


def run_write(*, attempt: int = 0, closed_step: int = 0) -> PutRun:
    row = RunRow(
        name="run",
        config=b"",
        finished=False,
        attempt=attempt,
        first_step=0,
        step=closed_step,
        closed_step=closed_step,
        world_size=1,
        groups=("code", "math"),
        created_at=0.0,
        updated_at=0.0,
    )
    return PutRun(row=row)


def put_run(store: Store, *, attempt: int = 0, closed_step: int = 0) -> None:
    store.commit([run_write(attempt=attempt, closed_step=closed_step)])


def put_life(store: Store, life: Life, *, group: str = "math", attempt: int = 0) -> None:
    store.commit(round_writes(life, group=group, attempt=attempt))


def round_writes(life: Life, *, group: str = "math", attempt: int = 0) -> list[PutRound]:
    return [
        PutRound(
            run="run",
            attempt=attempt,
            step=step,
            windows=(
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
                    evidence=b"evidence",
                    losses=b"losses",
                ),
            ),
        )
        for step, phase in life
    ]


def shown(store: Store, points: int, *, group: str = "math", after_step: int = -1) -> Life:
    thinned = store.thinned_history("run", [group], points=points, after_step=after_step)
    assert thinned is not None
    return [(row.step, Phase(row.phase)) for row in thinned.windows[group]]


def turns(life: Life) -> set[int]:
    """Steps at which the phase is not that of the window before."""
    return {step for (_, before), (step, after) in pairwise(life) if before != after}


@st.composite
def lives(draw: st.DrawFn) -> Life:
    """Steps at any distances, in stretches of one phase, most of them long."""
    gaps = draw(st.lists(st.integers(1, 9), min_size=15, max_size=80))
    starts = draw(st.dictionaries(st.integers(0, 80), st.sampled_from(Phase), max_size=8)) | {
        0: Phase.LEARNING
    }
    phases = [starts[max(start for start in starts if start <= i)] for i in range(len(gaps))]
    return list(zip(accumulate(gaps), phases, strict=True))


@pytest.mark.slow
@settings(max_examples=100, deadline=None)
@given(life=lives(), points=st.integers(2, 30), after_step=st.integers(-1, 100))
def test_what_is_always_shown(shared_store: Store, life: Life, points: int, after_step: int) -> None:
    shared_store.commit([DeleteRun(run="run"), run_write(), *round_writes(life)])
    got = shown(shared_store, points, after_step=after_step)
    there = [window for window in life if window[0] > after_step]
    assert len(got) <= points
    assert [step for step, _ in got] == sorted({step for step, _ in got})
    assert set(got) <= set(there)
    if len(there) <= points:
        assert got == there
        return
    assert {there[0], there[-1]} <= set(got)
    if len(turns(there)) <= points - 2:
        assert turns(there) <= {step for step, _ in got}


@given(count=st.integers(50, 300), points=st.integers(4, 40), width=st.integers(1, 7))
@settings(max_examples=25, deadline=None)
def test_steps_are_left_out_evenly(shared_store: Store, count: int, points: int, width: int) -> None:
    """Windows at equal distances: no two neighbours are further apart than an even share and a window."""
    life = [(width * i, Phase.LEARNING) for i in range(count)]
    shared_store.commit([DeleteRun(run="run"), run_write(), *round_writes(life)])
    thinned = shared_store.thinned_history("run", ["math"], points=points)
    assert thinned is not None
    steps = [row.step for row in thinned.windows["math"]]
    share = width * (count - 1) / (points - 1)
    assert max(b - a for a, b in pairwise(steps)) <= share + width
    assert len(steps) == points
    assert thinned.stride == -(-count // points)


def test_phases_that_change_all_the_time_are_thinned_too(store: Store) -> None:
    put_run(store)
    put_life(store, [(step, Phase(1 + step % 7)) for step in range(100)])
    steps = [step for step, _ in shown(store, 10)]
    assert len(steps) == 10
    assert max(b - a for a, b in pairwise(steps)) <= 12


def test_groups_are_thinned_each_for_itself(store: Store) -> None:
    put_run(store, attempt=3, closed_step=99)
    put_life(store, [(step, Phase.LEARNING) for step in range(100)])
    put_life(store, [(step, Phase.LEARNING) for step in range(0, 100, 20)], group="code")
    thinned = store.thinned_history("run", ["code", "math", "none"], points=10)
    assert thinned is not None
    assert [row.step for row in thinned.windows["code"]] == [0, 20, 40, 60, 80]
    assert len(thinned.windows["math"]) == 10
    assert thinned.windows["none"] == []
    assert (thinned.stride, thinned.attempt, thinned.closed_step) == (10, 3, 99)


def test_windows_come_as_they_were_put(store: Store) -> None:
    put_run(store)
    put_life(store, [(step, Phase.LEARNING) for step in range(30)])
    for points in (10, 100):
        thinned = store.thinned_history("run", ["math"], points=points)
        assert thinned is not None
        whole = {row.step: row for row in store.history("run").windows}
        assert all(row == whole[row.step] for row in thinned.windows["math"])
        brief = store.thinned_history("run", ["math"], points=points, layers=False)
        assert brief is not None
        assert all(row.layer_path_distance == () for row in brief.windows["math"])
        assert [row.metrics for row in brief.windows["math"]] == [
            row.metrics for row in thinned.windows["math"]
        ]


def test_what_is_superseded_is_gone(store: Store) -> None:
    put_run(store)
    put_life(store, [(step, Phase.LEARNING) for step in range(40)])
    store.commit([Rewind(run="run", attempt=1, first_step=20, first_window_step=20)])
    put_life(store, [(step, Phase.MEMORIZED) for step in range(20, 31, 5)], attempt=1)
    after = [(20, Phase.MEMORIZED), (25, Phase.MEMORIZED), (30, Phase.MEMORIZED)]
    assert shown(store, 100) == [(step, Phase.LEARNING) for step in range(20)] + after
    thin = shown(store, 5)
    assert 3 <= len(thin) <= 5
    assert thin[0] == (0, Phase.LEARNING)
    assert after[0] in thin, "the phase changes there"
    assert thin[-1] == after[-1]
    assert all(step <= 30 for step, _ in thin)


def test_no_such_run(store: Store) -> None:
    put_run(store)
    assert store.thinned_history("other", ["math"], points=10) is None


@pytest.mark.slow
@pytest.mark.parametrize("open_store", ["sqlite"], indirect=True)
def test_what_is_left_out_costs_sqlite_next_to_nothing(store: Store, count_work: Callable[[], int]) -> None:
    """Work as SQLite counts it, in instructions of its machine: for three times the windows, hardly more."""
    put_run(store)
    work = []
    for rounds in (range(2000), range(2000, 6000)):
        for group in ("code", "math"):
            put_life(store, [(step, Phase(1 + step // 1000)) for step in rounds], group=group)
        before = count_work()
        assert len(shown(store, 20)) == 20
        work.append(count_work() - before)
    assert work[1] < 1.2 * work[0]


@pytest.mark.slow
@pytest.mark.parametrize("open_store", ["redis"], indirect=True)
def test_what_is_left_out_costs_redis_next_to_nothing(store: Store, redis_server: RedisProcess) -> None:
    """Work as Redis counts it, in commands of scripts: for three times the windows, hardly more."""
    put_run(store)
    work = []
    with redis_server.client() as client:
        for rounds in (range(1000), range(1000, 3000)):
            for group in ("code", "math"):
                put_life(store, [(step, Phase(1 + step // 500)) for step in rounds], group=group)
            client.config_resetstat()
            assert len(shown(store, 20)) == 20
            calls = client.info("commandstats")
            work.append(sum(of["calls"] for name, of in calls.items() if name != "cmdstat_config"))
    assert work[1] < 1.2 * work[0]


@pytest.fixture
def count_work(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """Hundreds of instructions of SQLite's machine that readers took, counted from now on, times 100."""
    hundreds = 0

    def count() -> int:
        nonlocal hundreds
        hundreds += 1
        return 0

    def counted(path: Path, access: str) -> sqlite3.Connection:
        db = connect(path, access)
        db.set_progress_handler(count, 100)
        return db

    monkeypatch.setattr(sqlite_reads, "connect", counted)
    return lambda: 100 * hundreds
