"""Messages that no client of ours sends: each with what a server must do about it.

Those of `refusable` are wrong by construction, so that nothing of them may be stored. Those of `damaged` are
valid ones with bytes changed: whether they still are is for `is_valid` to say, a judgement of its own.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from fuzz_targets import EXPERTS, LAYERS, good_batches
from google.protobuf.message import DecodeError

from pathwatch.client.tensors import to_tensor
from pathwatch.v1 import routing_pb2, tensor_pb2

Request = routing_pb2.StreamRoutingRequest
Tensor = tensor_pb2.Tensor
Change = Callable[[routing_pb2.ObservationBatch], object]

HUGE_STEP = 2**63 - 1
FLOAT32, INT64 = tensor_pb2.D_TYPE_FLOAT32, tensor_pb2.D_TYPE_INT64


@dataclass(frozen=True, slots=True)
class Hostile:
    """One message. `ends` = the stream may end over it; else it goes on, the message rejected."""

    name: str
    data: bytes
    ends: bool = False


def valid_requests(step: int) -> Iterator[Request]:
    """One valid message of every kind, for a run of LAYERS and EXPERTS."""
    for batch in good_batches():
        batch.step = step
        yield Request(batch=batch)
    rows = np.random.default_rng(step).normal(size=(LAYERS, EXPERTS, 8)).astype(np.float32)
    yield Request(
        geometry=routing_pb2.ExpertGeometry(
            step=step,
            gram_self=to_tensor(rows @ rows.swapaxes(1, 2)),
            gram_next=to_tensor(rows[:-1] @ rows[1:].swapaxes(1, 2)),
        )
    )
    yield Request(watermark=routing_pb2.Watermark(step=step))


def refusable(rng: random.Random, sequence: int, step: int) -> Hostile:
    """A message that is wrong in one of many ways, chosen at random; `step` would be a fine one."""
    name = rng.choice(list(_CASES))
    request = Request(sequence=sequence)
    batch = next(good_batches())
    batch.step = step
    request.batch.CopyFrom(batch)
    _CASES[name](request, rng)
    ends = name in _ENDING
    return Hostile(name, request.SerializeToString(), ends)


def damaged(rng: random.Random, sequence: int, step: int) -> bytes:
    """A valid message with some bytes changed, cut out, doubled, or put at an edge."""
    request = rng.choice(list(valid_requests(step)))
    request.sequence = sequence
    data = bytearray(request.SerializeToString())
    for _ in range(rng.choice([1, 1, 1, 2, 5])):
        at = rng.randrange(len(data)) if data else 0
        match rng.randrange(5):
            case 0:
                data[at : at + 1] = bytes([data[at] ^ 1 << rng.randrange(8)]) if data else b""
            case 1:
                del data[at : at + rng.randrange(1, 20)]
            case 2:
                data[at:at] = data[at : at + rng.randrange(1, 20)]
            case 3:
                data[at : at + rng.randrange(9)] = rng.choice(
                    [
                        b"\xff" * 9 + b"\x01",
                        b"\xff\xff\xff\xff\x0f",
                        bytes(8),
                        b"\x00\x00\xc0\x7f",
                        b"\x80" * 20,
                    ]
                )
            case 4:
                data[at : at + 4] = rng.randbytes(4)
    return bytes(data)


def is_valid(data: bytes) -> bool:
    """Whether a message that was taken may be: the rules of routing.proto in plain words."""
    try:
        request = Request.FromString(data)
    except DecodeError:
        return False
    match request.WhichOneof("payload"):
        case "batch":
            return _valid_batch(request.batch)
        case "geometry":
            grams = [_values(request.geometry.gram_self), _values(request.geometry.gram_next)]
            return (
                request.geometry.step >= 0
                and all(np.isfinite(gram).all() for gram in grams)
                and list(request.geometry.gram_self.shape) == [LAYERS, EXPERTS, EXPERTS]
            )
        case "watermark":
            return request.watermark.step >= 0
    return False


def _valid_batch(batch: routing_pb2.ObservationBatch) -> bool:
    n = len(batch.sample_ids.data) // 8
    layers = len(batch.fragment.layers) or LAYERS
    if not (n and batch.step >= 0 and batch.group and batch.group.isprintable()):
        return False
    if list(batch.sample_ids.shape) != [n] or batch.sample_ids.dtype != INT64:
        return False
    if batch.HasField("losses"):
        losses = _values(batch.losses)
        if len(losses) != n or not (np.isfinite(losses).all() and (losses >= 0).all()):
            return False
    for name in ("weights", "target_weights"):
        if not batch.HasField(name):  # type: ignore[arg-type]
            continue
        weights = _values(getattr(batch, name))
        if weights.size % EXPERTS:
            return False
        if weights.size != n * layers * EXPERTS and batch.weights.shape[1:2] != [0]:
            return False
        sums = weights.reshape(-1, EXPERTS).sum(axis=1)
        # Rows of samples without tokens do not matter; there are some in token parts alone.
        if batch.fragment.token_parts <= 1 and not (
            (weights >= 0).all() and np.allclose(sums, 1, atol=0.011)
        ):
            return False
    if batch.HasField("raw"):
        scores, tokens = _values(batch.raw.scores), _values(batch.raw.lengths).sum()
        return bool(np.isfinite(scores).all()) and bool(tokens * layers * EXPERTS == len(scores))
    return batch.HasField("weights")


_DTYPES = {
    tensor_pb2.D_TYPE_FLOAT32: "<f4",
    tensor_pb2.D_TYPE_FLOAT16: "<f2",
    tensor_pb2.D_TYPE_FLOAT64: "<f8",
    tensor_pb2.D_TYPE_UINT8: "u1",
    tensor_pb2.D_TYPE_INT32: "<i4",
    tensor_pb2.D_TYPE_INT64: "<i8",
}


def _values(tensor: Tensor) -> np.ndarray[Any, Any]:
    """Elements in a row; of an element type or size that is none, NaN."""
    if tensor.dtype == tensor_pb2.D_TYPE_BFLOAT16 and len(tensor.data) % 2 == 0:
        bits = np.frombuffer(tensor.data, "<u2").astype(np.uint32) << 16
        return bits.view(np.float32).astype(np.float64)
    kind = _DTYPES.get(tensor.dtype)
    fits = kind is not None and len(tensor.data) % np.dtype(kind).itemsize == 0
    if not fits or math.prod(tensor.shape) * np.dtype(kind).itemsize != len(tensor.data):
        return np.array([np.nan])
    with np.errstate(invalid="ignore"):
        return np.frombuffer(tensor.data, kind).astype(np.float64)


def _weights(values: Any) -> Tensor:
    weights = np.full((3, LAYERS, EXPERTS), 1 / EXPERTS, np.float32)
    weights[1, 0, : np.size(values)] = values
    return to_tensor(weights)


def _set(path: str, value: Any) -> Callable[[Request, random.Random], None]:
    """Put a number, text or message into a field, given as a path in the request."""

    def change(request: Request, rng: random.Random) -> None:
        *parents, last = path.split(".")
        message: Any = request
        for parent in parents:
            message = getattr(message, parent)
        if hasattr(value, "CopyFrom"):
            getattr(message, last).CopyFrom(value)
        else:
            setattr(message, last, value)

    return change


def _in(field: str, **tensor: Any) -> Callable[[Request, random.Random], None]:
    """Replace parts of a tensor of the batch."""

    def change(request: Request, rng: random.Random) -> None:
        message = getattr(request.batch, field)
        for name, value in tensor.items():
            if name == "shape":
                del message.shape[:]
                message.shape.extend(value)
            else:
                setattr(message, name, value)

    return change


def _merge(message: Any) -> Callable[[Request, random.Random], None]:
    return lambda request, rng: request.MergeFrom(message)


def _payload(**payload: Any) -> Callable[[Request, random.Random], None]:
    def change(request: Request, rng: random.Random) -> None:
        request.ClearField("batch")
        request.MergeFrom(Request(**payload))

    return change


def _raw(**fields: Any) -> Callable[[Request, random.Random], None]:
    known = {
        "kind": routing_pb2.SCORE_KIND_SOFTMAX_LOGITS,
        "scores": to_tensor(np.zeros((6, LAYERS, EXPERTS), np.float32)),
        "lengths": to_tensor(np.array([1, 2, 3], np.int32)),
    }

    def change(request: Request, rng: random.Random) -> None:
        for name in ("weights", "target_weights", "token_counts", "target_token_counts"):
            request.batch.ClearField(name)  # type: ignore[arg-type]
        request.batch.raw.CopyFrom(routing_pb2.RawScores(**(known | fields)))

    return change


def _ints(*values: int) -> Tensor:
    return to_tensor(np.array(values, np.int32))


def _unknown_fields(request: Request, rng: random.Random) -> None:
    """Groups within groups, of a field that nobody knows; and no payload that is."""
    request.ClearField("batch")
    request.MergeFromString(b"\x9b\x06" * 60 + b"\x9c\x06" * 60)


_GRAM = to_tensor(np.ones((LAYERS, EXPERTS, EXPERTS), np.float32))
_NEXT = to_tensor(np.ones((LAYERS - 1, EXPERTS, EXPERTS), np.float32))
_NAN_GRAM = to_tensor(np.full((LAYERS, EXPERTS, EXPERTS), np.nan, np.float32))

_CASES: dict[str, Callable[[Request, random.Random], None]] = {
    "2 GB in 16 bytes": _in("sample_ids", shape=[1 << 28], data=bytes(16)),
    "2 GB of weights in 16 bytes": _in("weights", shape=[1 << 26, LAYERS, EXPERTS], data=bytes(16)),
    "a shape beyond int64": _in("weights", shape=[1 << 62, 1 << 62, 4]),
    "a shape that multiplies to 0 modulo 2^64": _in("weights", shape=[1 << 32, 1 << 32, 1 << 32], data=b""),
    "a negative size": _in("weights", shape=[-3, -LAYERS, EXPERTS]),
    "no axes": _in("weights", shape=[]),
    "thousands of axes": _in("weights", shape=[1] * 9000),
    "a million axes": _in("weights", shape=[1] * 1_000_000),
    "a byte too few": _in("weights", data=bytes(3 * LAYERS * EXPERTS * 4 - 1)),
    "a byte too many": _in("weights", data=bytes(3 * LAYERS * EXPERTS * 4 + 1)),
    "another element type": _in("weights", dtype=INT64),
    "no element type": _in("losses", dtype=0),
    "an element type of tomorrow": _in("losses", dtype=77),
    "NaN": _set("batch.weights", _weights(np.nan)),
    "Inf": _set("batch.weights", _weights(np.inf)),
    "the largest float": _set("batch.weights", _weights(np.finfo(np.float32).max)),
    "a negative weight": _set("batch.weights", _weights([-0.5, 1.5, 0, 0])),
    "rows that do not sum to one": _set("batch.weights", _weights([0.1, 0.1, 0.1, 0.1])),
    "NaN in target weights": _set("batch.target_weights", _weights(np.nan)),
    "no samples": _in("sample_ids", shape=[0], data=b""),
    "one sample for three": _in("sample_ids", shape=[1], data=bytes(8)),
    "more samples than a message may hold": _in("sample_ids", shape=[16385], data=bytes(8 * 16385)),
    "a negative step": _set("batch.step", -1),
    "the last step of int64": _set("batch.step", HUGE_STEP),
    "a step beyond 2^53": _set("batch.step", 1 << 53),
    "no group": _set("batch.group", ""),
    "a group that moves the cursor": _set("batch.group", "\x1b[2Jmath"),
    "a group of two lines": _set("batch.group", "math\n2026-01-01 INFO forged"),
    "a group that reads backwards": _set("batch.group", "\u202ehtam"),
    "a group of a megabyte": _set("batch.group", "m" * 1_000_000),
    "layers twice": _set("batch.fragment", routing_pb2.Fragment(layers=[1, 1])),
    "layers backwards": _set("batch.fragment", routing_pb2.Fragment(layers=[1, 0])),
    "a layer that is none": _set("batch.fragment", routing_pb2.Fragment(layers=[2**32 - 1])),
    "thousands of layers": _set("batch.fragment", routing_pb2.Fragment(layers=[0] * 9000)),
    "a million layers": _set("batch.fragment", routing_pb2.Fragment(layers=[0] * 1_000_000)),
    "a part beyond its parts": _set("batch.fragment", routing_pb2.Fragment(token_part=7, token_parts=2)),
    "four billion parts": _set("batch.fragment", routing_pb2.Fragment(token_parts=2**32 - 1)),
    "a loss that is none": _set("batch.losses", to_tensor(np.array([1, np.nan, 1], np.float32))),
    "a loss without end": _set("batch.losses", to_tensor(np.array([1, np.inf, 1], np.float64))),
    "a negative loss": _set("batch.losses", to_tensor(np.array([1, -1, 1], np.float32))),
    "no tokens": _set("batch.token_counts", _ints(1, 0, 1)),
    "negative tokens": _set("batch.token_counts", _ints(1, -(2**31), 1)),
    "more target tokens than tokens": _set("batch.target_token_counts", _ints(1, 2**31 - 1, 1)),
    "visits below zero": _set("batch.visits", _ints(0, -2, 0)),
    "targets below minus one": _set("batch.targets", _ints(0, -2, 0)),
    "no kind of score": _raw(kind=0),
    "a kind of tomorrow": _raw(kind=77),
    "logits called probabilities": _raw(kind=routing_pb2.SCORE_KIND_SOFTMAX),
    "sigmoid scores that are all 0": _raw(kind=routing_pb2.SCORE_KIND_SIGMOID),
    "scores without end": _raw(scores=to_tensor(np.full((6, LAYERS, EXPERTS), np.inf, np.float32))),
    "lengths of another sum": _raw(lengths=_ints(1, 2, 4)),
    "lengths that overflow": _raw(lengths=_ints(2**31 - 1, 2**31 - 1, 2**31 - 1)),
    "lengths that cancel out": _raw(lengths=_ints(-(2**31), 2**31 - 1, 7)),
    "a mask of other numbers": _raw(target_mask=to_tensor(np.full(6, 7, np.uint8))),
    "raw scores with target weights": lambda request, rng: (
        _raw()(request, rng),
        request.batch.target_weights.CopyFrom(_weights(0.25)),
    )[0],
    "no routing": lambda request, rng: request.batch.ClearField("weights"),
    "geometry that is none": _payload(
        geometry=routing_pb2.ExpertGeometry(step=1, gram_self=_NAN_GRAM, gram_next=_NEXT)
    ),
    "geometry of another shape": _payload(
        geometry=routing_pb2.ExpertGeometry(step=1, gram_self=_NEXT, gram_next=_GRAM)
    ),
    "geometry of no step": _payload(
        geometry=routing_pb2.ExpertGeometry(step=-1, gram_self=_GRAM, gram_next=_NEXT)
    ),
    "geometry of the last step": _payload(
        geometry=routing_pb2.ExpertGeometry(step=HUGE_STEP, gram_self=_GRAM, gram_next=_NEXT)
    ),
    "empty geometry": _payload(geometry=routing_pb2.ExpertGeometry()),
    "a negative watermark": _payload(watermark=routing_pb2.Watermark(step=-1)),
    "the last watermark of int64": _payload(watermark=routing_pb2.Watermark(step=HUGE_STEP)),
    "another hello": _payload(hello=routing_pb2.StreamHello(run="hostile", world_size=1, session="x")),
    "nothing": lambda request, rng: request.ClearField("batch"),
    "fields that nobody knows": _unknown_fields,
    "sequence 0": _set("sequence", 0),
    "the last sequence": _set("sequence", 2**64 - 1),
    "a sequence beyond int64": _set("sequence", 2**63),
}

_ENDING = {"a million axes", "a million layers"}
"""What is refused before it is parsed, so that nobody knows its sequence."""
