"""A batch that was cut says of what is left the same as before."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pathwatch.client.tensors import to_tensor
from pathwatch.server.config import Limits
from pathwatch.server.engine.decode import Topology, decode_batch
from pathwatch.server.relay.cutting import cut
from pathwatch.v1 import routing_pb2, tensor_pb2

LAYERS, EXPERTS = 3, 4
TOPOLOGY = Topology(layers=LAYERS, experts=EXPERTS, limits=Limits())
PER_SAMPLE = {"sample_ids_N", "losses_N", "tokens_N", "target_tokens_N"} | {
    *("weights_NLK", "target_weights_NLK", "targets_N", "visits_N")
}


@st.composite
def batches(draw: st.DrawFn) -> routing_pb2.ObservationBatch:
    """Any that servers take: whole, fragments, raw scores, with and without what is optional."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    n = draw(st.integers(1, 6))
    layers = draw(st.sampled_from([None, (0,), (0, 2), ()]))
    held = LAYERS if layers is None else len(layers)
    is_raw = draw(st.booleans()) and layers != ()
    tokens_N = rng.integers(2, 5, n, dtype=np.int32)
    batch = routing_pb2.ObservationBatch(step=7, group="math", sample_ids=to_tensor(rng.permutation(100)[:n]))
    if draw(st.booleans()) or layers == ():
        dtype = draw(st.sampled_from([np.float32, np.float64]))
        batch.losses.CopyFrom(to_tensor(rng.gamma(2, 1, n).astype(dtype)))
    if layers is not None:
        batch.fragment.layers.extend(layers)
        batch.fragment.token_part, batch.fragment.token_parts = 1, 3
    if is_raw:
        batch.raw.kind = routing_pb2.SCORE_KIND_SOFTMAX_LOGITS
        scores = rng.normal(size=(tokens_N.sum(), held, EXPERTS)).astype(np.float32)
        batch.raw.scores.CopyFrom(to_tensor(scores))
        if draw(st.booleans()):  # as bfloat16
            halves = (scores.view(np.uint32) >> 16).astype(np.uint16)
            batch.raw.scores.dtype = tensor_pb2.D_TYPE_BFLOAT16
            batch.raw.scores.data = halves.tobytes()
        batch.raw.lengths.CopyFrom(to_tensor(tokens_N))
        if draw(st.booleans()):
            mask_T = rng.integers(0, 2, tokens_N.sum(), dtype=np.uint8)
            mask_T[np.cumsum(tokens_N) - 1] = 1
            batch.raw.target_mask.CopyFrom(to_tensor(mask_T))
    else:
        dtype = draw(st.sampled_from([np.float32, np.float16]))
        batch.weights.CopyFrom(to_tensor(rng.dirichlet(np.ones(EXPERTS), (n, held)).astype(dtype)))
        if draw(st.booleans()):
            batch.token_counts.CopyFrom(to_tensor(tokens_N))
            batch.target_token_counts.CopyFrom(to_tensor(tokens_N - 1))
            target = rng.dirichlet(np.ones(EXPERTS), (n, held)).astype(np.float32)
            batch.target_weights.CopyFrom(to_tensor(target))
    for name in ("targets", "visits"):
        if draw(st.booleans()):
            getattr(batch, name).CopyFrom(to_tensor(rng.integers(-1, 5, n, dtype=np.int32)))
    return batch


@given(batches(), st.data())
@settings(max_examples=60)
def test_to_cut_and_decode_is_to_decode_and_cut(
    batch: routing_pb2.ObservationBatch, data: st.DataObject
) -> None:
    whole = decode_batch(batch, 0, TOPOLOGY)
    n = len(whole.sample_ids_N)
    kept_N = np.array(sorted(data.draw(st.sets(st.integers(0, n - 1), min_size=1))), np.intp)
    part = decode_batch(cut(batch, kept_N), 0, TOPOLOGY)
    for item in fields(whole):
        before, after = getattr(whole, item.name), getattr(part, item.name)
        if item.name not in PER_SAMPLE or before is None:
            assert after == before, item.name
        else:
            assert after.dtype == before.dtype, item.name
            assert after.tobytes() == before[kept_N].tobytes(), item.name


@given(batches())
@settings(max_examples=20)
def test_a_batch_of_which_all_is_kept_is_the_same_message(batch: routing_pb2.ObservationBatch) -> None:
    assert cut(batch, np.arange(batch.sample_ids.shape[0])) == batch


@pytest.mark.parametrize("field", [f.name for f in routing_pb2.ObservationBatch.DESCRIPTOR.fields])
def test_no_field_is_forgotten(field: str) -> None:
    """Also one that is added to the protocol."""
    batch = routing_pb2.ObservationBatch(sample_ids=to_tensor(np.arange(2)))
    of_two = to_tensor(np.arange(2, dtype=np.int32))
    match field:
        case "step":
            batch.step = 3
        case "group":
            batch.group = "math"
        case "raw":
            for name in ("lengths", "scores", "target_mask"):
                getattr(batch.raw, name).CopyFrom(to_tensor(np.ones(2, np.int32)))
        case "fragment":
            batch.fragment.token_parts = 2
        case name:
            getattr(batch, name).CopyFrom(of_two)
    assert cut(batch, np.arange(2)) == batch
