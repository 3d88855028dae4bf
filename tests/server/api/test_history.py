"""History in brief says what asks a job to do something else, and does not grow with the run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pathwatch.server.api.history import BriefHistory
from pathwatch.server.store.interface import Store
from pathwatch.server.store.rows import DeleteRun, PutRound, PutRun, PutSignal, RunRow, SignalRow, WindowRow
from pathwatch.server.store.sqlite import SqliteStore
from pathwatch.v1 import run_pb2, signal_pb2

GROUPS = ("code", "math")
RUN = run_pb2.Run(name="run")
Asked = tuple[int, int, int | None]
"""Steps since the signal before (a rewind's are negative), action and stop."""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with closing(SqliteStore(tmp_path_factory.mktemp("brief"))) as opened:
        yield opened


def put(store: Store, asked: Sequence[Asked], rounds: int) -> list[signal_pb2.Signal]:
    row = RunRow(
        name="run",
        config=b"",
        finished=False,
        attempt=0,
        first_step=0,
        step=rounds,
        closed_step=rounds,
        world_size=1,
        groups=GROUPS,
        created_at=0.0,
        updated_at=0.0,
    )
    signals, step = [], -1
    for revision, (gap, action, stop) in enumerate(asked, 1):
        step = max(-1, step + gap)
        signals.append(
            signal_pb2.Signal(
                run="run",
                revision=revision,
                step=step,
                action=signal_pb2.Action.ValueType(action),
                stop_at_step=stop,
                reason="so it is",
            )
        )
    writes = [
        PutSignal(row=SignalRow(run="run", revision=s.revision, step=s.step, signal=s.SerializeToString()))
        for s in signals
    ]
    store.commit([DeleteRun(run="run"), PutRun(row=row), *(put_round(n) for n in range(rounds)), *writes])
    return signals


def put_round(step: int) -> PutRound:
    windows = tuple(
        WindowRow(
            run="run",
            attempt=0,
            first_step=step,
            step=step,
            group=group,
            partial=False,
            judged=True,
            phase=signal_pb2.PHASE_LEARNING,
            reason="so it is",
            metrics={"train_loss": step + 0.1},
            layer_path_distance=(1.0, 2.0),
            evidence=b"evidence",
            losses=b"losses",
        )
        for group in GROUPS
    )
    return PutRound(run="run", attempt=0, step=step, windows=windows)


def telling(signals: Sequence[signal_pb2.Signal], after_step: int) -> list[int]:
    """Revisions that say something new, in slow words."""
    wanted = [signal for signal in signals if signal.step > after_step]
    told = []
    for index, signal in enumerate(wanted):
        before = wanted[index - 1] if index else None
        asks = (signal.action, signal.HasField("stop_at_step"), signal.stop_at_step)
        same = before and asks == (before.action, before.HasField("stop_at_step"), before.stop_at_step)
        if not same or index == len(wanted) - 1:
            told.append(signal.revision)
    return told


@settings(max_examples=40, deadline=None)
@given(
    asked=st.lists(
        st.tuples(st.integers(-3, 9), st.integers(1, 3), st.sampled_from([None, 0, 7])), max_size=30
    ),
    points=st.integers(2, 12),
    after_step=st.integers(-2, 30),
)
def test_signals_that_ask_for_something_else(
    store: Store, asked: list[Asked], points: int, after_step: int
) -> None:
    signals = put(store, asked, rounds=0)
    brief = BriefHistory(store)
    for after in (-2, after_step):
        answer = brief.read(RUN, GROUPS, after_step=after, points=points)
        assert [signal.revision for signal in answer.signals] == telling(signals, after)[-points:]
        assert all(signal == signals[signal.revision - 1] for signal in answer.signals)


@settings(max_examples=20, deadline=None)
@given(
    stretches=st.lists(
        st.lists(st.tuples(st.integers(1, 3), st.sampled_from([None, 0, 7])), max_size=6), max_size=6
    )
)
def test_what_was_read_is_not_read_again(store: Store, stretches: list[list[tuple[int, int | None]]]) -> None:
    """Asked again and again while signals come."""
    brief, asked = BriefHistory(store), [(1, 1, None)]
    for stretch in [[], *stretches]:
        asked += [(1, action, stop) for action, stop in stretch]
        signals = put(store, asked, rounds=1)
        answer = brief.read(RUN, GROUPS, after_step=-2, points=1000)
        assert [signal.revision for signal in answer.signals] == telling(signals, -2)


def test_asking_for_later_steps_reads_nothing_again(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = [(1, 1 + number % 2, None) for number in range(30)]
    signals = put(store, asked, rounds=1)
    read: list[int] = []
    of_store = store.signals

    def counting(run: str, *, after_revision: int, limit: int) -> Any:
        rows = of_store(run, after_revision=after_revision, limit=limit)
        read.extend(row.revision for row in rows)
        return rows

    monkeypatch.setattr(store, "signals", counting)
    brief = BriefHistory(store)
    for after in (0, 0, 9):
        answer = brief.read(RUN, GROUPS, after_step=after, points=1000)
        assert [signal.revision for signal in answer.signals] == telling(signals, after)
    assert read == list(range(1, 31))


def test_it_does_not_grow_with_the_run(store: Store) -> None:
    sizes = []
    for rounds in (200, 2000):
        put(store, [(1, 1, None)] * rounds, rounds)
        answer = BriefHistory(store).read(RUN, GROUPS, after_step=-2, points=50)
        assert (len(answer.windows), len(answer.signals), answer.stride) == (100, 2, rounds // 50)
        assert [(w.step, w.group) for w in answer.windows[:2]] == [(0, "code"), (0, "math")]
        assert [w.step for w in answer.windows[-2:]] == [rounds - 1] * 2
        assert answer.windows[-1].metrics["train_loss"] == rounds - 1 + 0.1
        assert list(answer.windows[-1].layer_path_distance) == [1.0, 2.0]
        sizes.append(answer.ByteSize())
    assert sizes[1] < 1.1 * sizes[0]


def test_a_run_that_was_deleted_meanwhile(store: Store) -> None:
    store.commit([DeleteRun(run="run")])
    answer = BriefHistory(store).read(RUN, GROUPS, after_step=-2, points=10)
    assert answer == signal_pb2.GetMetricsResponse(closed_step=-1)
