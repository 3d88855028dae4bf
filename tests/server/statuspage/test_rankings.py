"""Rankings that take their time, and many who ask for them."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from typing import Any

import pytest

from pathwatch.server.engine.refusal import Code, RefusedError
from pathwatch.server.phases.verdict import Checkpoint, RankedCheckpoint
from pathwatch.server.statuspage import rankings
from pathwatch.server.statuspage.failures import ApiError
from pathwatch.server.statuspage.rankings import KEPT, Rankings

BEST = [RankedCheckpoint(checkpoint=Checkpoint(step=5, tag="five", attempt=0), score=0.5, reason="so it is")]


class HeldEngine:
    """Ranks when it is told."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str | None, int]] = []
        self.futures: list[Future[Any]] = []

    def rank_checkpoints(self, name: str, group: str | None, limit: int) -> Future[Any]:
        self.asked.append((name, group, limit))
        self.futures.append(Future())
        return self.futures[-1]


@pytest.fixture
def engine() -> HeldEngine:
    return HeldEngine()


@pytest.fixture
def kept(engine: HeldEngine, monkeypatch: pytest.MonkeyPatch) -> Rankings:
    monkeypatch.setattr(rankings, "WAIT_SECONDS", 0.05)
    return Rankings(engine)  # type: ignore[arg-type]


def test_a_slow_ranking_is_there_for_whoever_asks_again(engine: HeldEngine, kept: Rankings) -> None:
    for _ in range(2):
        with pytest.raises(ApiError) as caught:
            kept.ranked("run", "a", "")
        assert caught.value.status.startswith("503")
        assert dict(caught.value.headers)["Retry-After"] == "2"
    engine.futures[0].set_result(BEST)
    assert kept.ranked("run", "a", "") == BEST
    assert engine.asked == [("run", None, 0)]


def test_many_ask_for_the_same(engine: HeldEngine, kept: Rankings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rankings, "WAIT_SECONDS", 30)
    got: list[Any] = []
    asking = [threading.Thread(target=lambda: got.append(kept.ranked("run", "a", "math"))) for _ in range(8)]
    for each in asking:
        each.start()
    while not engine.futures:
        assert any(each.is_alive() for each in asking)
    engine.futures[0].set_result(BEST)
    for each in asking:
        each.join()
    assert got == [BEST] * 8
    assert engine.asked == [("run", "math", 0)]


def test_another_state_or_group_is_another_ranking(engine: HeldEngine, kept: Rankings) -> None:
    for key in (("run", "a", ""), ("run", "b", ""), ("run", "a", "math"), ("other", "a", "")):
        with pytest.raises(ApiError):
            kept.ranked(*key)
    assert engine.asked == [("run", None, 0), ("run", None, 0), ("run", "math", 0), ("other", None, 0)]


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (RefusedError(Code.NOT_FOUND, "run 'run' was deleted"), "404", "not_found"),
        (RefusedError(Code.FAILED_PRECONDITION, "it cannot be judged"), "503", "unavailable"),
        (RefusedError(Code.INTERNAL, "the plug-in failed"), "503", "unavailable"),
    ],
)
def test_a_refusal_is_told_and_not_kept(
    engine: HeldEngine, kept: Rankings, error: RefusedError, status: str, code: str
) -> None:
    with pytest.raises(ApiError):
        kept.ranked("run", "a", "")
    engine.futures[0].set_exception(error)
    with pytest.raises(ApiError, match=error.message) as caught:
        kept.ranked("run", "a", "")
    assert (caught.value.status[:3], caught.value.code) == (status, code)
    with pytest.raises(ApiError, match="still being ranked"):
        kept.ranked("run", "a", "")
    assert len(engine.asked) == 2


def test_a_fault_is_raised_and_not_kept(engine: HeldEngine, kept: Rankings) -> None:
    with pytest.raises(ApiError):
        kept.ranked("run", "a", "")
    engine.futures[0].set_exception(KeyError("inner"))
    with pytest.raises(KeyError):
        kept.ranked("run", "a", "")
    with pytest.raises(ApiError):
        kept.ranked("run", "a", "")
    assert len(engine.asked) == 2


def test_rankings_do_not_pile_up(engine: HeldEngine, kept: Rankings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rankings, "WAIT_SECONDS", 0)
    for number in (*range(KEPT), 0, KEPT):
        with pytest.raises(ApiError):
            kept.ranked("run", str(number), "")
    assert len(engine.asked) == KEPT + 1
    with pytest.raises(ApiError):
        kept.ranked("run", "0", "")
    assert len(engine.asked) == KEPT + 1, "what was asked for lately stays"
    with pytest.raises(ApiError):
        kept.ranked("run", "1", "")
    assert len(engine.asked) == KEPT + 2
