"""The writer's queue: in order within a run, fair between runs, nothing lost."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pathwatch.server.engine import commands
from pathwatch.server.engine.commands import BATCH_COST, COMMAND_COST, CommandQueue

MEBIBYTE = 1 << 20


def queue_of(items: list[tuple[str, int]]) -> tuple[CommandQueue, list[tuple[str, int]]]:
    """A queue with commands that note what they are when called: (lane, number)."""
    queue, done = CommandQueue(), []

    def noting(item: tuple[str, int]) -> Callable[[], None]:
        return lambda: done.append(item)

    for number, (lane, size) in enumerate(items):
        queue.put(lane, noting((lane, number)), size)
    return queue, done


def run_all(queue: CommandQueue) -> None:
    queue.close()
    while not queue.finished:
        for command in queue.take(0):
            command()


@pytest.mark.slow
@given(st.lists(st.tuples(st.sampled_from("abcd"), st.integers(0, 4 * MEBIBYTE)), max_size=60))
def test_all_are_done_in_order_within_a_lane(items: list[tuple[str, int]]) -> None:
    queue, done = queue_of(items)
    run_all(queue)
    for lane in "abcd":
        assert [number for name, number in done if name == lane] == [
            number for number, (name, _) in enumerate(items) if name == lane
        ]


@pytest.mark.slow
@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans(), st.booleans()), max_size=60))
def test_a_run_s_are_done_in_order_however_often_it_comes_into_hand_and_goes(
    items: list[tuple[str, bool, bool]],
) -> None:
    queue, done = queue_of([])
    for number, (run, shares, takes) in enumerate(items):
        queue.put(run, lambda item=(run, number): done.append(item), MEBIBYTE, shares=shares)
        for command in queue.take(0) if takes else ():
            command()
    run_all(queue)
    for run in "abc":
        assert [number for name, number in done if name == run] == [
            number for number, (name, *_) in enumerate(items) if name == run
        ]


def test_a_run_that_comes_into_hand_waits_no_longer_among_those_that_do_not() -> None:
    queue, done = queue_of([])
    for number in range(1000):
        queue.put(f"nobody-{number}", lambda: done.append(("nobody", 0)), shares=True)
    queue.put("run", lambda: done.append(("run", 1)), shares=True)
    queue.put("run", lambda: done.append(("run", 2)))
    for command in queue.take(0):
        command()
    assert [item for item in done[:4] if item[0] == "run"] == [("run", 1), ("run", 2)]
    run_all(queue)
    assert len(done) == 1002


def test_a_newcomer_is_served_before_what_a_flood_has_queued() -> None:
    queue, done = queue_of([("flood", MEBIBYTE)] * 500)
    for command in queue.take(0):
        command()
    served = len(done)
    queue.put("paced", lambda: done.append(("paced", 0)), 100)
    for command in queue.take(0):
        command()
    assert done.index(("paced", 0)) <= served + 1


@pytest.mark.slow
@settings(max_examples=20)
@given(st.lists(st.integers(0, MEBIBYTE), min_size=50, max_size=80), st.integers(4, 40))
def test_runs_share_by_bytes_whatever_the_size_of_their_messages(sizes: list[int], small: int) -> None:
    """While both have something waiting, what each gets differs by no more than one message and a batch."""
    flood = [("flood", size) for size in sizes]
    steady = [("steady", small * 4096)] * 3000
    queue, done = queue_of(flood + steady)
    costs: Counter[str] = Counter()
    items = flood + steady
    while costs["flood"] < sum(sizes) // 2:
        for command in queue.take(0):
            command()
            lane, number = done[-1]
            costs[lane] += items[number][1] + COMMAND_COST
        assert abs(costs["flood"] - costs["steady"]) <= 2 * (MEBIBYTE + COMMAND_COST)


@pytest.mark.slow
def test_a_batch_ends_soon_so_that_nobody_waits_long() -> None:
    queue, _ = queue_of([("a", 0)] * 10_000)
    assert len(queue.take(0)) == BATCH_COST // COMMAND_COST
    queue, _ = queue_of([("a", 64 * MEBIBYTE)] * 10)
    assert len(queue.take(0)) == 1


def test_a_lane_that_was_idle_does_not_make_up_for_it() -> None:
    queue, done = queue_of([("busy", MEBIBYTE)] * 100)
    for _ in range(20):
        for command in queue.take(0):
            command()
    for number in range(100):
        queue.put("late", lambda number=number: done.append(("late", number)), MEBIBYTE)
    done.clear()
    for _ in range(10):
        for command in queue.take(0):
            command()
    shares = Counter(lane for lane, _ in done)
    assert abs(shares["busy"] - shares["late"]) <= 2


def test_urgent_ones_come_first_in_their_order() -> None:
    queue, done = queue_of([("a", 0)])
    queue.put_urgent(lambda: done.append(("urgent", 1)))
    queue.put_urgent(lambda: done.append(("urgent", 2)))
    run_all(queue)
    assert done == [("urgent", 1), ("urgent", 2), ("a", 0)]


def test_lanes_that_went_leave_nothing_behind() -> None:
    queue, _ = queue_of([(f"run-{number}", 0) for number in range(1000)])
    run_all(queue)
    assert queue._tags == {}


def test_after_several_the_next_are_gathered_and_an_urgent_one_is_not_kept_waiting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(commands, "GATHER_SECONDS", 300)
    queue, _ = queue_of([("a", 0)] * 2)
    assert len(queue.take(0)) == 2
    queue.put("a", lambda: None)
    taken: list[int] = []
    taker = threading.Thread(target=lambda: taken.append(len(queue.take(None))), daemon=True)
    taker.start()
    queue.put("b", lambda: None)
    queue.put_urgent(lambda: None)
    taker.join(60)
    assert taken == [3]


def test_after_several_a_batch_that_is_complete_goes_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands, "GATHER_SECONDS", 300)
    queue, _ = queue_of([("a", BATCH_COST // 2)] * 4)
    assert [len(queue.take(None)) for _ in range(2)] == [2, 2]


def test_a_batch_that_becomes_complete_while_it_is_gathered_goes_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(commands, "GATHER_SECONDS", 300)
    queue, _ = queue_of([("a", 0)] * 2)
    assert len(queue.take(0)) == 2
    taken: list[int] = []
    taker = threading.Thread(target=lambda: taken.append(len(queue.take(None))), daemon=True)
    taker.start()
    pieces = BATCH_COST // (COMMAND_COST + MEBIBYTE // 8) + 1
    queue.put("a", lambda: None, MEBIBYTE // 8)
    deadline = time.monotonic() + 60
    while not queue._gathering:  # a later piece then finds it waiting
        assert time.monotonic() < deadline
        time.sleep(0.001)
    for _ in range(pieces - 1):
        queue.put("a", lambda: None, MEBIBYTE // 8)
    taker.join(60)
    assert taken == [pieces]


def test_after_a_single_one_nothing_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands, "GATHER_SECONDS", 300)
    queue, _ = queue_of([("a", 0)])
    for _ in range(3):
        assert len(queue.take(None)) == 1
        queue.put("a", lambda: None)


def test_a_waiting_taker_wakes() -> None:
    queue = CommandQueue()
    taken: list[int] = []
    taker = threading.Thread(target=lambda: taken.append(len(queue.take(None))))
    taker.start()
    queue.put("a", lambda: None)
    taker.join(30)
    assert taken == [1]
    assert queue.take(0.01) == []
