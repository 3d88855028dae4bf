"""Inner products of expert embeddings."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def gram_matrices(matrices_KD: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Gram matrices of L router weights W_l: W_l·W_lᵀ [L, K, K] and W_l·W_{l+1}ᵀ [L - 1, K, K].

    float32 on the weights' device, two layers at a time, under a caller's autocast, too. They are all that
    pathway consistency needs (paper §4.2; docs/metrics.md).
    """
    own: list[Tensor] = []
    following: list[Tensor] = []
    before_KD: Tensor | None = None
    with torch.autocast(matrices_KD[0].device.type, enabled=False):
        for matrix in matrices_KD:
            weights_KD = matrix.detach().float()
            own.append(weights_KD @ weights_KD.mT)
            if before_KD is not None:
                following.append(before_KD @ weights_KD.mT)
            before_KD = weights_KD
    own_LKK = torch.stack(own)
    return own_LKK, torch.stack(following) if following else own_LKK[:0]
