"""A store that cannot be read for a while: what a verdict needs of it is read when it can be again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import pytest

from pathwatch.server.engine.judge import Judge
from pathwatch.server.phases.verdict import Checkpoint
from pathwatch.server.store.interface import StoreError
from pathwatch.server.store.rows import WindowRow

TRIES = 5
"""More than the failures at which a run is given up."""


@pytest.fixture
def as_time_passes(bench: Any, eventually: Any) -> Callable[[Callable[[], bool]], None]:
    """Wait until something holds, while the clock goes on: when a failure is heard of depends on threads."""

    def wait(is_so: Callable[[], bool]) -> None:
        def later() -> bool:
            bench.pass_time(0.25)
            return is_so()

        eventually(later)

    return wait


@pytest.fixture
def a_round_is_sent(bench: Any, make_batch: Any, eventually: Any) -> Callable[[], None]:
    """Of step 10; taken when it returns, and judged by and by."""

    def send() -> None:
        bench.create()
        rank = bench.join()
        rank.observe(make_batch(10))
        last = rank.watermark(10)
        eventually(lambda: rank.acked == last)

    return send


@pytest.fixture
def away(bench: Any, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """While it is, windows cannot be read; when each try was, on the steady clock."""
    tried: list[float] = []

    def windows(run: str) -> Iterator[WindowRow]:
        tried.append(bench.steady)
        raise StoreError("cannot read: connection refused")

    monkeypatch.setattr(bench.store, "windows", windows)
    return tried


def test_a_round_waits_for_what_its_verdict_needs(
    bench: Any,
    a_round_is_sent: Callable[[], None],
    away: list[float],
    as_time_passes: Callable[[Callable[[], bool]], None],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    a_round_is_sent()
    as_time_passes(lambda: len(away) > TRIES)
    assert all(later - former >= 1 for former, later in pairwise(away))
    monkeypatch.undo()
    as_time_passes(lambda: bench.view().run.closed_step == 10)
    assert caplog.text.count("cannot read: connection refused") == 1


def test_so_does_a_ranking_of_a_finished_run(
    bench: Any,
    a_round_is_sent: Callable[[], None],
    as_time_passes: Callable[[Callable[[], bool]], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    a_round_is_sent()
    bench.engine.register_checkpoint("run", Checkpoint(step=10, tag="", attempt=0)).result(30)
    bench.engine.finish_run("run").result(30)
    bench.restart()

    def windows(run: str) -> Iterator[WindowRow]:
        monkeypatch.undo()
        raise StoreError("cannot read: connection refused")

    monkeypatch.setattr(bench.store, "windows", windows)
    ranked = bench.engine.rank_checkpoints("run", None, 0)
    as_time_passes(ranked.done)
    assert [place.checkpoint.step for place in ranked.result(30)] == [10]


def test_rankings_that_nobody_waits_for_any_more_are_not_made_up_for(
    bench: Any,
    a_round_is_sent: Callable[[], None],
    as_time_passes: Callable[[Callable[[], bool]], None],
    away: list[float],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Who asks again and again, as long as he waits each time, would keep the others waiting in the end."""
    a_round_is_sent()
    given_up = [bench.engine.rank_checkpoints("run", None, 0) for _ in range(TRIES)]
    as_time_passes(lambda: len(away) > 1)
    for ranked in given_up:
        assert ranked.cancel()
    tries = len(away)
    as_time_passes(lambda: len(away) > tries + 1)
    monkeypatch.undo()
    rankings: list[str | None] = []
    rank = Judge.rank

    def noting(self: Judge, checkpoints: Any, group: str | None) -> Any:
        rankings.append(group)
        return rank(self, checkpoints, group)

    monkeypatch.setattr(Judge, "rank", noting)
    ranked = bench.engine.rank_checkpoints("run", None, 0)
    as_time_passes(ranked.done)
    assert ranked.result() == []
    assert len(rankings) == 1
