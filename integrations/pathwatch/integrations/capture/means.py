"""Means over the tokens of each sample."""

from __future__ import annotations

import torch
from torch import Tensor


class TokenMeans:
    """Takes the mean of [B, S, K] over the tokens of a mask [B, M, S]; zero where it has none.

    Sums are of float32, or float64 for packed rows, and never a float32 matrix product: that is rounded to
    TF32 on accelerators that are told so.
    """

    def __init__(self, mask_BMS: Tensor, *, whole: bool) -> None:
        """`whole`: M is 1 and every token is in the mask."""
        self._whole = whole
        self._shares_BMS = None if whole else mask_BMS / mask_BMS.sum(dim=-1, keepdim=True).clamp_min(1)

    def __call__(self, weights_BSK: Tensor) -> Tensor:
        """[B, M, K] float32."""
        if self._shares_BMS is None:
            return weights_BSK.mean(dim=1, keepdim=True, dtype=torch.float32)
        if self._shares_BMS.shape[1] == 1:
            return (weights_BSK * self._shares_BMS.mT).sum(dim=1, keepdim=True)
        return (self._shares_BMS.double() @ weights_BSK.double()).float()
