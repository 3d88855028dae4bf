"""What the engine promises to those who send: durable, once, in order, and never stuck."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from pathwatch.server.config import Limits
from pathwatch.server.engine import judging
from pathwatch.server.engine.refusal import Code, RefusedError
from pathwatch.server.phases.verdict import Checkpoint, Phase
from pathwatch.v1 import run_pb2, signal_pb2


def closed(bench: Any, step: int) -> Any:
    return lambda: bench.view().run.closed_step >= step


def windows(bench: Any) -> list[Any]:
    """Every window's numbers, without the attempt that made it."""
    return [(w.step, w.group, w.phase, dict(w.metrics), w.reason) for w in bench.store.windows("run")]


def test_an_ack_means_committed(bench: Any, make_batch: Any, eventually: Any) -> None:
    bench.create()
    rank = bench.join()
    rank.observe(make_batch(1))
    last = rank.observe(make_batch(1, "code"))
    eventually(lambda: rank.acked == last)
    assert [row.step for row in bench.store.batches("run")] == [1, 1]
    assert rank.last_ack.accepted == 16


def test_nothing_is_acked_while_the_disk_is_full(bench: Any, make_batch: Any, eventually: Any) -> None:
    bench.create()
    rank = bench.join()
    eventually(lambda: rank.events)
    bench.store.full = True
    rank.observe(make_batch(1))
    eventually(lambda: bench.engine.stats.commit_failures)
    last = rank.watermark(1)
    assert rank.acked == 0
    assert bench.view().run.step == -1
    bench.store.full = False
    eventually(lambda: rank.acked == last)
    eventually(closed(bench, 1))
    assert [row.step for row in bench.store.windows("run")] == [1]


def test_a_message_sent_again_is_acked_and_changes_nothing(
    bench: Any, make_batch: Any, eventually: Any
) -> None:
    bench.create()
    rank = bench.join()
    first = rank.observe(make_batch(1))
    eventually(lambda: rank.acked == first)
    rank.observe(make_batch(1), sequence=first)
    last = rank.observe(make_batch(1, "code"))
    eventually(lambda: rank.acked == last)
    assert len(list(bench.store.batches("run"))) == 2
    assert bench.view().health.observations["duplicate"] == 8
    assert rank.last_ack.accepted == 24


def test_a_restart_remembers_what_it_acked(bench: Any, make_batch: Any, eventually: Any) -> None:
    bench.create()
    rank = bench.join()
    rank.observe(make_batch(1))
    last = rank.watermark(0)
    eventually(lambda: rank.acked == last)
    bench.restart()
    again = bench.join()
    eventually(lambda: again.events)
    assert again.acked == last
    again.sequence = last
    again.observe(make_batch(1), sequence=1)
    eventually(lambda: bench.view().health.observations["duplicate"] == 8)
    last = again.watermark(1)
    eventually(closed(bench, 1))
    assert again.acked == last
    assert bench.view().windows["math"].metrics["window_samples"] == 8


@pytest.mark.slow
def test_rounds_do_not_depend_on_restarts(
    bench: Any, make_bench: Any, make_batch: Any, eventually: Any
) -> None:
    """The same messages, once through one engine, once with a restart after every message."""

    def wait_for_ack(rank: Any, sequence: int) -> None:
        eventually(lambda: rank.acked >= sequence)

    def play(bench: Any, *, restarts: bool) -> None:
        bench.create(grace_seconds=600)
        rank = bench.join()
        for step in range(0, 60, 5):
            bench.engine.register_checkpoint("run", Checkpoint(step=step, tag="", attempt=0)).result(30)
            messages = [
                ("geometry", step),
                ("observe", make_batch(step)),
                ("observe", make_batch(step, "code")),
                ("watermark", step),
            ]
            for kind, content in messages:
                sequence = getattr(rank, kind)(content)
                wait_for_ack(rank, sequence)
                if restarts:
                    bench.restart()
                    rank = bench.join()
                    rank.sequence = sequence
            eventually(closed(bench, step))

    other = make_bench()
    play(bench, restarts=False)
    play(other, restarts=True)
    assert len(windows(bench)) == 24
    assert windows(bench) == windows(other)
    assert "path_smoothness" in bench.view().windows["math"].metrics
    mine, others = bench.view().last_signal, other.view().last_signal
    assert mine == others
    given = [bench.store.history("run", after_step=-2).signals for bench in (bench, other)]
    assert [row.signal for row in given[0]] == [row.signal for row in given[1]]


