"""What tests of the server share."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from pathwatch.client.tensors import to_tensor
from pathwatch.v1 import routing_pb2

Eventually = Callable[[Callable[[], Any]], Any]
MakeBatch = Callable[..., routing_pb2.ObservationBatch]


@pytest.fixture
def eventually() -> Eventually:
    """Waits until a condition holds and returns its value; fails after a minute."""

    def wait(condition: Callable[[], Any]) -> Any:
        deadline = time.monotonic() + 60
        while not (value := condition()):
            assert time.monotonic() < deadline, "it did not happen within a minute"
            time.sleep(0.005)
        return value

    return wait


@pytest.fixture
def make_batch() -> MakeBatch:
    """Valid observations: the same arguments give the same batch; the loss falls as steps pass."""

    def make(
        step: int,
        group: str = "math",
        *,
        n: int = 8,
        layers: int = 2,
        experts: int = 4,
        first_id: int = 0,
        loss: float | None = None,
        dtype: type[np.floating] = np.float32,
    ) -> routing_pb2.ObservationBatch:
        rng = np.random.default_rng([step, len(group), *group.encode(), first_id])
        weights_NLK = rng.dirichlet(np.ones(experts), size=(n, layers)).astype(dtype)
        mean = 3.0 / (1 + step) if loss is None else loss
        return routing_pb2.ObservationBatch(
            step=step,
            group=group,
            sample_ids=to_tensor(np.arange(first_id, first_id + n)),
            losses=to_tensor((mean * rng.uniform(0.9, 1.1, n)).astype(np.float32)),
            weights=to_tensor(weights_NLK),
            targets=to_tensor(rng.integers(0, 3, n, dtype=np.int32)),
            visits=to_tensor(np.ones(n, dtype=np.int32)),
        )

    return make
