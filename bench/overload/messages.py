"""Observations that look like those of a mixture-of-experts model, ready to be sent again and again."""

from __future__ import annotations

import numpy as np

from pathwatch.client.tensors import to_tensor
from pathwatch.v1 import routing_pb2, run_pb2

LAYERS, EXPERTS = 16, 64
"""Those of OLMoE-1B-7B."""


def topology() -> run_pb2.Topology:
    """Shape of the observations."""
    return run_pb2.Topology(layers=LAYERS, experts=EXPERTS)


def batch(group: str, *, n: int, first_id: int = 0, loss: float = 2.0) -> routing_pb2.ObservationBatch:
    """n observations of about 2 KB each (float16), to be given a step."""
    rng = np.random.default_rng([n, first_id, *group.encode()])
    weights_NLK = rng.dirichlet(np.full(EXPERTS, 0.1), (n, LAYERS)).astype(np.float16)
    return routing_pb2.ObservationBatch(
        group=group,
        sample_ids=to_tensor(np.arange(first_id, first_id + n)),
        losses=to_tensor(np.full(n, loss, np.float32)),
        weights=to_tensor(weights_NLK),
    )