def test_windows_close_when_all_ranks_have_passed(bench: Any, make_batch: Any, eventually: Any) -> None:
    bench.create()
    ranks = [bench.join(rank, 2) for rank in range(2)]
    for rank in ranks:
        rank.observe(make_batch(1, first_id=8 * rank.stream.rank))
    last = ranks[0].watermark(1)
    eventually(lambda: ranks[0].acked == last)
    assert bench.view().run.closed_step == -1
    ranks[1].watermark(1)
    eventually(closed(bench, 1))
    window = bench.view().windows["math"]
    assert window.metrics["window_samples"] == 16
    assert not window.partial


def test_a_missing_rank_makes_the_groups_unknown_and_the_run_go_on(
    bench: Any, make_batch: Any, eventually: Any
) -> None:
    bench.create(grace_seconds=60)
    ranks = [bench.join(rank, 2) for rank in range(2)]
    for step in range(1, 5):
        for rank in ranks:
            rank.observe(make_batch(step, loss=2.0, first_id=8 * rank.stream.rank))
            rank.watermark(step)
    eventually(closed(bench, 4))
    assert bench.view().last_signal.groups[0].phase == Phase.LEARNING
    ranks[0].observe(make_batch(5))
    last = ranks[0].watermark(5)
    eventually(lambda: ranks[0].acked == last)
    bench.pass_time(59)
    assert bench.view().run.closed_step == 4
    bench.pass_time(2)
    eventually(closed(bench, 5))
    signal, window = bench.view().last_signal, bench.view().windows["math"]
    assert window.partial
    assert window.metrics["window_samples"] == 8
    assert window.phase == signal.groups[0].phase == Phase.UNKNOWN
    assert "rank 1" in signal.groups[0].reason
    assert signal.action == signal_pb2.ACTION_CONTINUE
    ranks[1].observe(make_batch(5, first_id=8))
    eventually(lambda: bench.view().health.observations["late"] == 8)
    for rank in ranks:
        rank.observe(make_batch(6, loss=2.0, first_id=8 * rank.stream.rank))
        rank.watermark(6)
    eventually(closed(bench, 6))
    assert bench.view().last_signal.groups[0].phase == Phase.LEARNING


def test_a_partial_round_is_passed_over_after_a_restart_too(
    bench: Any, make_batch: Any, eventually: Any
) -> None:
    bench.create(grace_seconds=60)
    ranks = [bench.join(rank, 2) for rank in range(2)]
    for step in range(1, 4):
        for rank in ranks:
            rank.observe(make_batch(step, loss=2.0, first_id=8 * rank.stream.rank))
            rank.watermark(step)
    ranks[0].observe(make_batch(4))
    last = ranks[0].watermark(4)
    eventually(lambda: ranks[0].acked == last)
    bench.pass_time(61)
    eventually(closed(bench, 4))
    bench.restart()
    assert bench.view().windows["math"].partial
    ranks = [bench.join(rank, 2, session="other") for rank in range(2)]
    for rank in ranks:
        rank.observe(make_batch(5, loss=2.0, first_id=8 * rank.stream.rank))
        rank.watermark(5)
    eventually(closed(bench, 5))
    assert [(w.step, w.judged) for w in bench.store.windows("run")] == [
        (1, True),
        (2, True),
        (3, True),
        (4, False),
        (5, True),
    ]


def test_a_step_that_goes_back_needs_a_new_attempt(bench: Any, make_batch: Any, eventually: Any) -> None:
    bench.create()
    rank = bench.join()
    rank.watermark(10)
    rank.observe(make_batch(10))
    rank.watermark(9)
    last = rank.observe(make_batch(11))
    eventually(lambda: rank.acked == last)
    assert [(r.code, r.field) for r in rank.rejected] == [
        (Code.FAILED_PRECONDITION, "batch.step"),
        (Code.FAILED_PRECONDITION, "watermark.step"),
    ]
    assert "new attempt" in rank.rejected[0].message
    assert [row.step for row in bench.store.batches("run")] == [11]
    assert bench.view().health.observations["rejected"] == 8


def test_groups_have_a_limit_and_the_stream_goes_on(
    make_bench: Any, make_batch: Any, eventually: Any
) -> None:
    bench = make_bench(limits=Limits(groups_per_run=2))
    bench.create()
    rank = bench.join()
    for group in ("a", "b", "c"):
        rank.observe(make_batch(1, group))
    last = rank.observe(make_batch(1, "a", first_id=100))
    eventually(lambda: rank.acked == last)
    assert [refusal.code for refusal in rank.rejected] == [Code.RESOURCE_EXHAUSTED]
    assert rank.rejected[0].field == "batch.group"
    assert list(bench.view().run.groups) == ["a", "b"]
    assert bench.view().health.observations["accepted"] == 24


