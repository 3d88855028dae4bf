"""Inner products of expert embeddings."""

from __future__ import annotations

import torch
from torch import Tensor

from pathwatch.integrations.capture.routers import Router


def expert_gram_matrices(routers: list[Router]) -> tuple[Tensor, Tensor]:
    """Gram matrices of the router weights: W_l·W_lᵀ [L, K, K] and W_l·W_{l+1}ᵀ [L - 1, K, K].

    float32 on the model's device. They are all that pathway consistency needs (paper §4.2; docs/metrics.md).
    """
    weights_LKD = torch.stack([router.weight.detach().float() for router in routers])
    return weights_LKD @ weights_LKD.mT, weights_LKD[:-1] @ weights_LKD[1:].mT
