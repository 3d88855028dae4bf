"""Rates and waits, with time in hand."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pathwatch.server.notify.pacing import BURST, LONGEST_WAIT_SECONDS, Backoff, TokenBucket


@given(per_minute=st.integers(1, 600), gaps=st.lists(st.floats(0, 120), max_size=200))
def test_no_minute_sees_more_than_the_rate_and_a_burst(per_minute: int, gaps: list[float]) -> None:
    bucket, now, taken = TokenBucket(per_minute, 0.0), 0.0, []
    for gap in gaps:
        now += gap
        if bucket.take(now):
            taken.append(now)
    for start in taken:
        within = sum(start <= time < start + 60 for time in taken)
        assert within <= per_minute + min(BURST, per_minute)


@given(per_minute=st.integers(1, 600), start=st.floats(0, 1e9))
def test_what_is_told_to_wait_may_go_then(per_minute: int, start: float) -> None:
    bucket = TokenBucket(per_minute, start)
    now = start
    while bucket.take(now):
        pass
    for _ in range(3):
        wait = bucket.wait(now)
        assert 0 < wait <= 60 / per_minute + 0.01
        now += wait
        assert bucket.take(now)
        assert not bucket.take(now)


def test_waits_double_up_to_a_bound_and_begin_anew() -> None:
    backoff = Backoff()
    assert backoff.is_fresh
    waits = [backoff.wait() for _ in range(20)]
    assert not backoff.is_fresh
    for number, wait in enumerate(waits):
        longest = min(2.0**number, LONGEST_WAIT_SECONDS)
        assert longest / 2 <= wait <= longest
    assert len({round(wait, 6) for wait in waits[10:]}) > 5, "receivers are not asked by all at once"
    backoff.reset()
    assert backoff.wait() <= 1
