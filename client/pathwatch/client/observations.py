"""What a training step says of its samples: checked and copied at once, encoded later."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from pathwatch.client.tensors import dtype_name, fill_tensor
from pathwatch.v1 import routing_pb2

if TYPE_CHECKING:
    # At run time functions import it: `pathwatch.client` loads without, and a stream needs it only then.
    import numpy as np
    from numpy.typing import ArrayLike, NDArray

_WEIGHT_DTYPES = ("float32", "float16", "uint16")
_ARRAY_OVERHEAD = 192
_PER_SAMPLE = {
    "token_counts": "int32",
    "target_token_counts": "int32",
    "targets": "int32",
    "visits": "int32",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class RawScores:
    """Per-token router scores, reduced to routing weights by the server. T = real tokens of all n samples."""

    kind: routing_pb2.ScoreKind.ValueType
    """What the scores are: logits or probabilities, softmax or sigmoid."""
    scores_TLK: ArrayLike
    """[T, L, K] float32, float16 or bfloat16 bits as uint16."""
    lengths_N: ArrayLike
    """[n] integers: tokens of each sample; they sum to T."""
    target_mask_T: ArrayLike | None = None
    """[T] 1 = the token carries a loss; None = all tokens do."""


@dataclass(frozen=True, kw_only=True)
class Observations:
    """n observations of one group at one step, owning its arrays; made by `checked`."""

    step: int
    group: str
    arrays: Mapping[str, NDArray[np.generic]]
    """Arrays of n rows by their field name in ObservationBatch."""
    raw: Mapping[str, NDArray[np.generic]]
    """Arrays by their field name in RawScores; empty when routing weights are given."""
    kind: routing_pb2.ScoreKind.ValueType
    fragment: routing_pb2.Fragment | None

    @property
    def samples(self) -> int:
        """n."""
        return len(self.arrays["sample_ids"])

    @cached_property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        return sum(array.nbytes for array in (*self.arrays.values(), *self.raw.values()))

    @property
    def array_overhead(self) -> int:
        """Bytes that the arrays take as objects, beside their numbers: much, where observations are small."""
        return _ARRAY_OVERHEAD * (len(self.arrays) + len(self.raw))

    def select(self, rows_N: NDArray[np.intp]) -> Observations:
        """The samples in these rows, copied; itself where those are all of them, in order."""
        if len(rows_N) == self.samples and bool((rows_N[1:] > rows_N[:-1]).all()):
            return self
        raw: dict[str, NDArray[np.generic]] = {}
        if self.raw:
            lengths_N = self.raw["lengths"].astype("int64")
            ends_N = lengths_N.cumsum()
            tokens = [slice(ends_N[i] - lengths_N[i], ends_N[i]) for i in rows_N.tolist()]
            for name, array in self.raw.items():
                pieces = [array[one] for one in tokens]
                raw[name] = array[rows_N] if name == "lengths" else _joined(pieces, array)
        return replace(self, arrays={name: array[rows_N] for name, array in self.arrays.items()}, raw=raw)

    def split(self, limit: int) -> Iterator[Piece]:
        """All samples in pieces, each of one sample or at most `limit` bytes. Nothing is copied yet."""
        if self.nbytes <= limit:
            yield Piece(self, 0, self.samples, self.nbytes)
            return
        first = 0
        for last, nbytes in self._ends(limit):
            yield Piece(self, first, last, nbytes)
            first = last

    def _ends(self, limit: int) -> Iterator[tuple[int, int]]:
        """Where pieces end, and the bytes of each."""
        n = self.samples
        fixed = sum(array.nbytes for array in self.arrays.values()) // n
        if not self.raw:
            rows = max(1, limit // fixed)
            for last in range(rows, n + rows, rows):
                end = min(last, n)
                yield end, fixed * (end - last + rows)
            return
        lengths_N = self.raw["lengths"]
        of_tokens = self.nbytes - fixed * n - lengths_N.nbytes
        token_bytes = of_tokens // max(1, len(self.raw["scores"]))
        fixed += lengths_N.itemsize
        nbytes = 0
        for i, length in enumerate(lengths_N.tolist()):
            of_sample = fixed + length * token_bytes
            if nbytes and nbytes + of_sample > limit:
                yield i, nbytes
                nbytes = 0
            nbytes += of_sample
        yield n, nbytes


@dataclass(frozen=True, slots=True)
class Piece:
    """Samples `first` … `last` − 1 of observations, one message."""

    of: Observations
    first: int
    last: int
    nbytes: int

    @property
    def samples(self) -> int:
        """Number of samples."""
        return self.last - self.first

    def request(self) -> routing_pb2.StreamRoutingRequest:
        """The message to send, its sequence still 0."""
        request = routing_pb2.StreamRoutingRequest()
        batch = request.batch
        batch.step = self.of.step
        batch.group = self.of.group
        for name, array in self.of.arrays.items():
            fill_tensor(getattr(batch, name), array[self.first : self.last])
        if self.of.raw:
            batch.raw.kind = self.of.kind
            lengths_N = self.of.raw["lengths"].astype("int64")
            start, end = int(lengths_N[: self.first].sum()), int(lengths_N[: self.last].sum())
            for name, array in self.of.raw.items():
                rows = array[self.first : self.last] if name == "lengths" else array[start:end]
                fill_tensor(getattr(batch.raw, name), rows)
        if self.of.fragment is not None:
            batch.fragment.CopyFrom(self.of.fragment)
        return request


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """Inner products of router rows at a step, owning its arrays; made by `checked_geometry`."""

    step: int
    gram_self_LKK: NDArray[np.float32]
    gram_next_LKK: NDArray[np.float32]

    @property
    def nbytes(self) -> int:
        """Bytes of both arrays."""
        return self.gram_self_LKK.nbytes + self.gram_next_LKK.nbytes

    def request(self) -> routing_pb2.StreamRoutingRequest:
        """The message to send, its sequence still 0."""
        request = routing_pb2.StreamRoutingRequest()
        request.geometry.step = self.step
        fill_tensor(request.geometry.gram_self, self.gram_self_LKK)
        fill_tensor(request.geometry.gram_next, self.gram_next_LKK)
        return request


def checked(
    *,
    step: int,
    group: str,
    sample_ids: ArrayLike,
    weights: ArrayLike | None,
    raw: RawScores | None,
    losses: ArrayLike | None,
    target_weights: ArrayLike | None,
    layers: Sequence[int] | None,
    token_part: int,
    token_parts: int,
    **per_sample: ArrayLike | None,
) -> Observations:
    """Observations that own copies of the arrays given; their values are left to the server to judge.

    Raises:
        ValueError, TypeError: an argument of a wrong shape or type, named.
    """
    if not group:
        raise ValueError("group is empty")
    if step < 0:
        raise ValueError(f"step is {step}, must not be negative")
    if (weights is None) == (raw is None):
        raise ValueError("give exactly one of weights and raw")
    if target_weights is not None and weights is None:
        raise ValueError(
            "target_weights goes with weights only; mark target tokens of raw scores in its target_mask_T"
        )
    sample_ids_N = _integers("sample_ids", sample_ids, "int64")
    n = len(sample_ids_N)
    arrays: dict[str, NDArray[Any]] = {"sample_ids": sample_ids_N}
    if losses is not None:
        arrays["losses"] = _of_length("losses", _floats("losses", losses, ("float32", "float64"), 1), n)
    for name, values in per_sample.items():
        if values is not None:
            arrays[name] = _of_length(name, _integers(name, values, _PER_SAMPLE[name]), n)
    if weights is not None:
        arrays["weights"] = _of_length("weights", _floats("weights", weights, _WEIGHT_DTYPES, 3), n)
    if target_weights is not None:
        arrays["target_weights"] = _floats("target_weights", target_weights, _WEIGHT_DTYPES, 3)
        if arrays["target_weights"].shape != arrays["weights"].shape:
            shapes = f"{arrays['target_weights'].shape} and {arrays['weights'].shape}"
            raise ValueError(f"target_weights and weights have different shapes: {shapes}")
    return Observations(
        step=step,
        group=group,
        arrays=arrays,
        raw={} if raw is None else _raw_arrays(raw, n),
        kind=routing_pb2.SCORE_KIND_UNSPECIFIED if raw is None else raw.kind,
        fragment=_fragment(layers, token_part, token_parts),
    )


def checked_geometry(*, step: int, gram_self: ArrayLike, gram_next: ArrayLike) -> Geometry:
    """Inner products of router rows, W_l·W_lᵀ [L, K, K] and W_l·W_{l+1}ᵀ [L − 1, K, K], copied.

    Raises:
        ValueError, TypeError: wrong shapes or types.
    """
    if step < 0:
        raise ValueError(f"step is {step}, must not be negative")
    gram_self_LKK = _floats("gram_self", gram_self, ("float32",), 3)
    gram_next_LKK = _floats("gram_next", gram_next, ("float32",), 3)
    layers, experts, columns = gram_self_LKK.shape
    if layers == 0 or experts != columns or gram_next_LKK.shape != (layers - 1, experts, experts):
        shapes = f"{gram_self_LKK.shape} and {gram_next_LKK.shape}"
        raise ValueError(f"gram_self and gram_next must be [L, K, K] and [L − 1, K, K], not {shapes}")
    return Geometry(step=step, gram_self_LKK=gram_self_LKK, gram_next_LKK=gram_next_LKK)


def _joined(pieces: Sequence[NDArray[Any]], like: NDArray[Any]) -> NDArray[Any]:
    import numpy as np

    return np.concatenate(pieces) if pieces else like[:0]


def _raw_arrays(raw: RawScores, n: int) -> dict[str, NDArray[np.generic]]:
    scores_TLK = _floats("raw.scores_TLK", raw.scores_TLK, _WEIGHT_DTYPES, 3)
    lengths_N = _of_length("raw.lengths_N", _integers("raw.lengths_N", raw.lengths_N, "int32"), n)
    tokens = len(scores_TLK)
    if (lengths_N < 0).any() or int(lengths_N.sum(dtype="int64")) != tokens:
        raise ValueError(f"raw.lengths_N must be counts that sum to the {tokens} tokens of raw.scores_TLK")
    arrays: dict[str, NDArray[np.generic]] = {"scores": scores_TLK, "lengths": lengths_N}
    if raw.target_mask_T is not None:
        mask_T = _integers("raw.target_mask_T", raw.target_mask_T, "uint8")
        arrays["target_mask"] = _of_length("raw.target_mask_T", mask_T, tokens)
    return arrays


def _fragment(layers: Sequence[int] | None, token_part: int, token_parts: int) -> routing_pb2.Fragment | None:
    if layers is None and token_parts <= 1:
        return None
    return routing_pb2.Fragment(layers=layers, token_part=token_part, token_parts=token_parts)


def _integers(name: str, values: ArrayLike, dtype: str) -> NDArray[Any]:
    import numpy as np

    array = np.asarray(values)
    if array.ndim != 1:
        raise ValueError(f"{name} must have one axis, not shape {array.shape}")
    if array.size and array.dtype.kind not in "iub":
        raise TypeError(f"{name} must be integers, not {array.dtype}")
    if array.dtype == dtype:
        return _copy(array)
    converted: NDArray[Any] = array.astype(dtype)
    if (converted != array).any():
        raise ValueError(f"{name} has values that {dtype} cannot hold")
    return converted


def _floats(name: str, values: ArrayLike, dtypes: Sequence[str], ndim: int) -> NDArray[Any]:
    """A copy, of its own element type where `dtypes` has it, else of the first of them."""
    import numpy as np

    array = np.asarray(values)
    if array.ndim != ndim:
        raise ValueError(f"{name} must have {ndim} axes, not shape {array.shape}")
    if dtype_name(array.dtype) in dtypes:
        return _copy(array)
    if array.dtype.kind != "f":
        raise TypeError(f"{name} must be {', '.join(dtypes)}, not {array.dtype}")
    return array.astype(dtypes[0], order="C")


def _copy(array: NDArray[Any]) -> NDArray[Any]:
    """A copy made without letting go of the interpreter, as NumPy's own is; to get it back may take 5 ms."""
    import numpy as np

    return np.ndarray(array.shape, array.dtype, array.tobytes())


def _of_length(name: str, array: NDArray[Any], n: int) -> NDArray[Any]:
    if len(array) != n:
        raise ValueError(f"{name} has {len(array)} rows, expected {n}")
    return array
