"""Memory of windows: what is counted is what is there, and no run takes the room of others."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pathwatch.server.config import Limits
from pathwatch.server.engine.kept_bytes import KeptBytes
from pathwatch.server.engine.refusal import OverloadError
from pathwatch.server.sketch.observations import ObservationBlock
from pathwatch.server.sketch.run_sketch import RunSketch, SketchSettings


def kept(**limits: int) -> KeptBytes:
    return KeptBytes(Limits(**limits))


def test_a_run_takes_no_more_than_its_bound() -> None:
    ledger = kept(window_bytes_per_run=100, window_bytes=1000)
    ledger.check_growth("run", 60, 40)
    with pytest.raises(OverloadError, match="at most 100 are kept") as refusal:
        ledger.check_growth("run", 60, 41)
    assert refusal.value.limit == "window_bytes_per_run"
    ledger.check_growth("run", 200, 0)


def test_runs_below_their_fair_share_still_grow() -> None:
    ledger = kept(window_bytes_per_run=1000, window_bytes=1000)
    ledger.check_growth("greedy", 0, 500)
    ledger.set("greedy", 500)
    with pytest.raises(OverloadError, match="all 1 runs") as refusal:
        ledger.check_growth("greedy", 500, 1)
    assert refusal.value.limit == "window_bytes"
    ledger.check_growth("late", 0, 250)
    ledger.set("late", 250)
    with pytest.raises(OverloadError):
        ledger.check_growth("late", 250, 1)
    ledger.set("greedy", 0)
    ledger.check_growth("late", 250, 250)


@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(1, 400), st.booleans()), max_size=200),
)
def test_the_bound_of_all_holds_whatever_runs_do(events: list[tuple[int, int, bool]]) -> None:
    ledger, held = kept(window_bytes_per_run=700, window_bytes=1000), dict.fromkeys(range(10), 0)
    for run, size, closes in events:
        if closes:
            held[run] = 0
        else:
            try:
                ledger.check_growth(str(run), held[run], size)
            except OverloadError:
                continue
            held[run] += size
        ledger.set(str(run), held[run])
        assert ledger.total == sum(held.values()) <= 1000


def test_runs_that_come_one_after_the_other_do_not_pass_the_bound_together() -> None:
    """Each may take its fair share of half of it when it comes; the shares of all who came add up to more."""
    ledger = kept(window_bytes_per_run=1000, window_bytes=1000)
    for run in range(20):
        held = 0
        while True:
            try:
                ledger.check_growth(str(run), held, 1)
            except OverloadError:
                break
            held += 1
            ledger.set(str(run), held)
    assert 900 <= ledger.total <= 1000


def block(step: int, group: str, ids: list[int], part: int, parts: int, targets: bool) -> ObservationBlock:
    n = len(ids)
    weights_NLK = np.random.default_rng([step, part, n]).dirichlet(np.ones(4), (n, 3)).astype(np.float32)
    return ObservationBlock(
        attempt=0,
        step=step,
        group=group,
        sample_ids_N=np.array(ids, np.int64),
        losses_N=np.ones(n),
        tokens_N=np.full(n, 3, np.int64),
        target_tokens_N=np.full(n, 2, np.int64),
        weights_NLK=weights_NLK,
        target_weights_NLK=weights_NLK[:, :, ::-1] if targets else None,
        targets_N=None,
        visits_N=None,
        layers=None,
        token_part=part,
        token_parts=parts,
    )


@pytest.mark.slow
@settings(max_examples=50, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(1, 4),
            st.sampled_from("ab"),
            st.lists(st.integers(0, 300), min_size=1, max_size=80, unique=True),
            st.integers(0, 2),
            st.booleans(),
        ),
        max_size=12,
    )
)
def test_what_is_counted_is_what_is_held(blocks: list[tuple[int, str, list[int], int, bool]]) -> None:
    settings_ = SketchSettings(run="run", layers=3, experts=4, mode="probe", window_steps=1, capacity=100)
    sketch = RunSketch(settings_)
    sketch.join(0, 1)
    for step, group, ids, part, targets in blocks:
        one = block(step, group, ids, part, 3, targets)
        before, growth = sketch.nbytes, sketch.growth(one)
        try:
            sketch.add(one, 0.0)
        except Exception:  # blocks that contradict each other are refused: nothing of them is stored
            assert sketch.nbytes == before
            continue
        assert sketch.nbytes - before <= growth
        parts = [
            array
            for window in sketch._open.values()
            for group_sketch in window.groups.values()
            for array in (
                group_sketch._samples_S,
                *(value for p in group_sketch._parts.values() for value in vars(p).values()),
            )
            if isinstance(array, np.ndarray)
        ]
        assert sketch.nbytes == sum(array.nbytes for array in parts)
    sketch.watermark(0, 10, 0.0)
    sketch.close_ready(0.0)
    assert sketch.nbytes == 0


def test_closed_rounds_count_until_they_are_judged(bench: Any, make_batch: Any, eventually: Any) -> None:
    bench.create()
    rank = bench.join()
    rank.observe(make_batch(1, n=100))
    last = rank.observe(make_batch(2, n=100))
    eventually(lambda: rank.acked == last)
    ledger = bench.engine._shared.kept
    assert ledger.total >= 2 * 100 * 2 * 4 * 4
    rank.watermark(2)
    eventually(lambda: bench.view().run.closed_step == 2)
    eventually(lambda: ledger.total == 0)