def test_the_order_in_which_groups_came_is_kept(bench: Any, make_batch: Any, eventually: Any) -> None:
    bench.create()
    rank = bench.join()
    for group in ("b", "c", "a", "b"):
        last = rank.observe(make_batch(1, group))
    eventually(lambda: rank.acked == last)
    for _ in range(2):
        assert bench.view().groups == ("b", "c", "a")
        assert list(bench.view().run.groups) == ["a", "b", "c"]
        bench.restart()


def test_a_rewind_supersedes_and_judges_as_if_it_had_gone_straight(
    bench: Any, make_bench: Any, make_batch: Any, eventually: Any
) -> None:
    straight = make_bench()
    straight.create()
    rank = straight.join()
    for step in (10, 20, 30, 40):
        rank.observe(make_batch(step))
        rank.watermark(step)
    eventually(closed(straight, 40))

    bench.create()
    first = bench.join()
    for step in (10, 20, 30, 40, 50):
        loss = 9.0 if step >= 30 else None  # the mishap after which the job goes back to step 20
        first.observe(make_batch(step, loss=loss))
        first.watermark(step)
    for step in (10, 40):
        bench.engine.register_checkpoint("run", Checkpoint(step=step, tag="", attempt=0)).result(30)
    eventually(closed(bench, 50))
    before = bench.view().last_signal.revision

    second = bench.join(attempt=1)
    assert first.ended is not None
    assert bench.view().windows["math"].step == 50
    assert first.ended.code is Code.FAILED_PRECONDITION
    assert len(windows(bench)) == 5  # nothing is superseded before data comes
    second.observe(make_batch(30))
    eventually(lambda: bench.view().last_signal.step == 20)
    assert bench.view().run.closed_step == 20
    assert bench.view().windows["math"].step == 20
    second.watermark(30)
    eventually(lambda: bench.view().run.closed_step == 30)
    second.observe(make_batch(40))
    second.watermark(40)
    eventually(lambda: bench.view().run.closed_step == 40)
    assert windows(bench) == windows(straight)
    mine, wanted = bench.view().last_signal, straight.view().last_signal
    assert mine.revision > before
    assert (mine.action, mine.reason) == (wanted.action, wanted.reason)
    assert [g.phase for g in mine.groups] == [g.phase for g in wanted.groups]
    assert [point.step for point in bench.store.checkpoints("run")] == [10]
    bench.restart()
    assert windows(bench) == windows(straight)
    assert bench.view().run.attempt == 1


def test_a_rank_that_is_faster_to_connect_does_not_cut_the_rewind_short(
    bench: Any, make_batch: Any, eventually: Any
) -> None:
    bench.create()
    first = bench.join()
    for step in (10, 20, 30):
        first.observe(make_batch(step))
        first.watermark(step)
    eventually(closed(bench, 30))

    fast = bench.join(attempt=1, rank=0, world_size=2)
    fast.observe(make_batch(30, first_id=100))
    slow = bench.join(attempt=1, rank=1, world_size=2)
    slow.observe(make_batch(20, first_id=200))
    for rank in (fast, slow):
        rank.watermark(30)
    eventually(closed(bench, 30))
    assert [row.step for row in bench.store.windows("run")] == [10, 20, 30]
    assert bench.view().health.observations["late"] == 0
    bench.restart()
    assert [row.step for row in bench.store.windows("run")] == [10, 20, 30]
    assert [row.attempt for row in bench.store.windows("run")] == [0, 1, 1]


def test_older_attempts_are_refused(bench: Any, make_batch: Any, eventually: Any) -> None:
    bench.create(attempt=0)
    bench.create(attempt=2)
    with pytest.raises(RefusedError, match="attempt 1 of run 'run' is over; the current one is 2") as refused:
        bench.join(attempt=1)
    assert refused.value.code is Code.FAILED_PRECONDITION
    old = Checkpoint(step=5, tag="", attempt=3)
    with pytest.raises(RefusedError, match="has not started"):
        bench.engine.register_checkpoint("run", old).result(30)


def test_a_second_stream_of_a_rank_takes_over(bench: Any, make_batch: Any, eventually: Any) -> None:
    bench.create()
    first, second = bench.join(), bench.join(session="other")
    eventually(lambda: first.ended is not None)
    first.observe(make_batch(1))
    last = second.observe(make_batch(1, first_id=8))
    eventually(lambda: second.acked == last)
    assert first.acked == 0
    assert bench.view().health.observations["accepted"] == 8


