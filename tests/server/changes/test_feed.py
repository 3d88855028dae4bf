"""A feed over a real store: everything once, in order, also what came while it did not run."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pathwatch.server.changes import feed
from pathwatch.server.changes.diff import Change
from pathwatch.server.changes.feed import ChangeFeed
from pathwatch.server.store.interface import StoreError
from pathwatch.server.store.rows import DeleteRun, PutSignal, SignalRow
from pathwatch.server.store.sqlite import SqliteStore
from pathwatch.v1 import run_pb2, signal_pb2

Eventually = Callable[[Callable[[], Any]], Any]


@dataclass
class House:
    """What a feed sees of an engine, and a store."""

    store: SqliteStore
    views: dict[str, SimpleNamespace] = field(default_factory=dict)
    listeners: list[Callable[[str], None]] = field(default_factory=list)
    told: list[Change] = field(default_factory=list)
    inherited: int = 0
    """Up to which revision another server has told of what is put next."""
    lives: int = 0
    """How many runs were deleted."""

    def listen(self, listener: Callable[[str], None]) -> None:
        self.listeners.append(listener)

    def say(self, run: str, revision: int, best: int) -> None:
        signal = signal_pb2.Signal(
            run=run, revision=revision, step=revision, action=1, best_checkpoint_step=best
        )
        self.put(signal, signal.SerializeToString())

    def put(self, signal: signal_pb2.Signal, content: bytes) -> None:
        """The signal is the run's newest; what is stored of it may be something else."""
        row = SignalRow(run=signal.run, revision=signal.revision, step=signal.step, signal=content)
        self.store.commit([PutSignal(row=row)])
        run = run_pb2.Run(name=signal.run)
        run.created_at.FromSeconds(1_700_000_000 + self.lives)
        self.views = self.views | {
            run.name: SimpleNamespace(run=run, last_signal=signal, inherited_revision=self.inherited)
        }

    def delete(self, run: str) -> None:
        self.lives += 1
        self.store.commit([DeleteRun(run=run)])
        self.views = {name: view for name, view in self.views.items() if name != run}

    def notify(self, run: str) -> None:
        for listener in self.listeners:
            listener(run)

    def feed(self, known: dict[str, SimpleNamespace] | None = None) -> ChangeFeed:
        """To a consumer that knows all that is, or what was."""
        views = self.views if known is None else known
        return ChangeFeed(self, self.store, self.told.append, views)  # type: ignore[arg-type]

    def steps(self, run: str) -> list[tuple[int, Any]]:
        return [(change.revision, change.after) for change in self.told if change.run == run]


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    store = SqliteStore(tmp_path)
    yield House(store)
    store.close()


def test_all_revisions_in_order_though_some_notices_are_missed(house: House) -> None:
    house.say("old", 1, 10)
    told = house.feed()
    told.start()
    for revision in range(1, 6):
        house.say("new", revision, 100 + revision)
    house.say("old", 2, 20)
    house.notify("new")
    house.notify("old")
    told.close()
    assert house.steps("new") == [(revision, 100 + revision) for revision in range(1, 6)]
    assert house.steps("old") == [(2, 20)], "what was said before the feed is known"


def test_what_changed_since_the_consumer_looked_is_told_without_another_notice(house: House) -> None:
    house.say("run", 1, 1)
    known = house.views
    house.say("run", 2, 2)
    house.say("new", 1, 3)
    told = house.feed(known)
    told.start()
    told.close()
    assert (house.steps("run"), house.steps("new")) == ([(2, 2)], [(1, 3)])


@pytest.mark.parametrize("revisions", [1, 3, 5], ids="come to revision {}".format)
def test_a_run_made_anew_under_an_old_name(house: House, revisions: int) -> None:
    for revision in (1, 2, 3):
        house.say("run", revision, revision)
    told = house.feed()
    house.delete("run")
    for revision in range(1, revisions + 1):
        house.say("run", revision, 50 + revision)
    told.start()
    house.notify("run")
    told.close()
    assert house.steps("run") == [(revision, 50 + revision) for revision in range(1, revisions + 1)]


def test_what_another_server_has_told_of_is_not_told_again(house: House) -> None:
    """A run comes, goes, and comes again: in between it was said elsewhere how it went on."""
    told = house.feed()
    told.start()
    for revision in (1, 2):
        house.say("run", revision, revision)
    house.inherited = 2
    house.say("run", 3, 3)
    house.notify("run")
    told.close()
    assert house.steps("run") == [(3, 3)]
    house.told.clear()
    told = house.feed()
    for revision in (4, 5):
        house.say("run", revision, revision)
    house.inherited = 5
    house.say("run", 6, 6)
    told.start()
    told.close()
    assert house.steps("run") == [(6, 6)]


def test_a_damaged_signal_does_not_end_the_telling(house: House, eventually: Eventually) -> None:
    told = house.feed()
    told.start()
    house.put(signal_pb2.Signal(run="bad", revision=1, step=1), b"\xff\xff")
    house.notify("bad")
    eventually(lambda: not told._changed)
    house.say("good", 1, 7)
    house.notify("good")
    eventually(lambda: house.steps("good") == [(1, 7)])
    for revision in (2, 3):
        house.say("bad", revision, 10 * revision)
    house.notify("bad")
    told.close()
    assert house.steps("bad")[-1] == (3, 30)


def test_an_end_that_is_asked_for_as_it_wakes_is_not_slept_through(
    house: House, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = house.feed()
    closing = threading.Thread(target=told.close, daemon=True)
    asked = threading.Event()

    class Wake(threading.Event):
        def clear(self) -> None:
            if not asked.is_set():
                closing.start()
                eventually(lambda: told._closing and self.is_set())
                asked.set()
            super().clear()

    wake = Wake()
    monkeypatch.setattr(told, "_wake", wake)
    told.start()
    assert asked.wait(60)
    closing.join(60)
    ended = not closing.is_alive()
    wake.set()
    assert ended


def test_a_store_that_cannot_be_read_for_a_while(
    house: House, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed, "RETRY_SECONDS", 0.01)
    read, failures = house.store.signals, []

    def fails_twice(run: str, *, after_revision: int = 0) -> list[SignalRow]:
        if len(failures) < 2:
            failures.append(run)
            raise StoreError("the disk is away")
        return read(run, after_revision=after_revision)

    monkeypatch.setattr(house.store, "signals", fails_twice)
    told = house.feed()
    told.start()
    house.say("run", 1, 5)
    house.notify("run")
    eventually(lambda: house.told)
    told.close()
    assert house.steps("run") == [(1, 5)]
