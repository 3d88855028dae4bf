"""What a window does not want is left out of what is looked at and of what is stored, and nobody can tell."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pathwatch.client.tensors import from_tensor, to_tensor
from pathwatch.server.config import Limits
from pathwatch.server.engine.decode import Topology, decode_batch, stored_topology
from pathwatch.server.engine.refusal import RefusedError
from pathwatch.server.engine.stored_batch import stored_batch
from pathwatch.server.sketch.bottom_k import BottomK
from pathwatch.server.sketch.hashing import sample_hash
from pathwatch.server.sketch.observations import ObservationBlock
from pathwatch.server.sketch.run_sketch import AddResult, Round, RunSketch, SketchError, SketchSettings
from pathwatch.v1 import routing_pb2, run_pb2

LAYERS, EXPERTS = 2, 4
TOPOLOGY = Topology(layers=LAYERS, experts=EXPERTS, limits=Limits())
STORED = stored_topology(run_pb2.RunConfig(topology=run_pb2.Topology(layers=LAYERS, experts=EXPERTS)))
SETTINGS = SketchSettings(
    run="run", layers=LAYERS, experts=EXPERTS, mode="stream", window_steps=4, capacity=3
)
Batch = routing_pb2.ObservationBatch


@st.composite
def batches(draw: st.DrawFn) -> Batch:
    """A valid batch of a few of twelve samples, whole or in parts, in any element type."""
    ids = draw(st.lists(st.integers(0, 11), min_size=1, max_size=8))
    parts = draw(st.sampled_from([1, 1, 1, 2]))
    layers = draw(st.sampled_from([None, None, [0], [1]]))
    if parts > 1 or layers is not None:
        ids = sorted(set(ids))
    n, held = len(ids), LAYERS if layers is None else 1
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    dtype = draw(st.sampled_from([np.float16, np.float32]))

    def weights() -> Any:
        return to_tensor(rng.dirichlet(np.ones(EXPERTS), (n, held)).astype(dtype))

    def ints(low: int, high: int) -> Any:
        return to_tensor(rng.integers(low, high, n).astype(np.int32))

    batch = Batch(
        step=draw(st.integers(0, 7)),
        group=draw(st.sampled_from("ab")),
        sample_ids=to_tensor(np.array(ids, np.int64)),
        losses=to_tensor(rng.random(n).astype(draw(st.sampled_from([np.float32, np.float64])))),
    )
    if draw(st.booleans()) and layers is None and parts == 1:
        scores = rng.normal(size=(2 * n, held, EXPERTS)).astype(np.float32)
        batch.raw.CopyFrom(
            routing_pb2.RawScores(
                kind=routing_pb2.SCORE_KIND_SOFTMAX_LOGITS,
                scores=to_tensor(scores),
                lengths=to_tensor(np.full(n, 2, np.int32)),
                target_mask=to_tensor(np.tile(np.array([1, rng.integers(2)], np.uint8), n)),
            )
        )
    else:
        batch.weights.CopyFrom(weights())
        if draw(st.booleans()):
            batch.target_weights.CopyFrom(weights())
    if draw(st.booleans()):
        batch.targets.CopyFrom(ints(-1, 3))
        batch.visits.CopyFrom(ints(-1, 3))
    if parts > 1 or layers is not None:
        part = draw(st.integers(0, parts - 1))
        batch.fragment.CopyFrom(routing_pb2.Fragment(layers=layers, token_part=part, token_parts=parts))
    return batch


def added(sketch: RunSketch, block: ObservationBlock) -> AddResult | str:
    try:
        return sketch.add(block, now=0.0)
    except SketchError as error:
        return error.message


def to_the_bit(rounds: list[Round]) -> list[object]:
    return [
        (one.step, one.partial, group, name, value.tobytes() if isinstance(value, np.ndarray) else value)
        for one in rounds
        for group, window in one.windows.items()
        for name in window.__dataclass_fields__
        for value in (getattr(window, name),)
    ]


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(sent=st.lists(batches(), max_size=25), ahead=st.integers(0, 4))
def test_leaving_out_changes_nothing(sent: list[Batch], ahead: int) -> None:
    """`ahead` messages are decoded before the one in hand is added: the limits they see are that old."""
    whole, thinned, restored = (RunSketch(SETTINGS) for _ in range(3))
    for sketch in (whole, thinned, restored):
        sketch.join(0, 1)
    waiting: list[tuple[Batch, ObservationBlock]] = []

    def take() -> None:
        batch, block = waiting.pop(0)
        expected = added(whole, decode_batch(batch, 0, TOPOLOGY))
        result = added(thinned, block)
        assert result == expected
        if isinstance(result, AddResult) and result.accepted:
            stored = Batch.FromString(stored_batch(batch, block))
            restored.add(decode_batch(stored, 0, STORED), now=0.0)

    for batch in sent:
        waiting.append((batch, decode_batch(batch, 0, TOPOLOGY, thinned.admission)))
        if len(waiting) > ahead:
            take()
    while waiting:
        take()
    ended = to_the_bit(whole.close_all(now=0.0))
    assert to_the_bit(thinned.close_all(now=0.0)) == ended
    assert to_the_bit(restored.close_all(now=0.0)) == ended


def test_only_what_is_wanted_is_stored_in_its_element_type() -> None:
    batch = _half(range(40))
    sketch = _full_sketch()
    block = decode_batch(batch, 0, TOPOLOGY, sketch.admission)
    stored = Batch.FromString(stored_batch(batch, block))
    ids_N = np.arange(40)
    hashes_N = sample_hash("run", "a", ids_N)
    wanted_N = np.flatnonzero(hashes_N <= hashes_N[:3].max())
    assert 0 < len(wanted_N) < 40
    assert from_tensor(stored.sample_ids).tolist() == wanted_N.tolist()
    assert from_tensor(stored.weights).dtype == np.float16
    assert np.array_equal(from_tensor(stored.weights), from_tensor(batch.weights)[wanted_N])


def test_probabilities_of_half_precision_are_read_again() -> None:
    """Their rows may sum to 0.992; what is stored is their mean in single precision."""
    scores = np.full((2, LAYERS, EXPERTS), 0.248, np.float16)
    batch = Batch(
        step=1,
        group="a",
        sample_ids=to_tensor(np.array([7])),
        losses=to_tensor(np.array([1.0])),
        raw=routing_pb2.RawScores(
            kind=routing_pb2.SCORE_KIND_SOFTMAX,
            scores=to_tensor(scores),
            lengths=to_tensor(np.array([2], np.int32)),
        ),
    )
    block = decode_batch(batch, 0, TOPOLOGY)
    data = stored_batch(batch, block)
    again = decode_batch(Batch.FromString(data), 0, STORED)
    assert np.array_equal(again.weights_NLK, block.weights_NLK)
    assert (again.tokens_N.tolist(), again.target_tokens_N.tolist()) == ([2], [2])


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -0.25, 0.9])
def test_invalid_rows_beyond_the_limit_are_refused(wrong: float) -> None:
    sketch = _full_sketch()
    ids = _beyond(sketch, 5)
    batch = _half(ids)
    weights_NLK = np.array(from_tensor(batch.weights))
    weights_NLK[3, 1, 2] = wrong
    batch.weights.CopyFrom(to_tensor(weights_NLK))
    with pytest.raises(RefusedError, match=f"sample {ids[3]}, layer 1") as refused:
        decode_batch(batch, 0, TOPOLOGY, sketch.admission)
    assert (refused.value.field, refused.value.sample_id) == ("batch.weights", ids[3])


def test_nothing_is_done_with_what_lies_beyond(monkeypatch: pytest.MonkeyPatch) -> None:
    sketch = _full_sketch()
    batch = _half(_beyond(sketch, 5))
    block = decode_batch(batch, 0, TOPOLOGY, sketch.admission)
    assert stored_batch(batch, block) == b""
    assert block.weights_NLK.shape == (0, LAYERS, EXPERTS)

    def touched(*_: object) -> None:
        raise AssertionError("the kept samples were asked")

    for name in ("rows", "admit"):
        monkeypatch.setattr(BottomK, name, touched)
    assert sketch.add(block, now=0.0) == AddResult(accepted=0, late=0, beyond=5)


def test_what_another_window_left_out_is_never_missing_unnoticed() -> None:
    """Were limits ever mixed up, the run would be taken up again from the store, not judged by too little."""
    sketch = _full_sketch()
    block = decode_batch(_half(_beyond(sketch, 5)), 0, TOPOLOGY, sketch.admission)
    with pytest.raises(ValueError, match="another window"):
        RunSketch(SETTINGS).add(block, now=0.0)


def test_counts_and_store_of_a_run(bench: Any, eventually: Any) -> None:
    """A window of 512 that is full: what lies beyond is counted, acknowledged, and not on disk."""
    bench.create()
    rank = bench.join()
    ids = np.arange(2000)
    order = ids[np.argsort(sample_hash("run", "a", ids))].tolist()
    rank.observe(_half(order[:512]))
    eventually(lambda: rank.acked == 1)
    rank.observe(_half(order[512:]))
    rank.observe(_half(order[500:700]))
    eventually(lambda: rank.acked == 3)
    observed = bench.view().health.observations
    assert (observed["accepted"], observed["beyond"], observed["rejected"]) == (524, 1488 + 188, 0)
    stored = [Batch.FromString(row.batch) for row in bench.store.batches("run")]
    assert [len(from_tensor(batch.sample_ids)) for batch in stored] == [512, 12]


def _full_sketch() -> RunSketch:
    sketch = RunSketch(SETTINGS)
    sketch.join(0, 1)
    sketch.add(decode_batch(_half(range(3)), 0, TOPOLOGY), now=0.0)
    return sketch


def _beyond(sketch: RunSketch, count: int) -> list[int]:
    """Samples that the window of step 0 does not want."""
    ids_N = np.arange(100)
    admission = sketch.admission("a", 0, ids_N)
    assert admission is not None
    return [int(i) for i in ids_N if i not in admission.wanted_N][:count]


def _half(ids: Any) -> Batch:
    n = len(ids)
    weights_NLK = np.random.default_rng(n).dirichlet(np.ones(EXPERTS), (n, LAYERS)).astype(np.float16)
    return Batch(
        step=0,
        group="a",
        sample_ids=to_tensor(np.array(ids)),
        losses=to_tensor(np.arange(n, dtype=np.float32)),
        weights=to_tensor(weights_NLK),
    )
