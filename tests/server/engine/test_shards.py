"""Several engines over one store: a run is one's at a time, and what others make of it does not count."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from memory_leases import LeasedStore, LeaseTable, MemoryLeases

from pathwatch.server.config import Limits
from pathwatch.server.engine.commands import BATCH_COST, COMMAND_COST
from pathwatch.server.engine.live_run import LiveRun
from pathwatch.server.engine.refusal import Code, LimitError, MovedError, RefusedError
from pathwatch.server.engine.streams import End, RankStream
from pathwatch.server.phases.verdict import Checkpoint
from pathwatch.server.store.interface import DamagedError, StoreError, UnstorableError
from pathwatch.server.store.sqlite import SqliteStore
from pathwatch.v1 import run_pb2

A, B = "a.example:1", "b.example:2"
Eventually = Callable[[Callable[[], Any]], Any]


class Shards:
    """Any number of engines over one store."""

    def __init__(self, folder: Path, make_bench: Callable[..., Any]) -> None:
        self.table = LeaseTable()
        self.stored = SqliteStore(folder)
        self._make_bench = make_bench

    def start(self, own: str, *, lease_seconds: float = 3600.0, **options: object) -> Any:
        return self._make_bench(
            **options,
            leases=MemoryLeases(self.table, own, seconds=lease_seconds),
            open_store=lambda _: LeasedStore(self.stored, self.table, own),
        )


@pytest.fixture
def stored_folder(tmp_path: Path) -> Path:
    return tmp_path / "shared"


@pytest.fixture
def shared(stored_folder: Path) -> Iterator[list[SqliteStore]]:
    opened: list[SqliteStore] = []
    yield opened
    for store in opened:
        store.close()


@pytest.fixture
def shards(shared: list[SqliteStore], stored_folder: Path, make_bench: Callable[..., Any]) -> Shards:
    made = Shards(stored_folder, make_bench)
    shared.append(made.stored)
    return made


def moved(call: Callable[[], Any]) -> str:
    """To whom a call was sent on."""
    with pytest.raises(MovedError) as refused:
        call()
    assert refused.value.code == Code.UNAVAILABLE
    return refused.value.owner


def asks(shard: Any, run: str = "run") -> dict[str, Callable[[], Any]]:
    """Everything that may be asked of a run."""
    engine = shard.engine
    return {
        "read": lambda: engine.adopt(run).result(30),
        "hello": lambda: shard.join(run=run, session="other"),
        "create": lambda: shard.create(run),
        "finish": lambda: engine.finish_run(run).result(30),
        "register": lambda: engine.register_checkpoint(run, Checkpoint(step=1, tag="", attempt=0)).result(30),
        "rank": lambda: engine.rank_checkpoints(run, None, 0).result(30),
        "delete": lambda: engine.delete_run(run).result(30),
    }


def test_whoever_is_asked_for_another_s_run_names_its_owner(shards: Shards) -> None:
    first, second = shards.start(A), shards.start(B)
    first.create()
    for name, ask in asks(second).items():
        assert (name, moved(ask)) == (name, A)
    assert second.engine.views == {}
    assert first.view().run.name == "run"


def test_a_drained_server_s_run_is_served_by_the_next_as_if_nothing_had_happened(
    shards: Shards, make_batch: Any, eventually: Eventually, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "pathwatch")
    first, second = shards.start(A), shards.start(B)
    first.create()
    rank = first.join()
    for step in (10, 20):
        rank.observe(make_batch(step))
        rank.watermark(step)
    rank.observe(make_batch(30))
    eventually(lambda: rank.acked == 5 and first.view().run.closed_step == 20)
    before = first.view()
    assert moved(lambda: second.join()) == A
    first.engine.stop()
    assert shards.table.owners == {}

    again = second.join()
    assert again.stream.acked == 5
    (taken_up,) = (record for record in caplog.records if record.getMessage() == "run 'run' is taken up")
    assert vars(taken_up)["epoch"] == 2
    view = second.view()
    assert (view.run, view.last_signal, view.windows) == (before.run, before.last_signal, before.windows)
    assert view.inherited_revision == before.last_signal.revision
    again.sequence = 5
    last = again.watermark(30)
    eventually(lambda: again.acked == last and second.view().run.closed_step == 30)
    steps = [(row.step, row.metrics["window_samples"]) for row in shards.stored.windows("run")]
    assert steps == [(10, 8), (20, 8), (30, 8)]


def test_a_name_without_a_run_is_nobody_s(shards: Shards) -> None:
    shard = shards.start(A)
    for name, ask in asks(shard, "nobody").items():
        if name == "create":
            continue
        with pytest.raises(RefusedError, match="there is no run 'nobody'") as refused:
            ask()
        assert refused.value.code == Code.NOT_FOUND, name
    with pytest.raises(RefusedError, match="topology"):
        shard.create("bad", topology=run_pb2.Topology(layers=0, experts=0))
    assert shard.leases.asked == []
    assert shards.table.owners == {}


def test_of_a_run_that_is_lost_nothing_is_written_and_nobody_is_told_more(
    shards: Shards, make_batch: Any, eventually: Eventually, caplog: pytest.LogCaptureFixture
) -> None:
    shard = shards.start(A, lease_seconds=0.1)
    for run in ("run", "kept"):
        shard.create(run)
    rank, other = shard.join(), shard.join(run="kept")
    rank.observe(make_batch(10))
    eventually(lambda: rank.acked == 1)
    heard: list[str] = []
    shard.engine.listen(heard.append)
    shards.table.steal("run", B)
    eventually(lambda: rank.ended)
    assert isinstance(rank.ended, MovedError)
    assert rank.ended.owner == B
    eventually(lambda: "run" not in shard.engine.views and "run" in heard)
    assert shard.store.let_go_of == ["run"]
    assert shard.engine.stats.lease_losses == 1
    (lost,) = (record for record in caplog.records if "is lost to b.example:2" in record.getMessage())
    assert vars(lost)["epoch"] == 1
    # What was under way is not taken, nor is the run asked for on its behalf.
    del shards.table.owners["run"]
    asked = len(shard.leases.asked)
    rank.observe(make_batch(20))
    last = other.watermark(10)
    eventually(lambda: other.acked == last)
    assert (rank.acked, len(shard.leases.asked)) == (1, asked)
    assert [batch.step for batch in shards.stored.batches("run")] == [10]


def test_what_was_not_stored_when_the_run_was_lost_is_not_acknowledged(
    shards: Shards, make_batch: Any, eventually: Eventually
) -> None:
    """Lost in the middle of a commit, in which another run's part goes through."""
    shard = shards.start(A)
    for run in ("run", "kept"):
        shard.create(run)
    rank, other = shard.join(), shard.join(run="kept")
    shard.store.full = True
    rank.observe(make_batch(10))
    lost = shard.engine.register_checkpoint("run", Checkpoint(step=1, tag="", attempt=0))
    last = other.observe(make_batch(10))
    kept = shard.engine.register_checkpoint("kept", Checkpoint(step=1, tag="", attempt=0))
    eventually(lambda: shard.engine.stats.commit_failures)
    shards.table.steal("run", B)
    shard.store.full = False
    assert kept.result(30).run.name == "kept"
    assert moved(lambda: lost.result(30)) == B
    eventually(lambda: other.acked == last and rank.ended)
    assert (rank.acked, moved(lambda: _raise(rank.ended))) == (0, B)
    assert shards.stored.checkpoints("run") == []
    assert list(shards.stored.batches("run")) == []
    assert moved(lambda: shard.join(session="other")) == B
    assert "run" not in shard.leases.held


