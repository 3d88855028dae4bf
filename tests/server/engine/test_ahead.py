"""What is computed of a window before it closes changes nothing but how long its verdict takes."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from pathwatch.server.config import Limits
from pathwatch.server.engine.judging import JudgingQueue
from pathwatch.server.metrics import summary


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, str, int]]:
    """Step, group and samples of every window that metrics are computed of, as it happens."""
    calls: list[tuple[int, str, int]] = []
    group_part = summary.group_part

    def counting(window: Any, geometry: Any, settings: Any) -> Any:
        calls.append((window.step, window.group, len(window.sample_ids_N)))
        return group_part(window, geometry, settings)

    monkeypatch.setattr(summary, "group_part", counting)
    return calls


def begin(bench: Any, make_batch: Any, eventually: Any) -> Any:
    """A first round tells how many samples the groups hold."""
    bench.create()
    rank = bench.join()
    for group in ("code", "math"):
        rank.observe(make_batch(1, group, n=20))
    rank.watermark(1)
    eventually(lambda: bench.view().run.closed_step == 1)
    return rank


def rows(bench: Any) -> list[Any]:
    """Everything stored of the rounds."""
    return [(w.step, w.group, dict(w.metrics), w.evidence, w.losses) for w in bench.store.windows("run")]


def close(bench: Any, rank: Any, step: int, eventually: Any) -> None:
    rank.watermark(step)
    eventually(lambda: bench.view().run.closed_step == step)


def test_a_group_that_is_all_there_is_computed_before_its_window_closes(
    bench: Any, make_batch: Any, eventually: Any, computed: list[Any]
) -> None:
    rank = begin(bench, make_batch, eventually)
    rank.observe(make_batch(2, "code", n=20))
    eventually(lambda: (2, "code", 20) in computed)
    rank.observe(make_batch(2, "math", n=19))
    close(bench, rank, 2, eventually)
    assert sorted(call for call in computed if call[0] == 2) == [(2, "code", 20), (2, "math", 19)]


@pytest.mark.parametrize("more", [1, 5])
def test_what_comes_after_that_counts(
    bench: Any, make_bench: Any, make_batch: Any, eventually: Any, computed: list[Any], more: int
) -> None:
    rank = begin(bench, make_batch, eventually)
    rank.observe(make_batch(2, "math", n=20))
    eventually(lambda: (2, "math", 20) in computed)
    rank.observe(make_batch(2, "math", first_id=100, n=more))
    close(bench, rank, 2, eventually)
    at_once = make_bench()
    other = begin(at_once, make_batch, eventually)
    other.observe(make_batch(2, "math", first_id=100, n=more))
    other.observe(make_batch(2, "math", n=20))
    close(at_once, other, 2, eventually)
    assert rows(bench) == rows(at_once)
    assert rows(bench)[-1][2]["window_samples"] == 20 + more


def test_a_geometry_that_comes_after_that_counts(
    bench: Any, make_bench: Any, make_batch: Any, eventually: Any, computed: list[Any]
) -> None:
    rank = begin(bench, make_batch, eventually)
    rank.observe(make_batch(2, "math", n=20))
    eventually(lambda: (2, "math", 20) in computed)
    rank.geometry(2)
    close(bench, rank, 2, eventually)
    at_once = make_bench()
    other = begin(at_once, make_batch, eventually)
    other.geometry(2)
    other.observe(make_batch(2, "math", n=20))
    close(at_once, other, 2, eventually)
    assert rows(bench) == rows(at_once)
    assert "path_consistency" in rows(bench)[-1][2]


def test_what_older_attempts_had_come_to_is_forgotten(
    bench: Any, make_bench: Any, make_batch: Any, eventually: Any, computed: list[Any]
) -> None:
    rank = begin(bench, make_batch, eventually)
    rank.observe(make_batch(2, "math", n=20))
    eventually(lambda: (2, "math", 20) in computed)
    again = bench.join(attempt=1)
    again.observe(make_batch(2, "math", first_id=50, n=20))
    close(bench, again, 2, eventually)
    at_once = make_bench()
    other = begin(at_once, make_batch, eventually)
    other = at_once.join(attempt=1)
    other.observe(make_batch(2, "math", first_id=50, n=20))
    close(at_once, other, 2, eventually)
    assert rows(bench) == rows(at_once)


def test_a_stream_is_left_alone_until_the_last_step_of_its_window(
    bench: Any, make_batch: Any, eventually: Any, computed: list[Any]
) -> None:
    from pathwatch.v1 import run_pb2

    bench.create(mode=run_pb2.OBSERVATION_MODE_STREAM, window_steps=4)
    rank = bench.join()
    rank.observe(make_batch(1, n=20))
    close(bench, rank, 3, eventually)
    rank.observe(make_batch(4, n=20))
    last = rank.observe(make_batch(6, n=20, first_id=20))
    eventually(lambda: rank.acked == last)
    assert [call for call in computed if call[0] == 7] == []
    rank.observe(make_batch(7, n=20, first_id=40))
    eventually(lambda: (7, "math", 60) in computed)


def test_a_rounds_groups_are_shared_by_the_threads_of_the_pool(
    bench: Any, make_batch: Any, eventually: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    rank = begin(bench, make_batch, eventually)
    eventually(bench.at_rest)  # one of the threads may still be warming up
    both, group_part = threading.Barrier(2), summary.group_part

    def meeting(window: Any, geometry: Any, settings: Any) -> Any:
        both.wait(30)
        return group_part(window, geometry, settings)

    monkeypatch.setattr(summary, "group_part", meeting)
    for group in ("code", "math"):
        rank.observe(make_batch(2, group, n=19))  # fewer than before: neither is done ahead
    close(bench, rank, 2, eventually)
    assert [row[:2] for row in rows(bench)[2:]] == [(2, "code"), (2, "math")]


def test_what_fails_ahead_is_tried_again_when_its_time_comes(
    bench: Any,
    make_batch: Any,
    eventually: Any,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    rank = begin(bench, make_batch, eventually)
    group_part, faults = summary.group_part, iter([MemoryError("once")])
    failed = threading.Event()

    def faulty(window: Any, geometry: Any, settings: Any) -> Any:
        for fault in faults:
            failed.set()
            raise fault
        return group_part(window, geometry, settings)

    monkeypatch.setattr(summary, "group_part", faulty)
    rank.observe(make_batch(2, "math", n=20))
    assert failed.wait(30)
    eventually(bench.at_rest)  # a round that closes while it fails waits for it, and fails with it
    close(bench, rank, 2, eventually)
    assert [row[:2] for row in rows(bench)] == [(1, "code"), (1, "math"), (2, "math")]
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


@pytest.fixture
def compared(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Groups of the round, for every pair of groups that is compared, as it happens."""
    calls: list[int] = []
    cross_distance = summary.cross_distance

    def counting(first: Any, other: Any, groups: int, settings: Any) -> float:
        calls.append(groups)
        return cross_distance(first, other, groups, settings)

    monkeypatch.setattr(summary, "cross_distance", counting)
    return calls


