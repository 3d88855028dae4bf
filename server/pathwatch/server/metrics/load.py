"""How evenly experts are used: routing entropy (paper §E.5) and expert load."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pathwatch.server.metrics.arrays import Floats, layer_blocks


def routing_entropy(weights_NLK: Floats) -> float:
    """Mean over samples and layers of −Σ_k g ln g, nats, 0·ln 0 = 0; 0 = one expert, ln K = all alike.

    Of large models (`precision`) good to 1e-6, relatively.
    """
    n, layers, _ = weights_NLK.shape
    total = 0.0
    for block_ND in layer_blocks(weights_NLK):
        # Where a weight is 0 the logarithm only has to be finite.
        logs_ND = np.maximum(block_ND, np.finfo(block_ND.dtype).smallest_normal)
        np.log(logs_ND, out=logs_ND)
        total -= float(np.vecdot(block_ND, logs_ND).sum(dtype=np.float64))
    return total / float(n * layers)


def expert_load_max_ratio(weights_NLK: Floats) -> NDArray[np.float64]:
    """Largest expert load of each layer [L], divided by the mean load; 1 = even, K = one expert only.

    An expert's load is its mean routing weight over the samples.
    """
    load_LK = weights_NLK.mean(axis=0, dtype=np.float64)
    ratio_L: NDArray[np.float64] = load_LK.max(axis=-1) / load_LK.mean(axis=-1)
    return ratio_L
