"""What a rank sends is taken exactly as sent, or refused with field and sample named."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from pathwatch.client.tensors import to_tensor
from pathwatch.server.config import Limits
from pathwatch.server.engine.decode import Topology, decode_batch, decode_geometry
from pathwatch.server.engine.refusal import Code, RefusedError
from pathwatch.v1 import routing_pb2, tensor_pb2

LAYERS, EXPERTS = 2, 4
TOPOLOGY = Topology(layers=LAYERS, experts=EXPERTS, limits=Limits(samples_per_message=16))
IDS = np.array([70, 7, 700])
WEIGHTS_NLK = np.full((3, LAYERS, EXPERTS), 0.25, np.float32)

Batch = routing_pb2.ObservationBatch


def bfloat16(values: NDArray[np.float32]) -> NDArray[np.uint16]:
    """The upper halves of float32 numbers."""
    return (values.view(np.uint32) >> 16).astype(np.uint16)


def valid(**changes: object) -> Batch:
    fields: dict[str, object] = {
        "step": 5,
        "group": "math",
        "sample_ids": to_tensor(IDS),
        "losses": to_tensor(np.array([0.5, 1.5, 2.5], np.float32)),
        "weights": to_tensor(WEIGHTS_NLK),
    }
    return Batch(**{k: v for k, v in (fields | changes).items() if v is not None})  # type: ignore[arg-type]


def changed(index: tuple[int, ...], value: float) -> tensor_pb2.Tensor:
    weights_NLK = WEIGHTS_NLK.copy()
    weights_NLK[index] = value
    return to_tensor(weights_NLK)


def raw(
    kind: int = routing_pb2.SCORE_KIND_SOFTMAX_LOGITS, scores: object = None, **changes: object
) -> dict[str, object]:
    scores = np.zeros((6, LAYERS, EXPERTS), np.float32) if scores is None else scores
    fields = {
        "kind": kind,
        "scores": to_tensor(scores),  # type: ignore[arg-type]
        "lengths": to_tensor(np.array([1, 2, 3], np.int32)),
    }
    return {"weights": None, "raw": routing_pb2.RawScores(**(fields | changes))}  # type: ignore[arg-type]


def ints(*values: int) -> tensor_pb2.Tensor:
    return to_tensor(np.array(values, np.int32))


BAD: dict[str, tuple[dict[str, object], str, int | None, str]] = {
    # what is wrong: (changes, field, sample, words of the message)
    "step below 0": ({"step": -1}, "batch.step", None, "count from 0"),
    "no group": ({"group": ""}, "batch.group", None, "empty"),
    "group with a line break": ({"group": "a\nb"}, "batch.group", None, "printable"),
    "group too long": ({"group": "g" * 129}, "batch.group", None, "128"),
    "no samples": ({"sample_ids": to_tensor(np.zeros(0, np.int64))}, "batch.sample_ids", None, "empty"),
    "ids as int32": ({"sample_ids": ints(1, 2, 3)}, "batch.sample_ids", None, "int64"),
    "ids of two axes": ({"sample_ids": to_tensor(IDS[None])}, "batch.sample_ids", None, "shape"),
    "NaN weight": ({"weights": changed((1, 0, 2), np.nan)}, "batch.weights", 7, "NaN"),
    "infinite weight": ({"weights": changed((2, 1, 0), np.inf)}, "batch.weights", 700, "NaN or Inf"),
    "negative weight": (
        {"weights": to_tensor(WEIGHTS_NLK + np.float32([0.5, -0.5, 0, 0]))},
        "batch.weights",
        70,
        "negative",
    ),
    "logits as weights": (
        {"weights": to_tensor(np.tile(np.float32([3, 1, 0, 2]), (3, LAYERS, 1)))},
        "batch.weights",
        70,
        "sum to 6.*logits",
    ),
    "float32 rows 0.4 % off": ({"weights": changed((0, 1, 0), 0.254)}, "batch.weights", 70, "layer 1"),
    "float16 rows 2 % off": (
        {"weights": to_tensor(np.full((3, LAYERS, EXPERTS), 0.255, np.float16))},
        "batch.weights",
        70,
        "sum to 1.02",
    ),
    "weights of other experts": (
        {"weights": to_tensor(np.full((3, LAYERS, 5), 0.2, np.float32))},
        "batch.weights",
        None,
        r"\[3, 2, 5\].*\[3, 2, 4\]",
    ),
    "weights of other samples": ({"weights": to_tensor(WEIGHTS_NLK[:2])}, "batch.weights", None, "shape"),
    "weights as float64": (
        {"weights": to_tensor(WEIGHTS_NLK.astype(np.float64))},
        "batch.weights",
        None,
        "float64; send one of float32, float16, bfloat16",
    ),
    "too few bytes": (
        {"weights": tensor_pb2.Tensor(dtype=1, shape=(3, LAYERS, EXPERTS), data=b"1234")},
        "batch.weights",
        None,
        "4 bytes.*takes 96",
    ),
    "unknown element type": (
        {"weights": tensor_pb2.Tensor(dtype=99, shape=(3, LAYERS, EXPERTS))},  # type: ignore[arg-type]
        "batch.weights",
        None,
        "unknown",
    ),
    "negative size": (
        {"weights": tensor_pb2.Tensor(dtype=1, shape=(3, -LAYERS, -EXPERTS))},
        "batch.weights",
        None,
        "shape",
    ),
    "no routing": ({"weights": None}, "batch.routing", None, "missing"),
    "NaN loss": ({"losses": to_tensor(np.float32([0, np.nan, 1]))}, "batch.losses", 7, "NaN"),
    "negative loss": ({"losses": to_tensor(np.float32([0, 1, -1]))}, "batch.losses", 700, "negative"),
    "too few losses": ({"losses": to_tensor(np.float32([0, 1]))}, "batch.losses", None, "shape"),
    "no tokens": ({"token_counts": ints(1, 0, 1)}, "batch.token_counts", 7, "below 1"),
    "more target tokens than tokens": (
        {"token_counts": ints(1, 1, 1), "target_token_counts": ints(1, 2, 1)},
        "batch.target_token_counts",
        7,
        "more target tokens",
    ),
    "no target token": (
        {"target_token_counts": ints(1, 1, 0)},
        "batch.target_token_counts",
        700,
        "no target token",
    ),
    "target below -1": ({"targets": ints(0, -2, 0)}, "batch.targets", 7, "below -1"),
    "visits below -1": ({"visits": ints(0, 0, -5)}, "batch.visits", 700, "below -1"),
    "wrong target weights": (
        {"target_weights": changed((1, 1, 0), 0.9)},
        "batch.target_weights",
        7,
        "sum to 1.65",
    ),
    "target weights beside raw scores": (
        raw() | {"target_weights": to_tensor(WEIGHTS_NLK)},
        "batch.target_weights",
        None,
        "`weights` only",
    ),
    "kind of score not said": (raw(kind=0), "batch.raw.kind", None, "logits or probabilities"),
    "NaN logit": (
        raw(scores=np.full((6, LAYERS, EXPERTS), np.nan, np.float32)),
        "batch.raw.scores",
        70,
        "NaN",
    ),
    "logits declared as softmax": (
        raw(routing_pb2.SCORE_KIND_SOFTMAX, np.tile(np.float32([4, -1, 2, 0]), (6, LAYERS, 1))),
        "batch.raw.scores",
        70,
        "negative",
    ),
    "positive logits declared as softmax": (
        raw(routing_pb2.SCORE_KIND_SOFTMAX, np.tile(np.float32([4, 1, 2, 0]), (6, LAYERS, 1))),
        "batch.raw.scores",
        70,
        "sum to 7",
    ),
    "logits declared as sigmoid": (
        raw(routing_pb2.SCORE_KIND_SIGMOID, np.tile(np.float32([4, 1, 2, 0]), (6, LAYERS, 1))),
        "batch.raw.scores",
        70,
        r"outside \[0, 1\]",
    ),
    "sigmoid scores all 0": (raw(routing_pb2.SCORE_KIND_SIGMOID), "batch.raw.scores", 70, "all 0"),
    "lengths that miss tokens": (raw(lengths=ints(1, 2, 2)), "batch.raw.lengths", None, "5.*6 tokens"),
    "a sample without tokens": (raw(lengths=ints(0, 3, 3)), "batch.raw.lengths", 70, "fewer than 1"),
    "a mask of other values": (
        raw(target_mask=to_tensor(np.full(6, 2, np.uint8))),
        "batch.raw.target_mask",
        None,
        "0 and 1",
    ),
    "a sample without target token": (
        raw(target_mask=to_tensor(np.array([1, 0, 0, 1, 1, 1], np.uint8))),
        "batch.target_token_counts",
        7,
        "no target token",
    ),
    "layers not ascending": (
        {"fragment": routing_pb2.Fragment(layers=[1, 0])},
        "batch.fragment.layers",
        None,
        "ascend",
    ),
    "layers the run does not have": (
        {"fragment": routing_pb2.Fragment(layers=[2])},
        "batch.fragment.layers",
        None,
        "below 2",
    ),
    "token part too high": (
        {"fragment": routing_pb2.Fragment(token_part=2, token_parts=2)},
        "batch.fragment.token_part",
        None,
        "token_parts 2",
    ),
}


@pytest.mark.parametrize("wrong", BAD)
def test_what_is_wrong_is_named(wrong: str) -> None:
    changes, field, sample_id, words = BAD[wrong]
    with pytest.raises(RefusedError, match=f"(?s){words}") as refused:
        decode_batch(valid(**changes), 0, TOPOLOGY)
    assert refused.value.code is Code.INVALID_ARGUMENT
    assert refused.value.field == field
    assert refused.value.sample_id == sample_id


def test_more_samples_than_a_message_may_hold() -> None:
    ids = to_tensor(np.arange(17))
    with pytest.raises(RefusedError, match="split") as refused:
        decode_batch(valid(sample_ids=ids), 0, TOPOLOGY)
    assert refused.value.code is Code.RESOURCE_EXHAUSTED


def test_reduced_weights_arrive_as_sent() -> None:
    block = decode_batch(
        valid(
            token_counts=ints(5, 6, 7),
            target_token_counts=ints(1, 2, 3),
            target_weights=changed((0, 0), 0.25),
            targets=ints(-1, 0, 9),
            visits=ints(-1, 0, 3),
        ),
        2,
        TOPOLOGY,
    )
    assert (block.attempt, block.step, block.group) == (2, 5, "math")
    assert (block.layers, block.token_part, block.token_parts) == (None, 0, 1)
    assert block.target_weights_NLK is not None
    assert block.losses_N is not None
    assert block.targets_N is not None
    assert block.visits_N is not None
    assert block.sample_ids_N.tolist() == IDS.tolist()
    assert block.losses_N.tolist() == [0.5, 1.5, 2.5]
    assert block.tokens_N.tolist() == [5, 6, 7]
    assert block.target_tokens_N.tolist() == [1, 2, 3]
    assert block.targets_N.tolist() == [-1, 0, 9]
    assert block.visits_N.tolist() == [-1, 0, 3]
    np.testing.assert_array_equal(block.weights_NLK, WEIGHTS_NLK)
    np.testing.assert_array_equal(block.target_weights_NLK, WEIGHTS_NLK)


def test_what_is_absent_has_its_default() -> None:
    block = decode_batch(valid(losses=None), 0, TOPOLOGY)
    assert block.losses_N is None
    assert block.tokens_N.tolist() == block.target_tokens_N.tolist() == [1, 1, 1]
    assert block.target_weights_NLK is None
    assert block.targets_N is None
    assert block.visits_N is None


def test_half_precision_may_be_one_percent_off() -> None:
    weights_NLK = np.full((3, LAYERS, EXPERTS), 0.252, np.float16)
    block = decode_batch(valid(weights=to_tensor(weights_NLK)), 0, TOPOLOGY)
    np.testing.assert_array_equal(block.weights_NLK, weights_NLK.astype(np.float32))
    bits_NLK = bfloat16(np.full((3, LAYERS, EXPERTS), 0.25, np.float32))
    block = decode_batch(valid(weights=to_tensor(bits_NLK)), 0, TOPOLOGY)
    np.testing.assert_array_equal(block.weights_NLK, WEIGHTS_NLK)


def test_a_fragment_holds_its_layers_and_may_lack_target_tokens() -> None:
    fragment = routing_pb2.Fragment(layers=[1], token_part=1, token_parts=2)
    block = decode_batch(
        valid(
            weights=to_tensor(WEIGHTS_NLK[:, :1]),
            target_weights=to_tensor(np.zeros((3, 1, EXPERTS), np.float32)),
            target_token_counts=ints(0, 0, 0),
            fragment=fragment,
        ),
        0,
        TOPOLOGY,
    )
    assert (block.layers, block.token_part, block.token_parts) == ((1,), 1, 2)
    assert block.target_tokens_N.tolist() == [0, 0, 0]


def test_a_token_part_may_hold_padding_alone() -> None:
    weights_NLK = WEIGHTS_NLK.copy()
    weights_NLK[1] = 0
    counts = ints(5, 0, 7)
    changes = {
        "weights": to_tensor(weights_NLK),
        "token_counts": counts,
        "target_token_counts": counts,
    }
    part = routing_pb2.Fragment(token_part=1, token_parts=2)
    block = decode_batch(valid(**changes, fragment=part), 0, TOPOLOGY)
    assert block.tokens_N.tolist() == [5, 0, 7]
    with pytest.raises(RefusedError) as refused:
        decode_batch(valid(**changes), 0, TOPOLOGY)
    assert (refused.value.field, refused.value.sample_id) == ("batch.token_counts", int(IDS[1]))


def test_losses_may_come_without_layers() -> None:
    empty = to_tensor(WEIGHTS_NLK[:, :0])
    block = decode_batch(valid(weights=empty, fragment=routing_pb2.Fragment()), 0, TOPOLOGY)
    assert block.layers == ()
    assert block.losses_N is not None
    assert block.losses_N.tolist() == [0.5, 1.5, 2.5]
    with pytest.raises(RefusedError) as refused:
        decode_batch(valid(weights=empty), 0, TOPOLOGY)
    assert refused.value.field == "batch.weights"


@pytest.mark.parametrize(
    ("kind", "probabilities"),
    [
        (routing_pb2.SCORE_KIND_SOFTMAX_LOGITS, lambda x: np.exp(x) / np.exp(x).sum(-1, keepdims=True)),
        (
            routing_pb2.SCORE_KIND_SIGMOID_LOGITS,
            lambda x: (1 / (1 + np.exp(-x))) / (1 / (1 + np.exp(-x))).sum(-1, keepdims=True),
        ),
    ],
)
@given(
    seed=st.integers(0, 2**32 - 1),
    lengths=st.lists(st.integers(1, 5), min_size=1, max_size=6),
    half=st.booleans(),
)
def test_raw_scores_become_means_over_each_samples_tokens(
    kind: int,
    probabilities: Callable[[NDArray[np.float64]], NDArray[np.float64]],
    seed: int,
    lengths: list[int],
    half: bool,
) -> None:
    rng = np.random.default_rng(seed)
    scores_TLK = rng.normal(size=(sum(lengths), LAYERS, EXPERTS)).astype(np.float16 if half else np.float32)
    mask_T = np.ones(sum(lengths), np.uint8)
    mask_T[rng.random(len(mask_T)) < 0.5] = 0
    ends = np.cumsum(lengths)
    mask_T[ends - 1] = 1  # every sample has a target token
    block = decode_batch(
        valid(
            losses=None,
            sample_ids=to_tensor(np.arange(len(lengths))),
            **raw(kind, scores_TLK, lengths=ints(*lengths), target_mask=to_tensor(mask_T)),
        ),
        0,
        TOPOLOGY,
    )
    assert block.tokens_N.tolist() == lengths
    for i, (end, length) in enumerate(zip(ends, lengths, strict=True)):
        tokens = range(end - length, end)
        per_token = [probabilities(scores_TLK[t].astype(np.float64)) for t in tokens]
        np.testing.assert_allclose(block.weights_NLK[i], sum(per_token) / length, atol=1e-6)
        targets = [p for t, p in zip(tokens, per_token, strict=True) if mask_T[t]]
        assert block.target_tokens_N[i] == len(targets)
        if block.target_weights_NLK is not None:
            np.testing.assert_allclose(block.target_weights_NLK[i], sum(targets) / len(targets), atol=1e-6)


def geometry(**changes: object) -> routing_pb2.ExpertGeometry:
    rows = np.random.default_rng(0).normal(size=(LAYERS, EXPERTS, 8)).astype(np.float32)
    fields: dict[str, object] = {
        "step": 3,
        "gram_self": to_tensor(rows @ rows.swapaxes(1, 2)),
        "gram_next": to_tensor(rows[:-1] @ rows[1:].swapaxes(1, 2)),
    }
    return routing_pb2.ExpertGeometry(**(fields | changes))  # type: ignore[arg-type]


def test_geometry_arrives_as_sent() -> None:
    message = geometry()
    decoded = decode_geometry(message, TOPOLOGY)
    assert decoded.step == 3
    assert decoded.gram_self_LKK.tobytes() == message.gram_self.data
    assert decoded.gram_next_LKK.tobytes() == message.gram_next.data


@pytest.mark.parametrize(
    ("changes", "field", "words"),
    [
        ({"step": -1}, "geometry.step", "count from 0"),
        ({"gram_next": geometry().gram_self}, "geometry.gram_next", "L - 1"),
        ({"gram_self": to_tensor(np.full((2, 4, 4), np.nan, np.float32))}, "geometry.gram_self", "layer 0"),
        ({"gram_self": to_tensor(np.full((2, 4, 4), -1, np.float32))}, "geometry.gram_self", "negative"),
    ],
)
def test_wrong_geometry_is_named(changes: dict[str, object], field: str, words: str) -> None:
    with pytest.raises(RefusedError, match=words) as refused:
        decode_geometry(geometry(**changes), TOPOLOGY)
    assert refused.value.field == field


def test_one_layer_has_no_next() -> None:
    topology = Topology(layers=1, experts=EXPERTS, limits=Limits())
    message = geometry(
        gram_self=to_tensor(np.ones((1, EXPERTS, EXPERTS), np.float32)),
        gram_next=to_tensor(np.ones((0, EXPERTS, EXPERTS), np.float32)),
    )
    assert decode_geometry(message, topology).gram_next_LKK.shape == (0, EXPERTS, EXPERTS)
