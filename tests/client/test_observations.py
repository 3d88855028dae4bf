"""What is copied out of a training step, and how it is cut into messages."""

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from pathwatch.client import RawScores
from pathwatch.client.observations import checked
from pathwatch.v1 import routing_pb2

ARGUMENTS = {
    "step": 3,
    "group": "math",
    "weights": None,
    "raw": None,
    "losses": None,
    "target_weights": None,
    "layers": None,
    "token_part": 0,
    "token_parts": 1,
}


def array(tensor, dtype):
    return np.frombuffer(tensor.data, dtype).reshape(tensor.shape)


@given(n=st.integers(1, 40), limit=st.integers(1, 3000), seed=st.integers(0, 99))
def test_pieces_of_weights_together_are_the_whole(n, limit, seed):
    rng = np.random.default_rng(seed)
    weights = rng.random((n, 2, 3), np.float32)
    losses = rng.random(n)
    ids = rng.permutation(n)
    whole = checked(**{**ARGUMENTS, "sample_ids": ids, "weights": weights, "losses": losses}, visits=ids)
    pieces = list(whole.split(limit))
    assert all(piece.samples == 1 or piece.nbytes <= limit for piece in pieces)
    assert sum(piece.nbytes for piece in pieces) == whole.nbytes
    batches = [piece.request().batch for piece in pieces]
    assert np.array_equal(np.concatenate([array(b.weights, np.float32) for b in batches]), weights)
    assert np.array_equal(np.concatenate([array(b.losses, np.float64) for b in batches]), losses)
    assert np.array_equal(np.concatenate([array(b.sample_ids, np.int64) for b in batches]), ids)
    assert np.array_equal(np.concatenate([array(b.visits, np.int32) for b in batches]), ids)
    assert {(b.step, b.group) for b in batches} == {(3, "math")}


@given(lengths=st.lists(st.integers(0, 12), min_size=1, max_size=12), limit=st.integers(1, 600))
def test_pieces_of_raw_scores_keep_each_sample_s_tokens_together(lengths, limit):
    tokens = sum(lengths)
    scores = np.arange(tokens * 6, dtype=np.float32).reshape(tokens, 2, 3)
    raw = RawScores(
        kind=routing_pb2.SCORE_KIND_SOFTMAX_LOGITS,
        scores_TLK=scores,
        lengths_N=lengths,
        target_mask_T=np.arange(tokens) % 2,
    )
    whole = checked(**{**ARGUMENTS, "sample_ids": np.arange(len(lengths)), "raw": raw})
    cut = list(whole.split(limit))
    assert sum(piece.nbytes for piece in cut) == whole.nbytes
    assert all(piece.samples == 1 or piece.nbytes <= limit for piece in cut)
    pieces = [piece.request().batch for piece in cut]
    for piece in pieces:
        assert array(piece.raw.lengths, np.int32).sum() == len(array(piece.raw.scores, np.float32))
        assert len(piece.raw.target_mask.data) == piece.raw.scores.shape[0]
    assert np.concatenate([array(p.raw.lengths, np.int32) for p in pieces]).tolist() == lengths
    assert np.array_equal(np.concatenate([array(p.raw.scores, np.float32) for p in pieces]), scores)
    mask = b"".join(p.raw.target_mask.data for p in pieces)
    assert list(mask) == [i % 2 for i in range(tokens)]


@pytest.mark.parametrize(
    ("given_dtype", "sent_dtype"),
    [
        ("float64", "float32"),
        ("float32", "float32"),
        ("float16", "float16"),
        ("uint16", "uint16"),
        (">f4", "<f4"),
    ],
)
def test_weights_keep_their_precision(given_dtype, sent_dtype):
    weights = np.arange(8).reshape(1, 2, 4).astype(given_dtype)
    whole = checked(**{**ARGUMENTS, "sample_ids": [1], "weights": weights})
    (piece,) = whole.split(1 << 20)
    sent = piece.request().batch.weights
    assert np.array_equal(array(sent, sent_dtype), weights.astype(sent_dtype))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"raw": None, "weights": None}, "exactly one"),
        ({"weights": np.ones((2, 3), np.float32)}, "weights must have 3 axes"),
        ({"weights": np.ones((3, 2, 4), np.float32)}, "weights has 3 rows, expected 2"),
        ({"weights": np.ones((2, 2, 4), np.int64)}, "weights must be float32, float16, uint16, not int64"),
        ({"losses": [1.0]}, "losses has 1 rows, expected 2"),
        ({"sample_ids": [0.5, 1.5]}, "sample_ids must be integers"),
        ({"sample_ids": [[1, 2]]}, "sample_ids must have one axis"),
        ({"visits": [0, 1 << 40]}, "visits has values that int32 cannot hold"),
        ({"target_weights": np.ones((2, 1, 4), np.float32)}, "different shapes"),
        ({"step": -1}, "step is -1"),
        ({"group": ""}, "group is empty"),
    ],
)
def test_wrong_arguments_are_named(changes, message):
    arguments = {**ARGUMENTS, "sample_ids": [1, 2], "weights": np.ones((2, 2, 4), np.float32), **changes}
    with pytest.raises((ValueError, TypeError), match=message):
        checked(**arguments)


def test_raw_lengths_must_cover_the_scores():
    raw = RawScores(
        kind=routing_pb2.SCORE_KIND_SOFTMAX, scores_TLK=np.ones((5, 2, 3), np.float32), lengths_N=[2, 2]
    )
    with pytest.raises(ValueError, match="sum to the 5 tokens"):
        checked(**{**ARGUMENTS, "sample_ids": [1, 2], "raw": raw})