def begin_with_three(bench: Any, make_batch: Any, eventually: Any) -> Any:
    bench.create()
    rank = bench.join()
    for group in ("code", "math", "web"):
        rank.observe(make_batch(1, group, n=20))
    close(bench, rank, 1, eventually)
    return rank


def test_groups_that_are_all_there_are_compared_before_their_window_closes(
    bench: Any, make_bench: Any, make_batch: Any, eventually: Any, compared: list[int]
) -> None:
    rank = begin_with_three(bench, make_batch, eventually)
    del compared[:]
    rank.observe(make_batch(2, "code", n=20))
    rank.observe(make_batch(2, "math", first_id=30, n=20))
    eventually(lambda: compared == [3])
    rank.observe(make_batch(2, "web", first_id=60, n=19))
    close(bench, rank, 2, eventually)
    assert compared == [3, 3, 3]
    at_once = make_bench()
    other = begin_with_three(at_once, make_batch, eventually)
    for group, first_id, n in (("web", 60, 19), ("math", 30, 20), ("code", 0, 20)):
        other.observe(make_batch(2, group, first_id=first_id, n=n))
    close(at_once, other, 2, eventually)
    assert rows(bench) == rows(at_once)
    assert all("path_distance_cross" in row[2] for row in rows(bench))


def test_groups_of_which_more_comes_after_that_are_compared_anew(
    bench: Any, make_bench: Any, make_batch: Any, eventually: Any, compared: list[int]
) -> None:
    rank = begin_with_three(bench, make_batch, eventually)
    del compared[:]
    for group in ("code", "math"):
        rank.observe(make_batch(2, group, n=20))
    eventually(lambda: compared == [3])
    rank.observe(make_batch(2, "math", first_id=100, n=3))
    rank.observe(make_batch(2, "web", n=19))
    close(bench, rank, 2, eventually)
    at_once = make_bench()
    other = begin_with_three(at_once, make_batch, eventually)
    other.observe(make_batch(2, "web", n=19))
    other.observe(make_batch(2, "math", first_id=100, n=3))
    for group in ("math", "code"):
        other.observe(make_batch(2, group, n=20))
    close(at_once, other, 2, eventually)
    assert rows(bench) == rows(at_once)


