"""Golden cases, windows and routing weights for the tests of the metrics."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pathwatch.server.metrics.window import WindowArrays

GOLDEN = Path(__file__).parents[2] / "data" / "golden"


@dataclass(frozen=True)
class GoldenCase:
    """Inputs, and what the definitions give for them (computed outside this project)."""

    inputs: Mapping[str, NDArray[Any]]
    expected: Mapping[str, Any]


@pytest.fixture(params=range(4), ids=lambda number: f"case{number}")
def golden(request: pytest.FixtureRequest) -> GoldenCase:
    with np.load(GOLDEN / f"case{request.param}.npz") as file:
        inputs = {name: file[name] for name in file.files}
    return GoldenCase(inputs, json.loads((GOLDEN / f"case{request.param}.json").read_text()))


@pytest.fixture(scope="session")
def make_weights() -> Callable[..., NDArray[np.float32]]:
    """Random routing weights [n, layers, experts] around a common preference; higher noise = less alike."""

    def make(n: int, layers: int, experts: int, *, seed: int = 0, noise: float = 1.0) -> NDArray[np.float32]:
        generator = np.random.default_rng(seed)
        logits = generator.normal(size=(1, layers, experts))
        logits = logits + noise * generator.normal(size=(n, layers, experts))
        weights = np.exp(logits)
        return (weights / weights.sum(axis=-1, keepdims=True)).astype(np.float32)

    return make


@pytest.fixture(scope="session")
def make_window() -> Callable[..., WindowArrays]:
    """A window of given routing weights; losses 1, 2, 3, … unless told."""

    def make(weights_NLK: NDArray[np.float32], *, group: str = "group", **arrays: Any) -> WindowArrays:
        n = len(weights_NLK)
        losses_N = arrays.pop("losses_N", np.arange(1.0, n + 1))
        return WindowArrays(
            group=group,
            first_step=100,
            step=100,
            sample_ids_N=np.arange(n),
            losses_N=losses_N,
            weights_NLK=weights_NLK,
            tokens_N=np.ones(n, dtype=np.int64),
            **arrays,
        )

    return make
