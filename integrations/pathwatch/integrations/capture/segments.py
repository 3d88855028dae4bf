"""Packed sequences: which sample of its row a token belongs to."""

from __future__ import annotations

import torch
from torch import Tensor


def segment_ids_of_positions(position_ids_BS: Tensor, attention_mask_BS: Tensor | None) -> Tensor:
    """Segment ids [B, S] of rows in which each sample's positions begin at 0; padding gets 0.

    Args:
        position_ids_BS: [B, S], or [1, S] for all rows, as flash attention takes them for packed sequences.
        attention_mask_BS: [B, S] 0 = padding, whose positions mean nothing; None = no padding.
    """
    real_BS = torch.ones_like(position_ids_BS, dtype=torch.bool)
    if attention_mask_BS is not None:
        position_ids_BS = position_ids_BS.expand_as(attention_mask_BS)
        real_BS = attention_mask_BS != 0
    # A row may begin in the middle of a sample: its first real token begins a segment in any case.
    begins_BS = real_BS & ((position_ids_BS == 0) | (real_BS.cumsum(dim=1) == 1))
    return begins_BS.cumsum(dim=1) * real_BS


def segment_ids_of_offsets(offsets: Tensor, length: int) -> Tensor:
    """Segment ids [1, S] of one row of `length` tokens, from cumulative lengths 0, n1, n1 + n2, ….

    Tokens after the last offset get 0.
    """
    places_S = torch.arange(length, device=offsets.device, dtype=offsets.dtype)
    before_S = torch.searchsorted(offsets[1:].contiguous(), places_S, right=True)
    return ((before_S + 1) * (before_S < len(offsets) - 1))[None]
