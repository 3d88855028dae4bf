"""Messages of a rank as arrays, refused where they are wrong."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TypeVar, overload

import numpy as np
from numpy.typing import NDArray

from pathwatch.server.config import Limits
from pathwatch.server.engine.checks import (
    FLOAT32_TOLERANCE,
    HALF_TOLERANCE,
    check_distributions,
    check_rows,
    check_samples,
    check_step,
)
from pathwatch.server.engine.decode_one import decode_one
from pathwatch.server.engine.refusal import LimitError
from pathwatch.server.engine.tensors import WEIGHTS, invalid, to_array, wire_array
from pathwatch.server.engine.weights import read_weights
from pathwatch.server.metrics.routing import ScoreKind, routing_weights
from pathwatch.server.metrics.window import Geometry
from pathwatch.server.sketch.admission import Admit
from pathwatch.server.sketch.observations import ObservationBlock
from pathwatch.v1 import routing_pb2, run_pb2, tensor_pb2

T = TypeVar("T", bound=np.generic)

INT32 = (tensor_pb2.D_TYPE_INT32,)
INT64 = (tensor_pb2.D_TYPE_INT64,)
FLOAT32 = (tensor_pb2.D_TYPE_FLOAT32,)
LOSSES = (tensor_pb2.D_TYPE_FLOAT32, tensor_pb2.D_TYPE_FLOAT64)
UINT8 = (tensor_pb2.D_TYPE_UINT8,)


@dataclass(frozen=True, slots=True, kw_only=True)
class Topology:
    """Shape of the routing weights of a run, and the bounds of its messages."""

    layers: int
    experts: int
    limits: Limits
    float32_tolerance: float = FLOAT32_TOLERANCE
    """How far from one a row of weights of single precision may sum."""


def stored_topology(config: run_pb2.RunConfig) -> Topology:
    """For messages that were acknowledged: bounds that are tighter today do not hold for them."""
    return Topology(
        layers=config.topology.layers,
        experts=config.topology.experts,
        limits=Limits(samples_per_message=sys.maxsize, name_length=sys.maxsize),
        # Means of scores that came in half precision are stored in single.
        float32_tolerance=2 * HALF_TOLERANCE,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Routing:
    """Counts are of all samples of the batch, weights of those wanted."""

    weights_NLK: NDArray[np.float32]
    target_weights_NLK: NDArray[np.float32] | None
    tokens_N: NDArray[np.int64]
    target_tokens_N: NDArray[np.int64]


def group_problem(group: str, most: int) -> str | None:
    """What is wrong with a group's name of at most `most` characters; None = nothing."""
    if not group:
        return "is empty; name the data group"
    if len(group) > most or not group.isprintable():
        return f"must be 1 to {most} printable characters"
    return None


def decode_batch(
    batch: routing_pb2.ObservationBatch, attempt: int, topology: Topology, admit: Admit | None = None
) -> ObservationBlock:
    """The observations of a batch, without those that `admit` leaves out; nothing is done with these but to
    check them. Raises RefusedError naming field and sample, wanted or not.
    """
    check_step("batch.step", batch.step)
    if problem := group_problem(batch.group, topology.limits.name_length):
        raise invalid("batch.group", problem)
    one = decode_one(
        batch,
        attempt,
        layers=topology.layers,
        experts=topology.experts,
        float32_tolerance=topology.float32_tolerance,
        admit=admit,
    )
    return _decode_many(batch, attempt, topology, admit) if one is None else one