def test_what_was_not_stored_of_a_lost_run_is_not_written_when_it_comes_back(
    shards: Shards, make_batch: Any, eventually: Eventually
) -> None:
    shard = shards.start(A, lease_seconds=0.1)
    shard.create()
    rank = shard.join()
    shard.store.full = True
    rank.observe(make_batch(10))
    eventually(lambda: shard.engine.stats.commit_failures)
    shards.table.steal("run", B)
    eventually(lambda: rank.ended)
    del shards.table.owners["run"]
    again = shard.engine.adopt("run")
    eventually(lambda: "run" in shard.leases.held)
    shard.store.full = False
    assert again.result(30).run.step == -1
    assert list(shards.stored.batches("run")) == []
    assert shard.join().stream.acked == 0


def _raise(error: Exception) -> None:
    raise error


@pytest.mark.slow
@pytest.mark.parametrize("noticed", ["renewing", "writing"])
def test_a_deletion_of_a_run_that_was_lost_meanwhile_is_not_said_to_be_done(
    shards: Shards, eventually: Eventually, noticed: str
) -> None:
    shard = shards.start(A, lease_seconds=0.1 if noticed == "renewing" else 3600)
    shard.create()
    shard.store.full = True
    deleted = shard.engine.delete_run("run")
    eventually(lambda: shard.engine.stats.commit_failures)
    shards.table.steal("run", B)
    if noticed == "renewing":
        eventually(lambda: "run" not in shard.leases.held)
    shard.store.full = False
    assert moved(lambda: deleted.result(30)) == B
    assert [row.name for row in shards.stored.runs()] == ["run"]