@pytest.mark.parametrize(
    ("rank", "world_size", "field"),
    [(0, 0, "hello.world_size"), (2, 2, "hello.rank"), (0, 3, "hello.world_size")],
)
def test_ranks_that_do_not_fit(bench: Any, rank: int, world_size: int, field: str) -> None:
    bench.create()
    bench.join(0, 2)
    with pytest.raises(RefusedError) as refused:
        bench.join(rank, world_size)
    assert refused.value.field == field


def test_finish_judges_what_is_open_and_takes_no_more(bench: Any, make_batch: Any, eventually: Any) -> None:
    bench.create()
    rank = bench.join()
    rank.observe(make_batch(1))
    rank.watermark(1)
    rank.observe(make_batch(2))
    run = bench.engine.finish_run("run").result(30)
    assert run.state == run_pb2.RUN_STATE_FINISHED
    assert run.closed_step == 2
    assert rank.ended is not None
    assert [row.step for row in bench.store.windows("run")] == [1, 2]
    with pytest.raises(RefusedError, match="finished"):
        bench.join()
    bench.restart()
    assert bench.view().run.state == run_pb2.RUN_STATE_FINISHED
    assert bench.engine.finish_run("run").result(30).closed_step == 2


def test_a_deleted_run_is_gone_and_may_be_made_again(bench: Any, make_batch: Any, eventually: Any) -> None:
    bench.create()
    rank = bench.join()
    rank.observe(make_batch(1))
    rank.watermark(1)
    eventually(closed(bench, 1))
    bench.engine.delete_run("run").result(30)
    assert rank.ended is not None
    assert rank.ended.code is Code.NOT_FOUND
    assert bench.engine.views == {}
    rank.observe(make_batch(2))
    bench.create()
    assert bench.view().run.closed_step == -1
    assert list(bench.store.batches("run")) == []


def test_create_is_idempotent_and_tells_what_differs(make_bench: Any) -> None:
    bench = make_bench(limits=Limits(runs=1))
    bench.create(thresholds=[0.7, 0.5, 0.6, 0.8])
    bench.create()  # the same, with its defaults left open
    with pytest.raises(RefusedError, match="capacity, delta differ") as refused:
        bench.create(capacity=9, delta=0.5)
    assert refused.value.code is Code.ALREADY_EXISTS
    with pytest.raises(RefusedError, match="as many as are kept") as refused:
        bench.create("other")
    assert refused.value.code is Code.RESOURCE_EXHAUSTED
    with pytest.raises(RefusedError, match="from 1 to") as refused:
        bench.create("third", topology=run_pb2.Topology(layers=2))
    assert (refused.value.code, refused.value.field) == (Code.INVALID_ARGUMENT, "config.topology.experts")


def test_advice_spares_samples_that_would_not_be_kept(bench: Any, make_batch: Any, eventually: Any) -> None:
    bench.create(mode=run_pb2.OBSERVATION_MODE_STREAM, window_steps=100, capacity=16)
    rank = bench.join()
    for step in range(20):
        last = rank.observe(make_batch(step, first_id=8 * step))
    eventually(lambda: rank.acked == last)
    advice = [item for event in rank.events for item in event.advice]
    assert advice
    assert {(item.group, item.until_step) for item in advice} == {("math", 99)}
    thresholds = [item.threshold for item in advice]
    assert thresholds == sorted(thresholds, reverse=True)
    assert bench.view().health.observations["beyond"] > 0


def test_late_data_of_an_older_window_is_not_given_the_newer_ones_advice(
    bench: Any, make_batch: Any, eventually: Any
) -> None:
    bench.create(mode=run_pb2.OBSERVATION_MODE_STREAM, window_steps=10, capacity=4)
    rank = bench.join()
    rank.observe(make_batch(15, first_id=0))
    last = rank.observe(make_batch(5, first_id=8))
    eventually(lambda: rank.acked == last)
    assert {item.until_step for event in rank.events for item in event.advice} == {19}


def test_a_signal_goes_stale_without_data(bench: Any, make_batch: Any, eventually: Any) -> None:
    bench.create(grace_seconds=30)
    rank = bench.join()
    rank.observe(make_batch(1))
    rank.watermark(1)
    eventually(closed(bench, 1))
    assert not bench.view().signal(bench.engine.now()).stale
    bench.pass_time(31)
    signal = bench.view().signal(bench.engine.now())
    assert signal.stale
    assert signal.action == signal_pb2.ACTION_CONTINUE
    assert "No data came since 2023-11-14 22:13:20 UTC" in signal.reason
    bench.engine.finish_run("run").result(30)
    assert not bench.view().signal(bench.engine.now()).stale