# What is no number is looked for below; NumPy's warnings of it would fill the log.
@np.errstate(invalid="ignore", over="ignore")
def _decode_many(
    batch: routing_pb2.ObservationBatch, attempt: int, topology: Topology, admit: Admit | None
) -> ObservationBlock:
    """Any number of observations or fragments."""
    ids_N = to_array(batch.sample_ids, "batch.sample_ids", dtypes=INT64, shape=[None], axes="[n]")
    n = len(ids_N)
    if n == 0:
        raise invalid("batch.sample_ids", "is empty; a batch holds at least one observation")
    if n > topology.limits.samples_per_message:
        raise LimitError(
            "samples_per_message",
            f"{n} observations; at most {topology.limits.samples_per_message} go in one batch: split it",
            "batch.sample_ids",
        )
    sample_ids_N = ids_N.astype(np.int64)
    layers = _layers(batch, topology)
    token_parts = max(batch.fragment.token_parts, 1)
    if batch.fragment.token_part >= token_parts:
        raise invalid(
            "batch.fragment.token_part",
            f"is {batch.fragment.token_part}; with token_parts {token_parts} it must be below",
        )
    admission = admit(batch.group, batch.step, sample_ids_N) if admit else None
    wanted_N = None if admission is None else admission.wanted_N
    routing = _routing(
        batch, sample_ids_N, topology.layers if layers is None else len(layers), topology, wanted_N
    )
    if token_parts == 1:
        check_samples(
            "batch.target_token_counts",
            routing.target_tokens_N >= 1,
            sample_ids_N,
            "no target token; leave such samples out",
        )
    return ObservationBlock(
        attempt=attempt,
        step=batch.step,
        group=batch.group,
        sample_ids_N=_rows(sample_ids_N, wanted_N),
        losses_N=_rows(_losses(batch, sample_ids_N), wanted_N),
        tokens_N=_rows(routing.tokens_N, wanted_N),
        target_tokens_N=_rows(routing.target_tokens_N, wanted_N),
        weights_NLK=routing.weights_NLK,
        target_weights_NLK=routing.target_weights_NLK,
        targets_N=_rows(_integers(batch, "targets", sample_ids_N, least=-1), wanted_N),
        visits_N=_rows(_integers(batch, "visits", sample_ids_N, least=-1), wanted_N),
        layers=layers,
        token_part=batch.fragment.token_part,
        token_parts=token_parts,
        admission=admission,
    )


def decode_geometry(message: routing_pb2.ExpertGeometry, topology: Topology) -> Geometry:
    """The inner products of expert embeddings. Raises RefusedError naming the field."""
    check_step("geometry.step", message.step)
    grams = []
    for name, layers in (("gram_self", topology.layers), ("gram_next", topology.layers - 1)):
        gram_LKK = to_array(
            getattr(message, name),
            f"geometry.{name}",
            dtypes=FLOAT32,
            shape=[layers, topology.experts, topology.experts],
            axes="[L, K, K]" if name == "gram_self" else "[L - 1, K, K]",
        ).astype(np.float32)
        if not np.isfinite(gram_LKK).all():
            layer = int(np.argwhere(~np.isfinite(gram_LKK))[0][0])
            raise invalid(f"geometry.{name}", f"layer {layer} has NaN or Inf")
        grams.append(gram_LKK)
    gram_self_LKK, gram_next_LKK = grams
    if (np.diagonal(gram_self_LKK, axis1=1, axis2=2) < 0).any():
        raise invalid("geometry.gram_self", "has a negative squared length on the diagonal; send W_l · W_lᵀ")
    return Geometry(step=message.step, gram_self_LKK=gram_self_LKK, gram_next_LKK=gram_next_LKK)


def _layers(batch: routing_pb2.ObservationBatch, topology: Topology) -> tuple[int, ...] | None:
    """Layers held; None = all, () = only losses."""
    held = len(batch.fragment.layers)
    if held > topology.layers:
        raise invalid(
            "batch.fragment.layers", f"holds {held} layers; the run has {topology.layers}, each is named once"
        )
    layers = tuple(batch.fragment.layers)
    if not layers:
        shape = batch.weights.shape
        return () if batch.HasField("fragment") and len(shape) == 3 and shape[1] == 0 else None
    if any(a >= b for a, b in pairwise(layers)) or layers[-1] >= topology.layers:
        raise invalid(
            "batch.fragment.layers",
            f"{list(layers)} must ascend and stay below {topology.layers}, the layers of the run",
        )
    return None if len(layers) == topology.layers else layers


