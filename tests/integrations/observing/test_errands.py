"""What runs beside training."""

from __future__ import annotations

import threading

import pytest

from pathwatch.integrations.observing.errands import Errands


def test_errands_run_in_order_beside_the_caller() -> None:
    errands, done = Errands(), []
    for name in "abc":
        errands.run(name, lambda name=name: done.append((name, threading.current_thread())))
    errands.close(60)
    assert [name for name, _ in done] == ["a", "b", "c"]
    assert threading.current_thread() not in {thread for _, thread in done}


def test_behind_a_slow_errand_only_the_newest_of_a_name_waits() -> None:
    errands, done, slow = Errands(), [], threading.Event()
    started = threading.Event()
    errands.run("slow", lambda: (started.set(), slow.wait(60)))
    assert started.wait(60)
    for number in range(1000):
        errands.run("fast", lambda number=number: done.append(number))
    slow.set()
    errands.close(60)
    assert done == [999]


def test_one_that_fails_is_told_once_and_stops_no_other(caplog: pytest.LogCaptureFixture) -> None:
    errands, done = Errands(), []
    for _ in range(3):
        finished = threading.Event()
        errands.run("dividing", lambda: 1 / 0)
        errands.run("other", lambda finished=finished: (done.append(1), finished.set()))
        assert finished.wait(60)
    errands.close(60)
    assert len(done) == 3
    assert [record.message.count("dividing") for record in caplog.records] == [1]


def test_closing_does_not_wait_longer_than_told(caplog: pytest.LogCaptureFixture) -> None:
    errands, stuck = Errands(), threading.Event()
    errands.run("hanging", lambda: stuck.wait(60))
    errands.close(0.05)
    assert "closed while still" in caplog.text
    stuck.set()
