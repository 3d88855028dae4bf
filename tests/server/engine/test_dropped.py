"""What senders say they had to drop is counted once, however often and in whatever order they say it."""

from __future__ import annotations

from typing import Any

import pytest

from pathwatch.server.config import Limits


@pytest.fixture
def dropped(bench: Any, eventually: Any) -> Any:
    """Waits for the count that readers see."""
    return lambda count: eventually(lambda: bench.view().health.observations["dropped"] == count)


def test_the_largest_count_of_a_session_holds(bench: Any, dropped: Any) -> None:
    bench.create()
    rank = bench.join()
    rank.watermark(0, dropped=5)
    second = rank.watermark(1, dropped=9)
    rank.watermark(2, dropped=7)
    rank.watermark(1, second, dropped=9)  # sent again
    rank.watermark(3)  # an old client, or one that says nothing
    rank.watermark(4, dropped=10)
    dropped(10)


def test_sessions_and_ranks_add_up(bench: Any, dropped: Any) -> None:
    bench.create()
    for rank, session, count in [(0, "a", 5), (1, "a", 7), (0, "b", 2), (0, "a", 6)]:
        bench.join(rank, 2, session=session).watermark(0, sequence=1, dropped=count)
    dropped(5 + 7 + 2 + 1)


def test_a_count_that_a_refused_watermark_tells_holds(bench: Any, dropped: Any, eventually: Any) -> None:
    bench.create()
    rank = bench.join()
    rank.watermark(5)
    rank.watermark(3, dropped=4)  # goes back
    dropped(4)
    eventually(lambda: rank.rejected)  # which follows what readers see
    assert len(rank.rejected) == 1


def test_the_next_attempt_counts_on(bench: Any, dropped: Any) -> None:
    bench.create()
    bench.join().watermark(0, dropped=5)
    bench.join(attempt=1).watermark(0, dropped=3)
    dropped(8)


def test_after_a_restart_what_was_told_before_is_no_news(bench: Any, dropped: Any) -> None:
    bench.create()
    bench.join().watermark(0, dropped=5)
    dropped(5)
    bench.restart()
    rank = bench.join(told_dropped=5)
    rank.watermark(1, sequence=2, dropped=5)
    rank.watermark(2, sequence=3, dropped=7)
    dropped(2)
    bench.join(told_dropped=7).watermark(3, sequence=4, dropped=8)  # it only connects again
    dropped(3)


def test_after_a_restart_what_was_told_and_not_acknowledged_counts(bench: Any, dropped: Any) -> None:
    bench.create()
    last = bench.join().watermark(0, dropped=5)
    dropped(5)
    bench.restart()
    dropped(0)
    bench.join().watermark(0, last, dropped=5)  # a message that is known
    dropped(5)


def test_sessions_that_are_forgotten_take_nothing_back(make_bench: Any, eventually: Any) -> None:
    bench = make_bench(limits=Limits(sessions_per_rank=2))
    bench.create()

    def say(session: str, count: int, total: int) -> None:
        bench.join(session=session).watermark(0, sequence=1, dropped=count)
        eventually(lambda: bench.view().health.observations["dropped"] == total)

    say("a", 1, 1)
    say("b", 2, 3)
    say("b", 3, 4)
    say("c", 4, 8)  # the first is forgotten, …
    say("b", 3, 8)
    say("a", 1, 9)  # … and is new when it comes back
