"""A fault of the service in the middle of one run: nothing acknowledged is lost, no other run is held up."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pathwatch.server.config import Limits
from pathwatch.server.engine import engine, judging
from pathwatch.server.engine.committing import commit
from pathwatch.server.engine.decode import Topology, decode_batch
from pathwatch.server.engine.quarantine import MAX_FAULTS
from pathwatch.server.engine.refusal import Code, RefusedError
from pathwatch.server.engine.streams import Batch
from pathwatch.server.phases.verdict import Checkpoint
from pathwatch.server.sketch.run_sketch import RunSketch
from pathwatch.server.store.interface import FencedError, StoreError, UnstorableError
from pathwatch.server.store.rows import BatchRow, DeleteRun, PutBatch, Write

UNSTORABLE: Any = "\ud800"


def samples(bench: Any, run: str = "run") -> list[tuple[int, float]]:
    return [(row.step, row.metrics["window_samples"]) for row in bench.store.windows(run)]


@pytest.fixture
def runs(bench: Any, make_batch: Any, eventually: Any) -> tuple[Any, Any]:
    """Ranks of two runs, each with one acknowledged step."""
    ranks = []
    for run in ("run", "other"):
        bench.create(run)
        rank = bench.join(run=run)
        rank.observe(make_batch(10))
        ranks.append(rank)
    eventually(lambda: all(rank.acked == 1 for rank in ranks))
    return ranks[0], ranks[1]


def poison(rank: Any, make_batch: Any, step: int) -> None:
    """What no check lets through: bytes of a batch that the store cannot take."""
    topology = Topology(layers=2, experts=4, limits=Limits())
    block = decode_batch(make_batch(step), rank.stream.attempt, topology)
    rank.send(Batch(block=block, serialized=UNSTORABLE))


@pytest.mark.slow
def test_what_cannot_be_stored_of_one_run_holds_up_no_other(
    bench: Any, runs: tuple[Any, Any], make_batch: Any, eventually: Any, caplog: pytest.LogCaptureFixture
) -> None:
    rank, other = runs
    bench.store.full = True  # so that all of it comes into one commit
    poison(rank, make_batch, 20)
    rank.watermark(20)
    saved = bench.engine.register_checkpoint("run", Checkpoint(step=20, tag="", attempt=0))
    other.observe(make_batch(20))
    last = other.watermark(20)
    kept = bench.engine.register_checkpoint("other", Checkpoint(step=20, tag="", attempt=0))
    bench.pass_time(0)  # the writer has taken all of it
    eventually(lambda: bench.engine.stats.commit_failures)
    bench.store.full = False
    eventually(lambda: other.acked == last)
    assert kept.result(30).run.name == "other"
    with pytest.raises(RefusedError) as refused:
        saved.result(30)
    assert refused.value.code == Code.INTERNAL
    assert (rank.acked, rank.ended.code) == (1, Code.INTERNAL)
    assert other.ended is None
    assert "run 'run'" in caplog.text
    assert bench.store.checkpoints("run") == []

    again = bench.join()
    assert again.stream.acked == 1
    again.sequence = 1
    again.observe(make_batch(20))
    last = again.watermark(20)
    eventually(lambda: again.acked == last)
    eventually(lambda: len(samples(bench)) == len(samples(bench, "other")) == 2)
    assert samples(bench) == samples(bench, "other") == [(10, 8), (20, 8)]
    bench.restart()
    assert samples(bench) == [(10, 8), (20, 8)]


def test_a_change_that_fails_in_the_middle_is_not_acknowledged_and_comes_again(
    bench: Any,
    runs: tuple[Any, Any],
    make_batch: Any,
    eventually: Any,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    rank, other = runs
    add = RunSketch.add

    def add_and_fail(self: RunSketch, *arguments: Any) -> Any:
        monkeypatch.setattr(RunSketch, "add", add)
        add(self, *arguments)
        self._open[20].groups["math"]._samples_S["step"] = 99  # half done, and wrong
        raise MemoryError("no memory for a window")

    monkeypatch.setattr(RunSketch, "add", add_and_fail)
    rank.observe(make_batch(20))
    rank.watermark(20)
    eventually(lambda: rank.ended)
    assert rank.ended.code == Code.UNAVAILABLE
    assert "no memory for a window" in caplog.text
    last = other.watermark(10)
    eventually(lambda: other.acked == last)
    assert rank.acked == 1

    again = bench.join()
    assert again.stream.acked == 1
    again.sequence = 1
    again.observe(make_batch(20))
    last = again.watermark(20)
    eventually(lambda: again.acked == last)
    eventually(lambda: len(samples(bench)) == 2)
    assert samples(bench) == [(10, 8), (20, 8)]


def test_a_run_that_fails_again_and_again_is_left_alone_until_a_restart(
    bench: Any,
    runs: tuple[Any, Any],
    make_batch: Any,
    eventually: Any,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A verdict that cannot be stored comes out the same each time."""
    rank, other = runs
    judge_round = judging.judge_round

    def judge(run: str, *arguments: Any) -> Any:
        judged = judge_round(run, *arguments)
        if run != "run":
            return judged
        return replace(judged, windows=tuple(replace(row, reason=UNSTORABLE) for row in judged.windows))

    monkeypatch.setattr(judging, "judge_round", judge)
    watermark = rank.watermark(10)
    eventually(lambda: "before the server is restarted" in caplog.text)
    assert rank.acked == watermark, "that the step is complete was stored"
    with pytest.raises(RefusedError) as refused:
        bench.join()
    assert refused.value.code == Code.INTERNAL
    assert bench.view().run.closed_step == -1
    other.watermark(10)
    eventually(lambda: samples(bench, "other") == [(10, 8)])
    errors = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert len(errors) == 4, "three faults, and that it was the last"

    monkeypatch.setattr(judging, "judge_round", judge_round)
    bench.restart()
    eventually(lambda: samples(bench) == [(10, 8)])
    assert bench.join().stream.acked == watermark


