"""Trace v1: a recorded training run as one `.npz` file without pickles (docs/traces.md)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pathwatch.server.config import Limits
from pathwatch.server.engine.checks import FLOAT32_TOLERANCE, HALF_TOLERANCE
from pathwatch.server.engine.decode import group_problem
from pathwatch.server.npz import NpzError, read_npz

ROW_TOLERANCE = {"float16": HALF_TOLERANCE, "float32": FLOAT32_TOLERANCE}
"""How far a row of routing weights may be from summing to one, by element type: what the server takes."""


class TraceError(ValueError):
    """A file is not a usable trace; the message is one line that names file, array and place."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """What the probe of one run saw. T steps, G groups, N samples per group, L MoE layers, K experts.

    `meta` is the file's JSON remark, never interpreted; losses that are not finite mean "no loss was seen".
    """

    name: str
    """Name of the file without its ending."""
    steps_T: NDArray[np.int64]
    """Rising strictly, >= 0."""
    groups: tuple[str, ...]
    losses_TGN: NDArray[np.float32]
    weights_TGNLK: NDArray[np.floating]
    """Mean routing weights over real tokens, float16 or float32."""
    target_weights_TGNLK: NDArray[np.floating] | None = None
    """The same over target tokens, where it differs."""
    targets_GN: NDArray[np.int32] | None = None
    """Class or token id of a sample's target tokens; -1 = none."""
    visits_TGN: NDArray[np.int32] | None = None
    """How often a sample had been trained on before; 0 = unseen, -1 = not known."""
    gram_self_TLKK: NDArray[np.float32] | None = None
    gram_next_TLKK: NDArray[np.float32] | None = None
    """[T, L-1, K, K]."""
    meta: Mapping[str, object]

    @property
    def layers(self) -> int:
        return int(self.weights_TGNLK.shape[3])

    @property
    def experts(self) -> int:
        return int(self.weights_TGNLK.shape[4])

    @property
    def samples(self) -> int:
        """Samples per group."""
        return int(self.losses_TGN.shape[2])


def load_trace(path: str | Path) -> Trace:
    """Reads and checks a trace; raises `TraceError` on anything that is not trace v1."""
    path = Path(path)
    try:
        return _checked(path.stem, read_npz(path))
    except (NpzError, TraceError) as error:
        raise TraceError(f"{path}: {error}") from None


def _checked(name: str, arrays: Mapping[str, NDArray[Any]]) -> Trace:
    for required in ("steps", "groups", "losses", "weights"):
        if required not in arrays:
            raise TraceError(f"not a trace: array `{required}` is missing")
    steps_T = _steps(arrays["steps"])
    groups = _groups(arrays["groups"])
    losses = _shaped("losses", arrays["losses"], (len(steps_T), len(groups), "N"), "f")
    if losses.shape[2] == 0:
        raise TraceError("losses: no samples; wanted at least one per group")
    _refuse(losses < 0, "losses", "is negative", groups)
    T, G, N = losses.shape
    weights = _weights("weights", arrays["weights"], (T, G, N, "L", "K"), groups)
    L, K = weights.shape[3:]
    grams = [name in arrays for name in ("gram_self", "gram_next")]
    if any(grams) and not all(grams):
        raise TraceError("gram_self and gram_next belong together, only one is there")
    return Trace(
        name=name,
        steps_T=steps_T,
        groups=groups,
        losses_TGN=losses.astype(np.float32),
        weights_TGNLK=weights,
        target_weights_TGNLK=_weights("target_weights", arrays["target_weights"], weights.shape, groups)
        if "target_weights" in arrays
        else None,
        targets_GN=_counts("targets", arrays["targets"], (G, N), groups) if "targets" in arrays else None,
        visits_TGN=_counts("visits", arrays["visits"], (T, G, N), groups) if "visits" in arrays else None,
        gram_self_TLKK=_gram("gram_self", arrays["gram_self"], (T, L, K, K)) if all(grams) else None,
        gram_next_TLKK=_gram("gram_next", arrays["gram_next"], (T, L - 1, K, K)) if all(grams) else None,
        meta=_meta(arrays.get("meta")),
    )