def test_each_message_says_that_data_came_of_an_older_step_too(
    bench: Any, make_batch: Any, eventually: Any
) -> None:
    bench.create(grace_seconds=30)
    rank = bench.join()
    rank.observe(make_batch(2))
    bench.pass_time(20)
    last = rank.observe(make_batch(1))
    eventually(lambda: rank.acked == last)
    assert (bench.view().updated_at, bench.view().run.step) == (bench.wall, 2)
    came = bench.wall
    bench.pass_time(20)
    bench.restart()
    assert (bench.view().updated_at, bench.view().run.step) == (came, 2)


def test_long_intervals_are_not_silence(bench: Any, make_batch: Any, eventually: Any) -> None:
    """A probe every quarter of an hour is a run's own pace; three of them missing are not."""
    bench.create(grace_seconds=30)
    rank = bench.join()
    for step in range(5):
        rank.observe(make_batch(step))
        rank.watermark(step)
        eventually(closed(bench, step))
        bench.pass_time(900)
    assert not bench.view().signal(bench.engine.now()).stale
    bench.pass_time(900)
    assert not bench.view().signal(bench.engine.now()).stale
    bench.pass_time(901)
    assert bench.view().signal(bench.engine.now()).stale


def test_a_fault_of_the_service_in_judging_loses_no_round(
    bench: Any, make_batch: Any, eventually: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, faults = judging.judge_round, iter([MemoryError("once")])

    def faulty(*arguments: Any) -> Any:
        if fault := next(faults, None):
            raise fault
        return real(*arguments)

    monkeypatch.setattr(judging, "judge_round", faulty)
    bench.create()
    rank = bench.join()
    for step in (1, 2):
        rank.observe(make_batch(step))
        rank.watermark(step)
    eventually(closed(bench, 2))
    assert [window.step for window in bench.store.windows("run")] == [1, 2]


def test_a_fault_of_the_service_that_stays_makes_the_run_unknown_until_a_restart(
    bench: Any, make_batch: Any, eventually: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def faulty(*arguments: Any) -> Any:
        raise MemoryError("for ever")

    with monkeypatch.context() as faults:
        faults.setattr(judging, "judge_round", faulty)
        bench.create()
        rank = bench.join()
        rank.observe(make_batch(1))
        last = rank.watermark(1)
        eventually(lambda: "for ever" in bench.view().last_signal.reason)
        assert bench.view().last_signal.action == signal_pb2.ACTION_CONTINUE
        eventually(lambda: rank.acked == last)
    bench.restart()
    eventually(closed(bench, 1))
    assert "for ever" not in bench.view().last_signal.reason


def test_of_a_rank_that_is_started_again_and_again_the_newest_sessions_stay(
    make_bench: Any, make_batch: Any, eventually: Any
) -> None:
    bench = make_bench(limits=Limits(sessions_per_rank=3))
    bench.create()

    def live(session: str, first_id: int, sent: int = 0) -> Any:
        rank = bench.join(session=session)
        rank.sequence = sent
        last = rank.observe(make_batch(1, first_id=first_id))
        eventually(lambda: rank.acked == last)
        return rank

    for life in range(6):
        live(f"life-{life}", 10 * life)
    assert [row.session for row in bench.store.sessions("run", 0)] == ["life-3", "life-4", "life-5"]
    live("life-3", 100, sent=1)
    bench.restart()
    again = live("life-6", 200)
    assert [row.session for row in bench.store.sessions("run", 0)] == ["life-5", "life-3", "life-6"]
    # A forgotten life that sends again what it had sent changes nothing.
    forgotten = bench.join(session="life-0")
    forgotten.observe(make_batch(1, first_id=0))
    last = forgotten.watermark(1)
    eventually(closed(bench, 1))
    assert (forgotten.acked, again.ended is not None) == (last, True)
    assert bench.view().windows["math"].metrics["window_samples"] == 8 * 8


def test_a_job_that_catches_up_is_not_told_that_too_many_windows_are_open(
    make_bench: Any, make_batch: Any, eventually: Any
) -> None:
    """Windows and the watermarks that end them, all taken by the writer at once."""
    bench = make_bench(limits=Limits(open_windows_per_run=2))
    bench.create()
    rank = bench.join()
    reached, go_on = threading.Event(), threading.Event()

    def hold(run: str) -> None:
        reached.set()
        assert go_on.wait(30)

    bench.engine.listen(hold)
    rank.watermark(0)
    assert reached.wait(30)  # the writer waits here, and what follows comes in one batch
    for step in range(1, 21):
        rank.observe(make_batch(step))
        rank.watermark(step)
    go_on.set()
    eventually(closed(bench, 20))
    assert rank.ended is None
    assert len(list(bench.store.windows("run"))) == 20
