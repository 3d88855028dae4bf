"""Writes what a probe saw as trace v1 (docs/traces.md), and the truth about it as labels beside it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class LogPoint:
    """One reading of the probe. G groups, N samples per group, L layers, K experts."""

    step: int
    losses_GN: NDArray[np.float32]
    weights_GNLK: NDArray[np.float32]
    """Mean routing weights over all tokens."""
    target_weights_GNLK: NDArray[np.float32] | None = None
    """The same over the tokens that carry a loss, where these are others."""
    visits_GN: NDArray[np.int32] | None = None
    """How often each sample had been trained on before this step."""
    routers_LKD: Tensor
    truth: Mapping[str, Sequence[float]]
    """Name of a measure → one value per group, on data never trained on: for judging only."""


def save_run(
    folder: Path,
    name: str,
    groups: Sequence[str],
    points: Sequence[LogPoint],
    *,
    targets_GN: NDArray[np.int32] | None = None,
    meta: Mapping[str, object],
) -> Path:
    """Write `NAME.npz` and `labels/NAME.labels.npz` into a folder; returns the trace's path."""
    (folder / "labels").mkdir(parents=True, exist_ok=True)
    common = {
        "steps": np.array([point.step for point in points], dtype=np.int64),
        "groups": np.array(list(groups)),
    }
    # NumPy's products are exact to float32; PyTorch's need not be (`set_float32_matmul_precision`).
    routers_TLKD = np.stack([point.routers_LKD.numpy() for point in points])
    optional = {
        "target_weights": [point.target_weights_GNLK for point in points],
        "visits": [point.visits_GN for point in points],
    }
    trace = {
        **common,
        "losses": np.stack([point.losses_GN for point in points]),
        "weights": np.stack([point.weights_GNLK for point in points]).astype(np.float16),
        "gram_self": routers_TLKD @ routers_TLKD.mT,
        "gram_next": routers_TLKD[:, :-1] @ routers_TLKD[:, 1:].mT,
        "meta": json.dumps({"name": name, **meta}),
        **{key: np.stack(rows) for key, rows in optional.items() if rows[0] is not None},
    }
    if targets_GN is not None:
        trace["targets"] = targets_GN
    if "target_weights" in trace:
        trace["target_weights"] = trace["target_weights"].astype(np.float16)
    path = folder / f"{name}.npz"
    np.savez_compressed(path, **trace)
    truth = {key: np.array([point.truth[key] for point in points], np.float32) for key in points[0].truth}
    np.savez_compressed(folder / "labels" / f"{name}.labels.npz", **common, **truth)
    return path
