"""Runs that keep their observations: every judged round as it was, to the bit."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from pathwatch.client import from_tensor
from pathwatch.server.engine import kept_rounds
from pathwatch.server.engine.kept_rounds import pack_round, unpack_round
from pathwatch.server.metrics.window import Geometry, WindowArrays
from pathwatch.server.sketch.run_sketch import Round
from pathwatch.v1 import signal_pb2, tensor_pb2


def kept(bench: Any) -> list[signal_pb2.RoundObservations]:
    return [unpack_round(row.observations) for row in bench.store.observations("run")]


def same(a: tensor_pb2.Tensor, b: tensor_pb2.Tensor) -> bool:
    return bool(np.array_equal(from_tensor(a), from_tensor(b)))


def round_of(**windows: WindowArrays) -> Round:
    return Round(attempt=2, first_step=5, step=9, windows=windows, partial=False, missing_ranks=())


def window(weights_NLK: NDArray[np.float32], **changes: Any) -> WindowArrays:
    n = len(weights_NLK)
    fields = {
        "group": "math",
        "first_step": 5,
        "step": 9,
        "sample_ids_N": np.arange(n, dtype=np.int64),
        "losses_N": np.linspace(0, 1, n, dtype=np.float32).astype(np.float64),
        "weights_NLK": weights_NLK,
        "tokens_N": np.full(n, 7, dtype=np.int64),
    }
    return WindowArrays(**fields | changes)


def test_every_judged_round_is_kept_as_it_was_sent(bench: Any, make_batch: Any, eventually: Any) -> None:
    bench.create(keep_observations=True)
    rank = bench.join()
    sent = {}
    rank.geometry(10)
    for step in (10, 20):
        for group in ("math", "code"):
            sent[step, group] = make_batch(step, group, dtype=np.float16 if group == "math" else np.float32)
            rank.observe(sent[step, group])
        rank.watermark(step)
    rank.observe(make_batch(30))
    eventually(lambda: bench.view().run.closed_step == 20)
    bench.restart()
    rounds = kept(bench)
    assert [(round_.attempt, round_.first_step, round_.step) for round_ in rounds] == [
        (0, 10, 10),
        (0, 20, 20),
    ]
    for round_ in rounds:
        assert [group.group for group in round_.groups] == ["code", "math"]
        assert round_.geometry.step == 10
        assert len(round_.geometry.gram_next.shape) == 3
        for group in round_.groups:
            batch = sent[round_.step, group.group]
            assert not group.partial
            assert group.weights.dtype == batch.weights.dtype  # half precision stays half the size
            for field in ("sample_ids", "losses", "weights", "targets", "visits"):
                assert same(getattr(group, field), getattr(batch, field)), field
            assert from_tensor(group.token_counts).tolist() == [1] * 8
            assert not group.HasField("target_weights")


def test_without_asking_nothing_is_kept(bench: Any, make_batch: Any, eventually: Any) -> None:
    bench.create()
    rank = bench.join()
    rank.observe(make_batch(10))
    rank.watermark(10)
    eventually(lambda: bench.view().run.closed_step == 10)
    assert kept(bench) == []


def test_what_is_superseded_is_forgotten(bench: Any, make_batch: Any, eventually: Any) -> None:
    bench.create(keep_observations=True)
    first = bench.join()
    for step in (10, 20, 30):
        first.observe(make_batch(step))
        first.watermark(step)
    eventually(lambda: bench.view().run.closed_step == 30)
    second = bench.join(attempt=1)
    again = make_batch(20, loss=1.0)
    second.observe(again)
    eventually(lambda: len(kept(bench)) == 1)
    second.watermark(20)
    eventually(lambda: bench.view().run.closed_step == 20)
    assert [(round_.attempt, round_.step) for round_ in kept(bench)] == [(0, 10), (1, 20)]
    assert same(kept(bench)[1].groups[0].losses, again.losses)


def test_a_round_with_a_rank_missing_says_so(bench: Any, make_batch: Any, eventually: Any) -> None:
    bench.create(keep_observations=True)
    ranks = [bench.join(rank, 2, session=f"life {rank}") for rank in range(2)]
    ranks[0].observe(make_batch(10))
    last = ranks[0].watermark(10)
    eventually(lambda: ranks[0].acked == last)
    bench.pass_time(61)
    eventually(lambda: bench.view().run.closed_step == 10)
    assert [group.partial for round_ in kept(bench) for group in round_.groups] == [True]


@given(st.lists(st.floats(0, 1, width=32), min_size=4, max_size=4), st.booleans())
def test_packing_loses_nothing(values: list[float], missing: bool) -> None:
    weights = np.array(values, np.float32).reshape(1, 2, 2)
    losses = np.array([np.nan if missing else 0.1])  # 0.1 is no float32
    geometry = Geometry(
        step=3, gram_self_LKK=np.ones((2, 2, 2), np.float32), gram_next_LKK=np.ones((1, 2, 2), np.float32)
    )
    window_ = window(
        weights,
        losses_N=losses,
        target_weights_NLK=weights[:, ::-1],
        targets_N=np.array([3], np.int32),
        visits_N=np.array([-1], np.int32),
    )
    round_ = unpack_round(pack_round(round_of(math=window_), geometry))
    (group,) = round_.groups
    assert (round_.attempt, round_.first_step, round_.step, round_.geometry.step) == (2, 5, 9, 3)
    np.testing.assert_array_equal(from_tensor(group.weights), weights)
    np.testing.assert_array_equal(from_tensor(group.target_weights), weights[:, ::-1])
    np.testing.assert_array_equal(from_tensor(group.losses), losses)
    assert from_tensor(group.targets).tolist() == [3]
    assert from_tensor(group.visits).tolist() == [-1]
    assert from_tensor(group.token_counts).tolist() == [7]


def test_too_large_a_round_is_left_out_and_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    round_ = round_of(
        code=window(np.ones((50, 2, 1), np.float32)), math=window(np.ones((50, 2, 1), np.float32))
    )
    monkeypatch.setattr(kept_rounds, "MAX_ROUND_BYTES", 3000)
    assert pack_round(round_, None)
    assert "step 9" not in caplog.text
    monkeypatch.setattr(kept_rounds, "MAX_ROUND_BYTES", 2000)
    with caplog.at_level(logging.ERROR):
        assert pack_round(round_, None) == b""
    assert "step 9" in caplog.text
    assert "capacity" in caplog.text
