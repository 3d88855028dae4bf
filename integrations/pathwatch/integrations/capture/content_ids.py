"""Sample ids from what a sample holds, for jobs whose samples have none."""

from __future__ import annotations

from torch import Tensor

_TOKEN, _PLACE, _FIRST, _SECOND = (
    0x9E3779B97F4A7C15 - (1 << 64),
    0xC2B2AE3D27D4EB4F - (1 << 64),
    0xBF58476D1CE4E5B9 - (1 << 64),
    0x94D049BB133111EB - (1 << 64),
)
"""Odd constants of 64 bits, as int64: those of SplitMix64 and of xxHash."""
_63_BITS = (1 << 63) - 1


def content_ids(tokens_BS: Tensor, real_BMS: Tensor) -> Tensor:
    """Ids [B, M] int64, at least 0, of samples by their real tokens in order; computed on the tokens' device.

    The same tokens give the same id wherever they stand in a row or a batch, and however they are padded.
    Sum of a hash of each token and its place (SplitMix64's finalizer), so that two different samples share an
    id with a probability of 2^-63.
    """
    place_BMS = real_BMS.cumsum(dim=-1)
    mixed_BMS = tokens_BS.long()[:, None, :] * _TOKEN + place_BMS * _PLACE
    for shift, factor in ((30, _FIRST), (27, _SECOND), (31, 1)):
        # A logical shift: int64 shifts in copies of the sign.
        mixed_BMS = (mixed_BMS ^ ((mixed_BMS >> shift) & (_63_BITS >> (shift - 1)))) * factor
    return (mixed_BMS * real_BMS).sum(dim=-1) & _63_BITS
