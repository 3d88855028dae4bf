"""Small recorded runs made of random numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from pathwatch.server.traces import Trace


@pytest.fixture(scope="session")
def random_trace() -> Callable[..., Trace]:
    """Losses fall, sooner or later, to a level of each sample's own, with noise; keywords replace fields."""

    def make(
        seed: int = 0, *, points: int = 12, groups: int = 2, samples: int = 9, layers: int = 3, **fields: Any
    ) -> Trace:
        random = np.random.default_rng(seed)
        shape = (points, groups, samples)
        settled = random.integers(1, points, size=(groups, samples))
        high = np.arange(points)[:, None, None] < settled
        level = random.choice([0.02, 0.15, 0.6], size=(groups, samples))
        losses = level + 1.5 * high + random.uniform(0, 0.06, size=shape)
        content = {
            "name": "random",
            "steps_T": 25 * np.arange(points, dtype=np.int64),
            "groups": tuple(f"group{g}" for g in range(groups)),
            "losses_TGN": losses.astype(np.float32),
            "weights_TGNLK": random.dirichlet(np.full(4, 0.6), (*shape, layers)).astype(np.float32),
            "targets_GN": random.integers(0, 3, (groups, samples)).astype(np.int32),
            "gram_self_TLKK": np.tile(np.eye(4, dtype=np.float32), (points, layers, 1, 1)),
            "gram_next_TLKK": np.tile(np.eye(4, dtype=np.float32), (points, layers - 1, 1, 1)),
            "meta": {},
        }
        return Trace(**{**content, **fields})

    return make