def test_a_run_that_is_left_alone_shows_no_ranks_and_can_be_deleted(
    bench: Any, runs: tuple[Any, Any], make_batch: Any, eventually: Any
) -> None:
    rank = runs[0]
    for fault in range(3):
        assert bench.view().health.connected_ranks == 1
        poison(rank, make_batch, 20)
        eventually(lambda rank=rank: rank.ended)
        if fault < 2:
            rank = bench.join()
            rank.sequence = 1
    with pytest.raises(RefusedError, match="before the server is restarted"):
        bench.create()
    assert (bench.view().health.connected_ranks, bench.view("other").health.connected_ranks) == (0, 1)
    bench.engine.delete_run("run").result(30)
    assert bench.create().attempt == 0
    assert [row.name for row in bench.store.runs()] == ["other", "run"]


def test_a_run_that_cannot_be_read_just_now_is_tried_again(
    bench: Any,
    runs: tuple[Any, Any],
    make_batch: Any,
    eventually: Any,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """As when a network fails for a moment."""
    monkeypatch.setattr(engine, "RETRY_SECONDS", 0.01)
    rank, other = runs
    tries = 0

    def lost(_: str) -> Any:
        nonlocal tries
        tries += 1
        raise StoreError("the network is away")

    def later() -> bool:
        bench.steady += 0.01
        return True

    with monkeypatch.context() as away:
        away.setattr(bench.store, "run", lost)
        poison(rank, make_batch, 20)
        eventually(lambda: later() and tries > MAX_FAULTS + 2)
        assert rank.ended.code == Code.INTERNAL
        assert bench.view().run.step == 10, "what is stored is still shown"
        for change in (bench.join, bench.create, lambda: bench.engine.delete_run("run").result(30)):
            with pytest.raises(RefusedError, match="cannot be stored, and is dropped"):
                change()
        last = other.watermark(10)
        eventually(lambda: other.acked == last)
    assert [record.getMessage() for record in caplog.records].count(
        "run 'run' cannot be taken up again yet: the network is away"
    ) == 1

    def joined() -> bool:
        try:
            return bool(bench.join())
        except RefusedError:
            return False

    eventually(lambda: later() and joined())
    assert "before the server is restarted" not in caplog.text
    again = bench.join(session="new")
    last = again.watermark(10)
    eventually(lambda: again.acked == last)
    eventually(lambda: samples(bench) == [(10, 8)])


def test_a_deletion_that_the_store_refuses_is_not_said_to_be_done(
    bench: Any, runs: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of a run that another server has written to."""
    commit_writes = bench.store.commit

    def refuse(writes: Sequence[Write]) -> None:
        if any(isinstance(write, DeleteRun) for write in writes):
            raise FencedError("another server's")
        commit_writes(writes)

    with monkeypatch.context() as fenced:
        fenced.setattr(bench.store, "commit", refuse)
        with pytest.raises(RefusedError, match="run 'run' is not deleted"):
            bench.engine.delete_run("run").result(30)
    assert bench.view().run.step == 10
    assert bench.join(session="new").stream.acked == 0
    bench.engine.delete_run("run").result(30)
    assert [row.name for row in bench.store.runs()] == ["other"]


class ListStore:
    """Takes so many commits, but no batch of step 13."""

    def __init__(self, commits: int) -> None:
        self.commits = commits
        self.taken: list[Write] = []

    def commit(self, writes: Sequence[Write]) -> None:
        if any(isinstance(write, PutBatch) and write.row.step == 13 for write in writes):
            raise UnstorableError("13")
        if not self.commits:
            raise StoreError("full")
        self.commits -= 1
        self.taken += writes


WRITES = st.builds(
    lambda run, step: (
        PutBatch(row=BatchRow(run=run, attempt=0, step=step, batch=b"")) if step else DeleteRun(run=run)
    ),
    st.sampled_from("abc"),
    st.sampled_from([0, 1, 2, 3, 13]),
)


def left(writes: Sequence[Write], run: str) -> list[int]:
    """Steps of a run's batches that are there after the writes."""
    steps: list[int] = []
    for write in writes:
        if isinstance(write, DeleteRun) and write.run == run:
            steps.clear()
        elif isinstance(write, PutBatch) and write.row.run == run:
            steps.append(write.row.step)
    return steps


@given(st.lists(WRITES, max_size=12), st.integers(0, 6), st.sets(st.sampled_from("abc"), max_size=1))
def test_every_write_is_stored_once_in_order_or_its_run_is_named(
    writes: list[Write], commits: int, lost: set[str]
) -> None:
    store: Any = ListStore(commits)
    pending = list(writes)
    try:
        unstorable = commit(store, pending, lost)
    except StoreError:
        store.commits = 100
        unstorable = commit(store, pending, lost)
    assert pending == []
    for run in "abc":
        wanted = left(writes, run)
        if run in lost or 13 in wanted:
            assert run in lost or run in unstorable
            assert left(store.taken, run) == []
        else:
            assert left(store.taken, run) == wanted
            assert run not in unstorable