def _routing(
    batch: routing_pb2.ObservationBatch,
    sample_ids_N: NDArray[np.int64],
    layers: int,
    topology: Topology,
    wanted_N: NDArray[np.intp] | None,
) -> _Routing:
    match batch.WhichOneof("routing"):
        case "weights":
            return _reduced(batch, sample_ids_N, layers, topology, wanted_N)
        case "raw":
            raw = _raw(batch, sample_ids_N, layers, topology.experts)
            return replace(
                raw,
                weights_NLK=_rows(raw.weights_NLK, wanted_N),
                target_weights_NLK=_rows(raw.target_weights_NLK, wanted_N),
            )
    raise invalid("batch.routing", "is missing; send weights or raw scores")


def _reduced(
    batch: routing_pb2.ObservationBatch,
    sample_ids_N: NDArray[np.int64],
    layers: int,
    topology: Topology,
    wanted_N: NDArray[np.intp] | None,
) -> _Routing:
    # A part of a sample's tokens may hold padding alone.
    least = 0 if batch.fragment.token_parts > 1 else 1
    tokens_N = _integers(batch, "token_counts", sample_ids_N, least=least)
    if tokens_N is None:
        tokens_N = np.ones(len(sample_ids_N), dtype=np.int32)
    target_tokens_N = _integers(batch, "target_token_counts", sample_ids_N, least=0)
    if target_tokens_N is None:
        target_tokens_N = tokens_N
    check_samples(
        "batch.target_token_counts",
        target_tokens_N <= tokens_N,
        sample_ids_N,
        "more target tokens than tokens",
    )

    def read(tensor: tensor_pb2.Tensor, name: str, counts_N: NDArray[np.int32]) -> NDArray[np.float32]:
        return read_weights(
            tensor,
            f"batch.{name}",
            sample_ids_N,
            layers=layers,
            experts=topology.experts,
            empty_N=counts_N == 0,
            wanted_N=wanted_N,
            float32_tolerance=topology.float32_tolerance,
        )

    return _Routing(
        weights_NLK=read(batch.weights, "weights", tokens_N),
        target_weights_NLK=(
            read(batch.target_weights, "target_weights", target_tokens_N)
            if batch.HasField("target_weights")
            else None
        ),
        tokens_N=tokens_N.astype(np.int64),
        target_tokens_N=target_tokens_N.astype(np.int64),
    )