def test_groups_are_compared_anew_where_the_round_has_fewer_than_were_expected(
    bench: Any, make_batch: Any, eventually: Any, compared: list[int]
) -> None:
    rank = begin_with_three(bench, make_batch, eventually)
    del compared[:]
    for group in ("code", "math"):
        rank.observe(make_batch(2, group, n=20))
    eventually(lambda: compared == [3])
    close(bench, rank, 2, eventually)
    assert compared == [3, 2]


def test_a_fault_ahead_is_told_and_ends_nothing(
    bench: Any,
    make_batch: Any,
    eventually: Any,
    computed: list[Any],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    rank = begin(bench, make_batch, eventually)
    work_ahead, faults = JudgingQueue.work_ahead, iter([MemoryError("once")])

    def faulty(queue: JudgingQueue, *args: Any) -> Any:
        for fault in faults:
            raise fault
        return work_ahead(queue, *args)

    monkeypatch.setattr(JudgingQueue, "work_ahead", faulty)
    rank.observe(make_batch(2, "math", n=20))
    eventually(lambda: any("ahead" in record.getMessage() for record in caplog.records))
    rank.observe(make_batch(2, "code", n=20))
    eventually(lambda: (2, "math", 20) in computed)


def test_a_copy_takes_no_room_that_observations_need(
    make_bench: Any, make_batch: Any, eventually: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = make_bench(limits=Limits(window_bytes_per_run=20_000))
    rank = begin(bench, make_batch, eventually)
    work_ahead, held = JudgingQueue.work_ahead, []

    def noting(queue: JudgingQueue, sketch: Any, *args: Any) -> Any:
        held.append(sketch.nbytes)
        return work_ahead(queue, sketch, *args)

    monkeypatch.setattr(JudgingQueue, "work_ahead", noting)
    rank.observe(make_batch(2, "code", n=5))
    last = rank.observe(make_batch(2, "math", n=20))
    eventually(lambda: rank.acked == last)
    bench.pass_time(0)  # the writer has been through what follows an answer
    assert all(2 * nbytes <= 20_000 for nbytes in held)
    close(bench, rank, 2, eventually)
    assert rows(bench)[-1][2]["window_samples"] == 20


def test_that_a_rank_is_missing_counts_where_all_was_computed_before(
    bench: Any, make_batch: Any, eventually: Any, computed: list[Any]
) -> None:
    bench.create(grace_seconds=60)
    ranks = [bench.join(rank, 2) for rank in range(2)]
    ranks[0].observe(make_batch(1, n=20))
    for rank in ranks:
        rank.watermark(1)
    eventually(lambda: bench.view().run.closed_step == 1)
    assert not bench.view().windows["math"].partial
    ranks[0].observe(make_batch(2, n=20))
    eventually(lambda: (2, "math", 20) in computed)
    last = ranks[0].watermark(2)
    eventually(lambda: ranks[0].acked == last)
    bench.pass_time(61)
    eventually(lambda: bench.view().run.closed_step == 2)
    window = bench.view().windows["math"]
    assert window.partial
    assert not window.judged
    assert "rank 1" in window.reason
