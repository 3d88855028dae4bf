"""A store that cannot be read for a while: what a verdict needs of it is read when it can be again."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from pathwatch.server.phases.verdict import Checkpoint
from pathwatch.server.store.interface import StoreError
from pathwatch.server.store.rows import WindowRow

TRIES = 5
"""More than the failures at which a run is given up."""


@pytest.fixture
def away(bench: Any, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """While it is, windows cannot be read; every try adds the name of its run."""
    tried: list[str] = []

    def windows(run: str) -> Iterator[WindowRow]:
        tried.append(run)
        raise StoreError("cannot read: connection refused")

    monkeypatch.setattr(bench.store, "windows", windows)
    return tried


def test_a_round_waits_for_what_its_verdict_needs(
    bench: Any,
    make_batch: Any,
    eventually: Any,
    away: list[str],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    bench.create()
    rank = bench.join()
    rank.observe(make_batch(10))
    last = rank.watermark(10)
    eventually(lambda: rank.acked == last)
    for tries in range(1, TRIES + 1):
        eventually(lambda tries=tries: len(away) >= tries)
        bench.pass_time(0)
        assert len(away) == tries  # not again before a second has passed
        bench.pass_time(1)
    monkeypatch.undo()
    bench.pass_time(1)
    eventually(lambda: bench.view().run.closed_step == 10)
    assert caplog.text.count("cannot read: connection refused") == 1


def test_so_does_a_ranking_of_a_finished_run(
    bench: Any, make_batch: Any, eventually: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.create()
    rank = bench.join()
    rank.observe(make_batch(10))
    last = rank.watermark(10)
    eventually(lambda: rank.acked == last)
    bench.engine.register_checkpoint("run", Checkpoint(step=10, tag="", attempt=0)).result(30)
    bench.engine.finish_run("run").result(30)
    bench.restart()

    def windows(run: str) -> Iterator[WindowRow]:
        monkeypatch.undo()
        raise StoreError("cannot read: connection refused")

    monkeypatch.setattr(bench.store, "windows", windows)
    ranked = bench.engine.rank_checkpoints("run", None, 0)
    eventually(lambda: "windows" not in vars(bench.store))
    bench.pass_time(1)
    assert [place.checkpoint.step for place in ranked.result(30)] == [10]
