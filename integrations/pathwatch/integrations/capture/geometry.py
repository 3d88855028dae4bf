"""Inner products of expert embeddings."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def gram_matrices(matrices_KD: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Gram matrices of L router weights W_l: W_l·W_lᵀ [L, K, K] and W_l·W_{l+1}ᵀ [L - 1, K, K].

    float32 on the weights' device. They are all that pathway consistency needs (paper §4.2; docs/metrics.md).
    """
    weights_LKD = torch.stack([matrix.detach().float() for matrix in matrices_KD])
    return weights_LKD @ weights_LKD.mT, weights_LKD[:-1] @ weights_LKD[1:].mT