def _steps(array: NDArray[Any]) -> NDArray[np.int64]:
    steps_T = _shaped("steps", array, ("T",), "iu").astype(np.int64)
    if len(steps_T) == 0:
        raise TraceError("steps: empty; wanted at least one step")
    if steps_T[0] < 0 or np.any(np.diff(steps_T) <= 0):
        raise TraceError("steps: must start at 0 or above and rise strictly")
    return steps_T


def _groups(array: NDArray[Any]) -> tuple[str, ...]:
    groups = tuple(str(group) for group in _shaped("groups", array, ("G",), "U"))
    if not groups or "" in groups or len(set(groups)) != len(groups):
        raise TraceError("groups: wanted at least one name, none empty, none twice")
    for group in groups:
        if problem := group_problem(group, Limits().name_length):
            raise TraceError(f"groups: {group[:40]!a} {problem}")
    return groups


def _weights(
    name: str, array: NDArray[Any], shape: tuple[int | str, ...], groups: tuple[str, ...]
) -> NDArray[np.floating]:
    weights = _shaped(name, array, shape, "f")
    if weights.dtype.name not in ROW_TOLERANCE:
        raise TraceError(f"{name}: dtype {weights.dtype.name}; wanted float16 or float32")
    if 0 in weights.shape:
        raise TraceError(f"{name}: shape {weights.shape} holds nothing; wanted at least one layer and expert")
    _refuse(~np.isfinite(weights), name, "is not finite", groups)
    _refuse(weights < 0, name, "is negative", groups)
    off = np.abs(weights.sum(axis=-1, dtype=np.float64) - 1) > ROW_TOLERANCE[weights.dtype.name]
    _refuse(off, name, "is a row that does not sum to one", groups)
    return weights


def _counts(
    name: str, array: NDArray[Any], shape: tuple[int | str, ...], groups: tuple[str, ...]
) -> NDArray[np.int32]:
    counts = _shaped(name, array, shape, "iu")
    _refuse(counts < -1, name, "is below -1", groups)
    _refuse(counts > np.iinfo(np.int32).max, name, "does not fit int32", groups)
    return counts.astype(np.int32)


def _gram(name: str, array: NDArray[Any], shape: tuple[int | str, ...]) -> NDArray[np.float32]:
    gram = _shaped(name, array, shape, "f").astype(np.float32)
    if not np.isfinite(gram).all():
        raise TraceError(f"{name}: {np.count_nonzero(~np.isfinite(gram))} values are not finite")
    return gram


def _meta(array: NDArray[Any] | None) -> Mapping[str, object]:
    if array is None:
        return {}
    try:
        meta = json.loads(str(_shaped("meta", array, (), "U")))
    except TraceError:
        raise
    except (ValueError, RecursionError) as error:
        raise TraceError(f"meta: not JSON: {error}") from None
    if not isinstance(meta, dict):
        raise TraceError(f"meta: a JSON {type(meta).__name__}; wanted an object")
    return meta


def _shaped(name: str, array: NDArray[Any], shape: tuple[int | str, ...], kinds: str) -> NDArray[Any]:
    """The array itself, if its kind is among `kinds` and its shape is `shape` (letters = any length)."""
    if array.dtype.kind not in kinds:
        wanted = {"f": "floating point", "iu": "integers", "U": "text"}[kinds]
        raise TraceError(f"{name}: dtype {array.dtype.name}; wanted {wanted}")
    fits = array.ndim == len(shape) and all(
        isinstance(want, str) or have == want for have, want in zip(array.shape, shape, strict=True)
    )
    if not fits:
        wanted = "[" + ", ".join(str(length) for length in shape) + "]"
        raise TraceError(f"{name}: shape {list(array.shape)}; wanted {wanted}")
    return array


def _refuse(wrong: NDArray[np.bool_], name: str, what: str, groups: tuple[str, ...]) -> None:
    """Raises naming the first wrong place; axes are [T, G, N, …] or [G, N]."""
    if not wrong.any():
        return
    place = np.unravel_index(int(np.argmax(wrong)), wrong.shape)
    axes = ("step index", "group", "sample", "layer", "expert")
    letters = axes[1:] if wrong.ndim == 2 else axes
    words = [
        f"{letter} {groups[at]!r}" if letter == "group" else f"{letter} {at}"
        for letter, at in zip(letters, map(int, place), strict=False)
    ]
    raise TraceError(f"{name}: {', '.join(words)} {what} ({np.count_nonzero(wrong)} such in all)")
