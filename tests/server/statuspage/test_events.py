"""Events that were kept are those that all signals tell of."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pathwatch.server.statuspage import events
from pathwatch.server.statuspage.events import Events
from pathwatch.server.store.interface import Store
from pathwatch.server.store.rows import DeleteRun, PutSignal, SignalRow
from pathwatch.server.store.sqlite import SqliteStore
from pathwatch.v1 import signal_pb2

Said = tuple[int, int, int]
"""Action, phase of the group, best checkpoint (0 = none)."""
DAMAGED = (9, 0, 0)
said = st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(0, 2))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with closing(SqliteStore(tmp_path_factory.mktemp("events"))) as opened:
        yield opened


def put(store: Store, revision: int, what: Said) -> None:
    action, phase, best = what
    signal = signal_pb2.Signal(
        run="run", step=revision, revision=revision, action=signal_pb2.Action.ValueType(action)
    )
    status = signal.groups.add(group="math", phase=signal_pb2.Phase.ValueType(phase))
    if best:
        status.best_checkpoint_step = best
    content = b"damaged" if what == DAMAGED else signal.SerializeToString()
    store.commit([PutSignal(row=SignalRow(run="run", revision=revision, step=revision, signal=content))])


@settings(max_examples=40, deadline=None)
@given(told=st.lists(st.lists(st.one_of(said, st.just(DAMAGED)), max_size=6), min_size=1, max_size=6))
def test_what_is_kept_is_what_is_read(store: Store, told: list[list[Said]]) -> None:
    store.commit([DeleteRun(run="run")])
    asked_all_along, newest = Events(store), 0
    assert asked_all_along.document("run", "life", 0, 0) is None
    for stretch in told:
        for what in stretch:
            newest += 1
            put(store, newest, what)
        kept = asked_all_along.document("run", "life", 0, newest)
        assert kept == Events(store).document("run", "life", 0, newest)
        assert kept is None or kept["revision"] == newest


@settings(max_examples=40, deadline=None)
@given(told=st.lists(st.lists(said, max_size=6), min_size=1, max_size=6), most=st.integers(1, 8))
def test_of_the_newest_signals_alone(store: Store, told: list[list[Said]], most: int) -> None:
    store.commit([DeleteRun(run="run")])
    asked_all_along, newest = Events(store), 0
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(events, "MAX_SIGNALS", most)
        for stretch in told:
            for what in stretch:
                newest += 1
                put(store, newest, what)
            kept = asked_all_along.document("run", "life", 0, newest)
            assert kept == Events(store).document("run", "life", 0, newest)
            assert kept is None or all(event["revision"] > newest - most for event in kept["events"])


def test_best_checkpoints_push_out_no_other_events(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.commit([DeleteRun(run="run")])
    for revision in range(1, 31):
        put(store, revision, (1, 1 + revision // 10, revision))
    whole = Events(store).document("run", "life", 0, 30)
    assert whole is not None
    checkpoints = [event for event in whole["events"] if event["kind"] == "checkpoint"]
    others = [event for event in whole["events"] if event["kind"] != "checkpoint"]
    assert (len(checkpoints), len(others)) == (30, 3)
    monkeypatch.setattr(events, "EVENTS", 2)
    monkeypatch.setattr(events, "CHECKPOINT_EVENTS", 4)
    asked_again = Events(store)
    for _ in range(2):
        told = asked_again.document("run", "life", 0, 30)
        assert told == whole | {"events": sorted(others[1:] + checkpoints[-4:], key=whole["events"].index)}


def test_another_run_of_the_same_name(store: Store) -> None:
    known = Events(store)
    for life, action in enumerate((signal_pb2.ACTION_STOP, signal_pb2.ACTION_CHECKPOINT)):
        store.commit([DeleteRun(run="run")])
        put(store, 1, (action, 1, 0))
        document = known.document("run", life, 0, 1)
        assert document is not None
        assert [event["after"] for event in document["events"]] == [
            signal_pb2.Action.Name(action).removeprefix("ACTION_")
        ]