@pytest.mark.slow
def test_a_run_that_is_deleted_and_made_anew_at_once_begins_anew(
    shards: Shards, make_batch: Any, eventually: Eventually
) -> None:
    """Before the deletion is stored, the store still has what is gone."""
    shard = shards.start(A)
    shard.create()
    rank = shard.join()
    rank.observe(make_batch(10))
    eventually(lambda: rank.acked == 1)
    shard.store.full = True
    deleted = shard.engine.delete_run("run")
    gone = shard.engine.adopt("run")
    config = run_pb2.RunConfig(topology=run_pb2.Topology(layers=2, experts=4))
    made = shard.engine.create_run("run", config, 0)
    eventually(lambda: shard.engine.stats.commit_failures)
    shard.store.full = False
    assert deleted.result(30) is None
    with pytest.raises(RefusedError, match="there is no run 'run'"):
        gone.result(30)
    run, created = made.result(30)
    assert (created, run.step) == (True, -1)
    assert list(shards.stored.batches("run")) == []


def test_the_name_of_a_deleted_run_is_free_for_others_after_a_while(
    shards: Shards, eventually: Eventually
) -> None:
    shard = shards.start(A, lease_seconds=0.1)
    shard.create("gone")
    shard.create("again")
    for run in ("gone", "again"):
        shard.engine.delete_run(run).result(30)
    shard.create("again")
    assert shards.table.owners == {"gone": A, "again": A}
    shard.steady += 0.2
    eventually(lambda: shards.table.owners == {"again": A})
    assert shard.create("again").name == "again"


def test_while_the_store_is_away_it_is_asked_once_a_second(
    shards: Shards, caplog: pytest.LogCaptureFixture
) -> None:
    shards.start(A).create()
    shard = shards.start(B)
    shard.leases.away = True
    for _ in range(3):
        with pytest.raises(RefusedError, match="the store does not answer") as refused:
            shard.join()
        assert refused.value.code == Code.UNAVAILABLE
    assert len(shard.leases.asked) == 1
    shard.steady += 1.5
    with pytest.raises(RefusedError, match="the store does not answer"):
        shard.join()
    assert caplog.text.count("runs cannot be taken up") == 1
    shard.leases.away = False
    shard.steady += 1.5
    assert moved(lambda: shard.join()) == A


def test_leases_are_renewed_again_when_the_store_is_back(
    shards: Shards, eventually: Eventually, caplog: pytest.LogCaptureFixture
) -> None:
    shard = shards.start(A, lease_seconds=0.05)
    shard.create()
    shard.leases.away = True
    before = shard.leases.renewals
    eventually(lambda: shard.leases.renewals > before + 3)
    assert "run" in shard.engine.views
    shard.leases.away = False
    eventually(lambda: "leases are renewed again" in caplog.text)
    assert caplog.text.count("leases cannot be renewed") == 1
    assert "run" in shard.engine.views


