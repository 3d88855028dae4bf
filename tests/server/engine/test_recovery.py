"""Rounds that had closed without a rank come back from a crash as they had closed."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from pathwatch.server.engine import judging


@pytest.fixture
def crashed(bench: Any, make_bench: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], Any]]:
    """An engine on what was on disk before `bench`, which closes rounds, had judged any of them."""
    go_on, judge_round = threading.Event(), judging.judge_round

    def wait(*arguments: Any) -> Any:
        assert go_on.wait(60)
        return judge_round(*arguments)

    monkeypatch.setattr(judging, "judge_round", wait)

    def crash() -> Any:
        made = make_bench()
        made.stop()
        shutil.rmtree(made.folder)
        shutil.copytree(bench.folder, made.folder)
        go_on.set()
        made.start()
        return made

    yield crash
    go_on.set()


def close_without_rank_1(bench: Any, make_batch: Any, eventually: Any) -> list[Any]:
    bench.create()
    ranks = [bench.join(rank, 2, session=f"life {rank}") for rank in range(2)]
    for step in (10, 20):
        for rank in ranks if step == 10 else ranks[:1]:
            rank.observe(make_batch(step, first_id=100 * rank.stream.rank))
            last = rank.watermark(step)
    eventually(lambda: ranks[0].acked == last)
    bench.pass_time(61)
    # The first round is held in the pool; that the second has closed behind it only the store knows.
    eventually(lambda: bench.store.partial_rounds("run"))
    return ranks


def judged(bench: Any) -> list[tuple[int, bool, bool, float]]:
    return [
        (row.step, row.partial, row.judged, row.metrics["window_samples"])
        for row in bench.store.windows("run")
    ]


AS_THEY_CLOSED = [(10, False, True, 16), (20, True, False, 8)]


def test_of_an_older_attempt(bench: Any, crashed: Any, make_batch: Any, eventually: Any) -> None:
    close_without_rank_1(bench, make_batch, eventually)
    bench.join(attempt=1)
    after = crashed()
    eventually(lambda: after.view().run.closed_step == 20)
    assert judged(after) == AS_THEY_CLOSED
    assert after.store.partial_rounds("run") == []
    eventually(lambda: bench.view().run.closed_step == 20)
    assert judged(bench) == AS_THEY_CLOSED


def test_of_this_attempt_though_the_rank_has_come_since(
    bench: Any, crashed: Any, make_batch: Any, eventually: Any
) -> None:
    _, slow = close_without_rank_1(bench, make_batch, eventually)
    slow.observe(make_batch(20, first_id=100))
    last = slow.watermark(20)
    eventually(lambda: slow.acked == last)
    after = crashed()
    eventually(lambda: after.view().run.closed_step == 20)
    assert judged(after) == AS_THEY_CLOSED
    ranks = [after.join(rank, 2, session="after") for rank in range(2)]
    for rank in ranks:
        rank.observe(make_batch(30, first_id=100 * rank.stream.rank))
        rank.watermark(30)
    eventually(lambda: after.view().run.closed_step == 30)
    assert judged(after)[2:] == [(30, False, True, 16)]