def _raw(
    batch: routing_pb2.ObservationBatch, sample_ids_N: NDArray[np.int64], layers: int, experts: int
) -> _Routing:
    raw = batch.raw
    for name in ("target_weights", "token_counts", "target_token_counts"):
        if batch.HasField(name):
            raise invalid(
                f"batch.{name}", "goes with `weights` only; raw scores carry lengths and target_mask"
            )
    try:
        kind = ScoreKind(raw.kind)
    except ValueError:
        say = f"is {raw.kind}; say whether scores are logits or probabilities"
        raise invalid("batch.raw.kind", say) from None
    scores_TLK = wire_array(
        raw.scores, "batch.raw.scores", dtypes=WEIGHTS, shape=[None, layers, experts], axes="[T, L, K]"
    )
    lengths_N = to_array(
        raw.lengths, "batch.raw.lengths", dtypes=INT32, shape=[len(sample_ids_N)], axes="[n]"
    ).astype(np.int64)
    check_samples("batch.raw.lengths", lengths_N >= 1, sample_ids_N, "fewer than 1 token")
    if int(lengths_N.sum()) != len(scores_TLK):
        raise invalid(
            "batch.raw.lengths", f"sum to {int(lengths_N.sum())}, but scores hold {len(scores_TLK)} tokens"
        )
    mask_T = None
    if raw.HasField("target_mask"):
        mask_T = to_array(
            raw.target_mask, "batch.raw.target_mask", dtypes=UINT8, shape=[len(scores_TLK)], axes="[T]"
        )
        if not np.isin(mask_T, (0, 1)).all():
            raise invalid("batch.raw.target_mask", "holds values other than 0 and 1")

    def check() -> None:
        values_TLK = to_array(
            raw.scores, "batch.raw.scores", dtypes=WEIGHTS, shape=scores_TLK.shape, axes="[T, L, K]"
        ).astype(np.float32, copy=False)
        _check_scores(values_TLK, kind, raw.scores.dtype, np.repeat(sample_ids_N, lengths_N))

    is_logits = kind in (ScoreKind.SOFTMAX_LOGITS, ScoreKind.SIGMOID_LOGITS)
    if not is_logits:
        check()
    reduced = routing_weights(scores_TLK, kind, lengths_N, mask_T)
    if is_logits and not np.isfinite(reduced.weights_NLK).all():
        check()  # any finite number may be a logit, and one that is none shows in its sample's weights
    targets_NLK = reduced.target_weights_NLK
    return _Routing(
        weights_NLK=reduced.weights_NLK.astype(np.float32),
        target_weights_NLK=None if targets_NLK is None else targets_NLK.astype(np.float32),
        tokens_N=lengths_N,
        target_tokens_N=reduced.target_tokens_N,
    )


def _check_scores(
    scores_TLK: NDArray[np.float32], kind: ScoreKind, dtype: int, sample_ids_T: NDArray[np.int64]
) -> None:
    field = "batch.raw.scores"
    check_rows(field, np.isfinite(scores_TLK), sample_ids_T, "NaN or Inf")
    match kind.name:
        case "SOFTMAX":
            check_distributions(field, scores_TLK, dtype, sample_ids_T)
        case "SIGMOID":
            fine_TLK = (scores_TLK >= 0) & (scores_TLK <= 1)
            check_rows(field, fine_TLK, sample_ids_T, "sigmoid scores outside [0, 1]; are these logits?")
            positive_TL = scores_TLK.sum(axis=-1) > 0
            check_rows(field, positive_TL, sample_ids_T, "sigmoid scores that are all 0")


def _losses(
    batch: routing_pb2.ObservationBatch, sample_ids_N: NDArray[np.int64]
) -> NDArray[np.float64] | None:
    if not batch.HasField("losses"):
        return None
    losses_N = to_array(
        batch.losses, "batch.losses", dtypes=LOSSES, shape=[len(sample_ids_N)], axes="[n]"
    ).astype(np.float64)
    check_samples("batch.losses", np.isfinite(losses_N), sample_ids_N, "NaN or Inf as loss")
    check_samples("batch.losses", losses_N >= 0, sample_ids_N, "a negative loss")
    return losses_N


def _integers(
    batch: routing_pb2.ObservationBatch, name: str, sample_ids_N: NDArray[np.int64], *, least: int
) -> NDArray[np.int32] | None:
    if not batch.HasField(name):  # type: ignore[arg-type]
        return None
    field = f"batch.{name}"
    values_N = to_array(
        getattr(batch, name), field, dtypes=INT32, shape=[len(sample_ids_N)], axes="[n]"
    ).astype(np.int32)
    check_samples(field, values_N >= least, sample_ids_N, f"a value below {least}")
    return values_N


@overload
def _rows(values: NDArray[T], wanted_N: NDArray[np.intp] | None) -> NDArray[T]: ...
@overload
def _rows(values: NDArray[T] | None, wanted_N: NDArray[np.intp] | None) -> NDArray[T] | None: ...
def _rows(values: NDArray[T] | None, wanted_N: NDArray[np.intp] | None) -> NDArray[T] | None:
    """The entries that are wanted; None = all."""
    return values if values is None or wanted_N is None else values[wanted_N]
