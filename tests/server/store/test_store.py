"""What the engine relies on, whatever keeps the state."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace

import pytest

from pathwatch.server.phases.verdict import Checkpoint, Phase
from pathwatch.server.store.interface import Store, StoreError, UnstorableError
from pathwatch.server.store.rows import (
    BatchRow,
    BeginAttempt,
    DeleteRun,
    ForgetSession,
    GeometryRow,
    ObservationsRow,
    PartialRoundRow,
    PutBatch,
    PutCheckpoint,
    PutGeometry,
    PutPartialRound,
    PutRank,
    PutRound,
    PutRun,
    PutSession,
    PutSignal,
    RankRow,
    Rewind,
    RunRow,
    SessionRow,
    SignalRow,
    WindowRow,
)

RUN = RunRow(
    name="run",
    config=b"\x00config\xff",
    finished=False,
    attempt=0,
    first_step=-1,
    step=12,
    closed_step=10,
    world_size=2,
    groups=("code", "math"),
    created_at=1_700_000_000.25,
    updated_at=1_700_000_100.5,
)


def window(step: int, group: str = "math", *, attempt: int = 0, phase: Phase = Phase.LEARNING) -> WindowRow:
    return WindowRow(
        run="run",
        attempt=attempt,
        first_step=step,
        step=step,
        group=group,
        partial=False,
        judged=True,
        phase=phase,
        reason=f"reason at {step}",
        metrics={"path_distance": 0.1 + step / 3, "train_loss": 1e-300},
        layer_path_distance=(1.5, 2.25),
        evidence=bytes(range(256)),
        losses=b"losses",
    )


def round_(step: int, *groups: str, attempt: int = 0, phase: Phase = Phase.LEARNING) -> PutRound:
    windows = tuple(window(step, group, attempt=attempt, phase=phase) for group in groups or ("math",))
    return PutRound(run="run", attempt=attempt, step=step, windows=windows)


def kept(step: int, *, attempt: int = 0, run: str = "run") -> PutRound:
    """A round that keeps what its window held."""
    content = f"{run} {attempt} {step}".encode()
    windows = (replace(window(step, attempt=attempt), run=run),)
    return PutRound(run=run, attempt=attempt, step=step, windows=windows, observations=content)


def kept_steps(store: Store, *, run: str = "run", after_step: int = -1) -> list[tuple[int, int]]:
    rows = list(store.observations(run, after_step=after_step))
    for row in rows:
        assert (row.run, row.observations) == (run, f"{run} {row.attempt} {row.step}".encode())
    return [(row.attempt, row.step) for row in rows]


def batch(step: int, content: bytes = b"batch", *, attempt: int = 0, run: str = "run") -> PutBatch:
    return PutBatch(row=BatchRow(run=run, attempt=attempt, step=step, batch=content))


def signal(revision: int, step: int, content: bytes = b"signal") -> PutSignal:
    return PutSignal(row=SignalRow(run="run", revision=revision, step=step, signal=content))


def checkpoint(step: int, attempt: int = 0, tag: str = "tag") -> PutCheckpoint:
    return PutCheckpoint(run="run", checkpoint=Checkpoint(step=step, tag=tag, attempt=attempt))


def geometry(step: int, attempt: int = 0, content: bytes = b"gram") -> PutGeometry:
    return PutGeometry(row=GeometryRow(run="run", attempt=attempt, step=step, geometry=content))


def steps(store: Store) -> list[int]:
    return [row.step for row in store.windows("run")]


def test_everything_survives_a_restart(open_store: Callable[[], Store]) -> None:
    rank = RankRow(run="run", attempt=0, rank=1, world_size=2, watermark=10)
    session = SessionRow(run="run", attempt=0, rank=1, session="life", last_sequence=2**40)
    store = open_store()
    store.commit([PutRun(row=RUN), PutRank(row=rank), PutSession(row=session), batch(12), geometry(11)])
    store.commit([round_(10, "math", "code"), signal(1, -1), checkpoint(9)])

    store = open_store()
    assert store.runs() == [RUN]
    assert store.ranks("run", 0) == [rank]
    assert store.sessions("run", 0) == [session]
    assert [row.batch for row in store.batches("run")] == [b"batch"]
    assert store.geometries("run") == [GeometryRow(run="run", attempt=0, step=11, geometry=b"gram")]
    assert list(store.windows("run")) == [window(10, "code"), window(10, "math")]
    assert store.last_signal("run") == SignalRow(run="run", revision=1, step=-1, signal=b"signal")
    assert store.checkpoints("run") == [Checkpoint(step=9, tag="tag", attempt=0)]


def test_one_run_of_many(open_store: Callable[[], Store]) -> None:
    store = open_store()
    other = replace(RUN, name="other", step=3)
    store.commit([PutRun(row=RUN), PutRun(row=other)])
    assert (store.run(RUN.name), store.run("other"), store.run("none")) == (RUN, other, None)
    assert store.names() == ["other", RUN.name]
    store.commit([DeleteRun(run="other")])
    assert (store.run(RUN.name), store.run("other")) == (RUN, None)
    assert store.names() == [RUN.name]
    assert open_store().run(RUN.name) == RUN


def test_rows_are_replaced_not_doubled(store: Store) -> None:
    later = replace(RUN, step=20, finished=True)
    store.commit([PutRun(row=RUN), checkpoint(5, tag="old"), geometry(3, content=b"old")])
    store.commit([PutRun(row=later), checkpoint(5, tag="new"), geometry(3, content=b"new")])
    assert store.runs() == [later]
    assert [point.tag for point in store.checkpoints("run")] == ["new"]
    assert [row.geometry for row in store.geometries("run")] == [b"new"]


def test_a_commit_is_all_or_nothing(store: Store) -> None:
    broken = BatchRow(run="run", attempt=0, step=1, batch=None)  # type: ignore[arg-type]
    with pytest.raises(StoreError, match="cannot write"):
        store.commit([PutRun(row=RUN), batch(1), PutBatch(row=broken)])
    assert store.runs() == []
    assert list(store.batches("run")) == []
    store.commit([PutRun(row=RUN)])
    assert store.runs() == [RUN]


@pytest.mark.parametrize("value", ["lone surrogate", "beyond 64 bits"])
def test_a_value_that_cannot_be_stored_is_told_from_a_full_disk(store: Store, value: str) -> None:
    bad = checkpoint(1, tag="\ud800") if value == "lone surrogate" else checkpoint(2**63)
    store.commit([PutRun(row=RUN)])
    with pytest.raises(UnstorableError, match="now or ever"):
        store.commit([batch(1), bad])
    assert list(store.batches("run")) == []
    store.commit([batch(2)])
    assert [row.step for row in store.batches("run")] == [2]


def test_batches_come_back_in_order_until_their_round_is_judged(store: Store) -> None:
    store.commit([batch(2, b"b"), batch(1, b"a"), batch(3, b"c"), batch(1, b"other", run="other")])
    assert [row.batch for row in store.batches("run")] == [b"b", b"a", b"c"]
    store.commit([round_(2)])
    assert [row.batch for row in store.batches("run")] == [b"c"]
    assert [row.batch for row in store.batches("other")] == [b"other"]


def test_two_attempts_have_a_geometry_at_one_step(store: Store) -> None:
    store.commit([geometry(10, content=b"first"), geometry(10, attempt=1, content=b"second")])
    assert [row.geometry for row in store.geometries("run")] == [b"first", b"second"]
    store.commit([Rewind(run="run", attempt=1, first_step=20, first_window_step=20)])
    assert len(store.geometries("run")) == 2
    store.commit([Rewind(run="run", attempt=1, first_step=10, first_window_step=10)])
    assert [row.geometry for row in store.geometries("run")] == [b"second"]


def test_the_geometry_in_force_is_kept_and_older_ones_go(store: Store) -> None:
    store.commit([geometry(step) for step in (0, 5, 10, 15)])
    store.commit([round_(12)])
    assert [row.step for row in store.geometries("run")] == [10, 15]


def test_a_signal_said_again_replaces_the_last_but_not_history(store: Store) -> None:
    store.commit([PutRun(row=RUN), signal(1, -1, b"first"), signal(2, 10, b"given"), signal(2, 20, b"again")])
    last = store.last_signal("run")
    assert last is not None
    assert (last.revision, last.step, last.signal) == (2, 20, b"again")
    assert [row.signal for row in store.history("run", after_step=-2).signals] == [b"first", b"given"]
    assert [row.signal for row in store.signals("run", after_revision=1)] == [b"given"]
    assert [row.revision for row in store.signals("run")] == [1, 2]
    assert [row.revision for row in store.signals("run", limit=1)] == [1]
    assert store.last_signal("other") is None


def test_history_by_step_group_and_count(store: Store) -> None:
    store.commit([PutRun(row=RUN), round_(1, "math", "code"), round_(2, "math", "code"), round_(3, "math")])
    store.commit([signal(1, -1), signal(2, 1), signal(3, 3)])

    def found(**wanted: object) -> list[tuple[int, str]]:
        return [(row.step, row.group) for row in store.history("run", **wanted).windows]  # type: ignore[arg-type]

    assert found() == [(1, "code"), (1, "math"), (2, "code"), (2, "math"), (3, "math")]
    assert found(after_step=1) == [(2, "code"), (2, "math"), (3, "math")]
    assert found(group="code") == [(1, "code"), (2, "code")]
    assert found(after_step=1, limit=1) == [(2, "code")]
    history = store.history("run", after_step=1)
    assert [row.revision for row in history.signals] == [3]
    assert history.closed_step == RUN.closed_step
    assert history.windows[0].metrics == window(2, "code").metrics
    assert store.history("nobody").closed_step == -1


def test_newest_window_of_each_group(store: Store) -> None:
    store.commit(
        [
            round_(1, "math", "code"),
            round_(2, "math", "code", phase=Phase.MEMORIZED),
            round_(3, "math", phase=Phase.LEARNING),
        ]
    )
    newest = {row.group: (row.step, row.evidence) for row in store.newest_windows("run")}
    assert newest == {"code": (2, b""), "math": (3, b"")}


def test_a_rewind_supersedes_what_older_attempts_did_from_its_step(open_store: Callable[[], Store]) -> None:
    store = open_store()
    store.commit([PutRun(row=RUN), round_(1), round_(2), round_(3)])
    store.commit([checkpoint(1), checkpoint(2), checkpoint(3), geometry(0), geometry(2), batch(4)])
    store.commit([BeginAttempt(run="run", attempt=1, closed_step=3)])
    store.commit(
        [Rewind(run="run", attempt=1, first_step=2, first_window_step=2), batch(2, b"new", attempt=1)]
    )
    store.commit([checkpoint(2, attempt=1)])
    store = open_store()
    assert steps(store) == [1]
    assert [(point.step, point.attempt) for point in store.checkpoints("run")] == [(1, 0), (2, 1)]
    assert [row.step for row in store.geometries("run")] == [0]
    assert [row.batch for row in store.batches("run")] == [b"new"]
    store.commit([round_(2, attempt=1)])
    assert [(row.step, row.attempt) for row in store.windows("run")] == [(1, 0), (2, 1)]
    assert [row.step for row in store.newest_windows("run")] == [2]


def test_observations_are_kept_where_a_round_brings_them(open_store: Callable[[], Store]) -> None:
    store = open_store()
    store.commit([kept(step) for step in (20, 10, 30)])
    store.commit([round_(40), kept(15, run="other")])
    store = open_store()
    assert kept_steps(store) == [(0, 10), (0, 20), (0, 30)]
    assert kept_steps(store, after_step=10) == [(0, 20), (0, 30)]
    assert kept_steps(store, run="other") == [(0, 15)]
    assert kept_steps(store, run="nobody") == []
    assert steps(store) == [10, 20, 30, 40]


def test_superseded_observations_go(store: Store) -> None:
    store.commit([kept(step) for step in (1, 2, 3)])
    store.commit([kept(2, run="other")])
    store.commit([Rewind(run="run", attempt=1, first_step=2, first_window_step=2)])
    assert kept_steps(store) == [(0, 1)]
    store.commit([kept(2, attempt=1)])
    assert kept_steps(store) == [(0, 1), (1, 2)]
    # Its slowest rank began earlier.
    store.commit([Rewind(run="run", attempt=1, first_step=1, first_window_step=1)])
    assert kept_steps(store) == [(1, 2)]
    assert kept_steps(store, run="other") == [(0, 2)]


def test_observations_are_committed_with_their_round_or_not_at_all(store: Store) -> None:
    broken = BatchRow(run="run", attempt=0, step=1, batch=None)  # type: ignore[arg-type]
    with pytest.raises(StoreError):
        store.commit([kept(1), PutBatch(row=broken)])
    assert kept_steps(store) == []


def test_a_reader_of_observations_holds_nothing_up(store: Store) -> None:
    """Rounds that come, or go by a rewind, while a slow reader is under way."""
    store.commit([kept(1), kept(2), kept(3)])
    reading = store.observations("run")
    assert next(reading) == ObservationsRow(run="run", attempt=0, step=1, observations=b"run 0 1")
    store.commit([Rewind(run="run", attempt=1, first_step=2, first_window_step=2), kept(4, attempt=1)])
    assert [(row.attempt, row.step) for row in reading] == [(1, 4)]


def partial(step: int, *ranks: int, attempt: int = 0, run: str = "run") -> PutPartialRound:
    row = PartialRoundRow(run=run, attempt=attempt, step=step, missing_ranks=ranks)
    return PutPartialRound(row=row)


def test_who_was_missing_is_known_until_the_round_is_judged(open_store: Callable[[], Store]) -> None:
    store = open_store()
    store.commit([partial(3, 0), partial(1, 1, 2), partial(2, 1), partial(1, 7, run="other")])
    store = open_store()
    assert [(row.step, row.missing_ranks) for row in store.partial_rounds("run")] == [
        (1, (1, 2)),
        (2, (1,)),
        (3, (0,)),
    ]
    store.commit([round_(1)])
    assert [row.step for row in store.partial_rounds("run")] == [2, 3]
    store.commit([Rewind(run="run", attempt=1, first_step=3, first_window_step=3), partial(3, 4, attempt=1)])
    assert [(row.attempt, row.step) for row in store.partial_rounds("run")] == [(0, 2), (1, 3)]
    store.commit([round_(3, attempt=1)])
    assert store.partial_rounds("run") == []
    store.commit([DeleteRun(run="other")])
    assert store.partial_rounds("other") == []


def test_a_new_attempt_drops_open_windows_but_keeps_closed_ones_to_be_judged(store: Store) -> None:
    old = RankRow(run="run", attempt=0, rank=0, world_size=1, watermark=3)
    session = SessionRow(run="run", attempt=0, rank=0, session="life", last_sequence=7)
    store.commit([PutRank(row=old), PutSession(row=session), batch(3, b"closed"), batch(4, b"open")])
    store.commit([BeginAttempt(run="run", attempt=1, closed_step=3), batch(4, b"new", attempt=1)])
    assert [row.batch for row in store.batches("run")] == [b"closed", b"new"]
    assert store.ranks("run", 0) == []
    assert store.sessions("run", 0) == []


def test_a_session_is_forgotten_and_the_one_written_last_is_last(store: Store) -> None:
    def session(name: str, last: int) -> SessionRow:
        return SessionRow(run="run", attempt=0, rank=1, session=name, last_sequence=last)

    store.commit([PutSession(row=session(name, 1)) for name in "abc"])
    store.commit([PutSession(row=session("a", 2))])
    assert store.sessions("run", 0) == [session("b", 1), session("c", 1), session("a", 2)]
    store.commit([ForgetSession(run="run", attempt=0, rank=1, session="b")])
    store.commit([ForgetSession(run="run", attempt=0, rank=2, session="c")])
    assert store.sessions("run", 0) == [session("c", 1), session("a", 2)]


def test_a_deleted_run_leaves_nothing(store: Store) -> None:
    other = replace(RUN, name="other")
    store.commit([PutRun(row=RUN), PutRun(row=other), round_(1), batch(2), signal(1, 0), checkpoint(1)])
    store.commit([geometry(1), PutRank(row=RankRow(run="run", attempt=0, rank=0, world_size=1, watermark=1))])
    store.commit([kept(1)])
    store.commit([DeleteRun(run="run")])
    assert store.runs() == [other]
    assert store.last_signal("run") is None
    assert steps(store) == []
    assert kept_steps(store) == []
    assert store.geometries("run") == []
    assert store.ranks("run", 0) == []
    assert store.checkpoints("run") == []
    assert list(store.batches("run")) == []
    history = store.history("run", after_step=-2)
    assert (history.windows, history.signals) == ([], [])


def test_reads_from_other_threads_while_commits_go_on(store: Store) -> None:
    """A reader sees whole commits only: both groups of a round or none."""
    store.commit([PutRun(row=RUN)])
    done, torn = threading.Event(), []

    def read() -> None:
        while not done.is_set():
            found = [row.step for row in store.history("run").windows]
            torn.extend(step for step in set(found) if found.count(step) != 2)

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    for step in range(50):
        store.commit([round_(step, "math", "code")])
    done.set()
    for reader in readers:
        reader.join()
    assert not torn
    assert len(steps(store)) == 100