def test_misdirected_calls_do_not_read_the_store(shards: Shards, monkeypatch: pytest.MonkeyPatch) -> None:
    shards.start(A).create()
    shard = shards.start(B)
    assert moved(lambda: shard.join()) == A
    monkeypatch.setattr(shards.stored, "run", lambda _: pytest.fail("it was read"))
    assert moved(lambda: shard.join()) == A


def test_a_damaged_run_is_closed_and_holds_up_no_other(
    shards: Shards, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    first = shards.start(A)
    for run in ("run", "good"):
        first.create(run)
    first.engine.stop()
    shard = shards.start(B)
    newest = shards.stored.newest_windows

    def damaged(run: str) -> Any:
        if run == "run":
            raise DamagedError("bytes that nobody can read")
        return newest(run)

    monkeypatch.setattr(shards.stored, "newest_windows", damaged)
    for _ in range(2):
        with pytest.raises(RefusedError, match="takes nothing before the server is restarted") as refused:
            shard.engine.adopt("run").result(30)
        assert refused.value.code == Code.INTERNAL
    assert shard.engine.adopt("good").result(30).run.name == "good"
    assert [r.levelno for r in caplog.records if "takes nothing" in r.getMessage()] == [logging.ERROR]
    shard.engine.delete_run("run").result(30)
    assert [row.name for row in shards.stored.runs()] == ["good"]


def test_nobody_waits_for_a_run_that_is_taken_up_after_theirs(
    shards: Shards, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when a server takes over all that another had: the calls about its runs come at once."""
    runs = ("first", "second", "third")
    former = shards.start(A)
    for run in runs:
        former.create(run)
    former.engine.stop()
    shard = shards.start(B)
    newest, may_go_on = shards.stored.newest_windows, {run: threading.Event() for run in runs}

    def slow(run: str) -> Any:
        assert may_go_on[run].wait(30)
        return newest(run)

    monkeypatch.setattr(shards.stored, "newest_windows", slow)
    asked = [shard.engine.adopt(run) for run in runs]
    may_go_on["first"].set()
    assert asked[0].result(30).run.name == "first"
    may_go_on["second"].set()
    assert asked[1].result(30).run.name == "second"
    assert not asked[2].done()
    may_go_on["third"].set()
    assert asked[2].result(30).run.name == "third"


def test_a_run_that_could_not_be_read_while_it_was_taken_is_taken_the_next_time(
    shards: Shards, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = shards.start(A)
    first.create()
    first.engine.stop()
    shard = shards.start(B)
    with monkeypatch.context() as away:
        away.setattr(shards.stored, "checkpoints", _away)
        with pytest.raises(RefusedError, match="the store does not answer"):
            shard.join()
    shard.steady += 1.5
    assert shard.join().stream.acked == 0


def _away(_: str) -> None:
    raise StoreError("the network is away")


def test_a_round_that_is_complete_is_closed_though_another_run_is_taken_up_right_after(
    shards: Shards, make_batch: Any, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    former = shards.start(A)
    for run in ("slow", "other"):
        former.create(run)
    former.engine.stop()
    shard = shards.start(B)
    shard.create()
    rank = shard.join()
    last = rank.observe(make_batch(10))
    eventually(lambda: rank.acked == last)
    newest, may_go_on, waits = shards.stored.newest_windows, threading.Event(), threading.Event()

    def slow(run: str) -> Any:
        waits.set()
        assert may_go_on.wait(30)
        return newest(run)

    monkeypatch.setattr(shards.stored, "newest_windows", slow)
    shard.engine.adopt("slow")
    assert waits.wait(30)
    rank.watermark(10)
    taken = shard.engine.adopt("other")
    may_go_on.set()
    assert taken.result(30).run.name == "other"
    eventually(lambda: shard.view().run.closed_step == 10)


def test_the_store_is_not_held_to_fail_for_what_was_to_be_written_of_a_lost_run(
    shards: Shards, eventually: Eventually
) -> None:
    shard = shards.start(A, lease_seconds=0.1)
    for run in ("run", "kept"):
        shard.create(run)
    shard.store.full = True
    lost = shard.engine.register_checkpoint("run", Checkpoint(step=1, tag="", attempt=0))
    eventually(lambda: shard.engine.stats.commit_failures)
    shards.table.steal("run", B)
    assert moved(lambda: lost.result(30)) == B
    shard.store.full = False
    assert shard.engine.rank_checkpoints("kept", None, 0).result(30) == []


def _unreadable(_: str) -> None:
    raise DamagedError("a row that nobody can read")


def test_a_run_whose_row_is_damaged_can_be_deleted(shards: Shards, monkeypatch: pytest.MonkeyPatch) -> None:
    first = shards.start(A)
    first.create()
    first.engine.stop()
    shard = shards.start(B)
    monkeypatch.setattr(shards.stored, "run", _unreadable)
    with pytest.raises(RefusedError, match="a row that nobody can read"):
        shard.engine.adopt("run").result(30)
    assert shards.table.owners == {"run": B}
    assert shard.engine.delete_run("run").result(30) is None
    assert shards.stored.runs() == []


def test_damage_is_for_the_owner_of_a_run_to_say(shards: Shards, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once it is mended, no other server goes on refusing the run."""
    first = shards.start(A)
    first.create()
    shard = shards.start(B)
    with monkeypatch.context() as damage:
        damage.setattr(shards.stored, "run", _unreadable)
        assert moved(lambda: shard.join()) == A
    first.engine.stop()
    assert shard.join().stream.acked == 0


def test_nothing_is_remembered_of_a_run_that_was_deleted_by_another(
    shards: Shards, eventually: Eventually
) -> None:
    """It may be made anew there, and taken here."""
    first, second = shards.start(A, lease_seconds=0.1), shards.start(B)
    first.create()
    assert moved(lambda: second.join()) == A
    first.engine.delete_run("run").result(30)
    first.steady += 0.2
    eventually(lambda: shards.table.owners == {})
    with pytest.raises(RefusedError, match="there is no run 'run'"):
        second.join()
    assert second.store.let_go_of == ["run"]


def test_a_hello_that_waited_while_the_run_was_taken_up_does_not_end_a_newer_one_s_stream(
    shards: Shards, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of a rank that was cut off meanwhile and has connected anew."""
    first, second = shards.start(A), shards.start(B)
    first.create()
    first.engine.stop()
    engine, newest = second.engine, shards.stored.newest_windows
    may_go_on, waits = threading.Event(), threading.Event()

    def slow(run: str) -> Any:
        waits.set()
        assert may_go_on.wait(30)
        return newest(run)

    monkeypatch.setattr(shards.stored, "newest_windows", slow)
    engine.adopt("run")
    assert waits.wait(30)
    ended: list[str] = []

    def stream(name: str) -> RankStream:
        return RankStream(
            run="run",
            attempt=0,
            rank=0,
            world_size=1,
            session="life",
            deliver=lambda event: ended.append(name) if isinstance(event, End) else None,
        )

    older, newer = stream("older"), stream("newer")
    for _ in range(2 * BATCH_COST // COMMAND_COST):
        engine.adopt("run")  # others of the run, for more than one batch
    said = engine.hello(older)
    come_back: list[Any] = []

    def reconnect(run: str) -> None:
        if not come_back:
            come_back.extend([engine.leave(older), engine.hello(newer)])

    engine.listen(reconnect)
    may_go_on.set()
    said.result(30)
    eventually(lambda: len(come_back) == 2)
    for call in come_back:
        call.result(30)
    assert (ended, newer.ended, second.view().health.connected_ranks) == ([], False, 1)


def test_what_the_former_owner_has_told_of_is_not_told_again_after_a_fault(
    shards: Shards, make_batch: Any, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = shards.start(A), shards.start(B)
    first.create()
    rank = first.join()
    rank.observe(make_batch(10))
    rank.watermark(10)
    eventually(lambda: first.view().run.closed_step == 10)
    told = first.view().last_signal.revision
    first.engine.stop()
    second.engine.adopt("run").result(30)

    def fail_once() -> None:
        with monkeypatch.context() as faulty:
            faulty.setattr(LiveRun, "register", lambda *_: 1 / 0)
            failed = second.engine.register_checkpoint("run", Checkpoint(step=1, tag="", attempt=0))
            assert isinstance(failed.exception(30), ZeroDivisionError)
        eventually(lambda: not isinstance(second.engine.adopt("run").exception(30), RefusedError))

    fail_once()
    assert (told > 0, second.view().inherited_revision) == (True, told)
    second.engine.delete_run("run").result(30)
    second.create()
    fail_once()
    assert second.view().inherited_revision == 0, "of the run that was made anew nobody has told"


def test_finished_runs_that_nobody_uses_make_room_for_others(shards: Shards, eventually: Eventually) -> None:
    first, second = shards.start(A), shards.start(B, limits=Limits(runs=2))
    for run in ("old", "older", "oldest"):
        first.create(run)
        first.engine.finish_run(run).result(30)
    first.engine.stop()
    for run in ("oldest", "older", "old"):
        assert second.engine.adopt(run).result(30).run.state == run_pb2.RUN_STATE_FINISHED
    assert second.create("new").name == "new"
    eventually(lambda: len(second.engine.views) == 2)
    assert set(shards.table.owners) == set(second.engine.views) >= {"new"}
    assert second.create("newer").name == "newer"
    with pytest.raises(LimitError, match="there are 2 runs"):
        second.create("newest")
    assert second.engine.stats.lease_losses == 0
    second.engine.finish_run("new").result(30)
    assert second.engine.adopt("older").result(30).run.state == run_pb2.RUN_STATE_FINISHED


def test_a_run_that_is_lost_is_counted_once_whoever_notices(shards: Shards, eventually: Eventually) -> None:
    shard = shards.start(A, lease_seconds=0.1)
    shard.create()
    renew, may_say = shard.leases.renew, threading.Event()

    def renew_and_say_late() -> Any:
        lost = renew()
        assert not lost or may_say.wait(30)
        return lost

    shard.leases.renew = renew_and_say_late
    shards.table.steal("run", B)
    eventually(lambda: "run" not in shard.leases.held)
    written = shard.engine.register_checkpoint("run", Checkpoint(step=1, tag="", attempt=0))
    assert moved(lambda: written.result(30)) == B
    may_say.set()
    renewals = shard.leases.renewals
    eventually(lambda: shard.leases.renewals > renewals + 1)
    assert moved(lambda: shard.join()) == B
    assert shard.engine.stats.lease_losses == 1


def test_the_name_of_a_run_that_could_never_be_stored_is_free_for_others(
    shards: Shards, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    shard = shards.start(A, lease_seconds=0.1)

    def never(_: Any) -> None:
        raise UnstorableError("a value that nobody can store")

    monkeypatch.setattr(shards.stored, "commit", never)
    with pytest.raises(RefusedError, match="cannot be stored"):
        shard.create()
    eventually(lambda: shards.table.owners == {})


def test_a_server_stops_though_leases_are_renewed_faster_than_the_store_refuses(
    shards: Shards, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    shard = shards.start(A, lease_seconds=0.05)
    shard.create()

    def refuse(_: Any) -> None:
        renewals = shard.leases.renewals
        eventually(lambda: shard.leases.away or shard.leases.renewals > renewals + 2)
        raise StoreError("the store is away")

    monkeypatch.setattr(shard.store, "commit", refuse)
    shard.engine.register_checkpoint("run", Checkpoint(step=1, tag="", attempt=0))
    eventually(lambda: shard.engine.stats.commit_failures)
    stopping = threading.Thread(target=shard.engine.stop)
    stopping.start()
    stopping.join(20)
    has_stopped = not stopping.is_alive()
    shard.leases.away = True  # whatever comes of it, it ends here
    stopping.join(60)
    assert has_stopped
