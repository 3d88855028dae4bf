"""From a recorded forward pass to one small tensor per batch."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pathwatch.integrations.capture.losses import recomputed_losses
from pathwatch.integrations.capture.means import TokenMeans
from pathwatch.integrations.capture.recorder import Recording
from pathwatch.integrations.capture.tokens import TokenSelection

SCALARS = 6
"""Columns before the weights: loss, real tokens, target tokens, target, surplus, plain."""
ID_BITS = 16
ID_COLUMNS = 64 // ID_BITS
"""A sample id comes in so many columns more, each a whole number that float32 holds exactly."""


class SilentRoutersError(ValueError):
    """Routed layers gave nothing in a forward pass."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What one batch gave, packed on the device, a row per sample: one copy brings it all to the host."""

    packed_NX: Tensor
    """[N, 6 + L·K, or 6 + 2·L·K with target tokens; 4 more with sample ids] float32."""
    layers: int
    experts: int
    has_losses: bool
    has_targets: bool
    """Whether target tokens were told apart from real ones."""
    has_sample_ids: bool = False


def reduce_reading(
    recording: Recording,
    logits_BSV: Tensor | None,
    *,
    losses_BS: Tensor | None = None,
    sample_ids_BM: Tensor | None = None,
) -> Reading:
    """Pack a recording and the losses of its samples; everything stays on the device.

    Args:
        recording: closed, of one forward pass.
        logits_BSV: the model's logits, aligned with the tokens, to compute losses from; None = no losses.
        losses_BS: losses of the tokens, aligned with the labels, where they are known; logits are not needed.
        sample_ids_BM: int64, ids that are only known on the device.

    Raises:
        SilentRoutersError: a router gave nothing.
        ValueError: what a router gave is not what was told of the batch.
    """
    if recording.error is not None:
        raise recording.error
    selection = recording.selection
    silent = [str(layer) for layer, means in enumerate(recording.real_LBMK) if means is None]
    if silent:
        raise SilentRoutersError(
            f"routed layers {', '.join(silent)} gave nothing in this forward pass: "
            "their modules were replaced, compiled away (CUDA graphs, torch.compile) or not called"
        )
    B, M, _ = selection.real_BMS.shape
    labels_BS = selection.labels_BS
    if labels_BS is None:
        losses_BS = None
    elif losses_BS is None and logits_BSV is not None:
        losses_BS = recomputed_losses(logits_BSV, labels_BS)
    real_BM = selection.real_BMS.sum(dim=-1)
    target_BM = selection.target_BMS.sum(dim=-1)
    nothing_BM = torch.zeros_like(real_BM)
    columns = [
        nothing_BM
        if losses_BS is None
        else TokenMeans(selection.target_BMS, whole=False)(losses_BS[:, :, None]).squeeze(-1),
        real_BM,
        target_BM,
        nothing_BM - 1 if labels_BS is None else _single_targets(selection.target_BMS, labels_BS),
        nothing_BM if selection.surplus_B is None else selection.surplus_B[:, None].expand(B, M),
        _plain(selection),
    ]
    if sample_ids_BM is not None:
        low = (1 << ID_BITS) - 1
        columns += [(sample_ids_BM >> (ID_BITS * part)) & low for part in range(ID_COLUMNS)]
    parts = [torch.stack([column.float() for column in columns], dim=-1).reshape(B * M, -1)]
    for means_LBMK in (recording.real_LBMK, recording.target_LBMK):
        kept = [means for means in means_LBMK if means is not None]
        if kept:
            parts.append(torch.stack(kept, dim=2).reshape(B * M, -1))
    return Reading(
        packed_NX=torch.cat(parts, dim=1),
        layers=len(recording.real_LBMK),
        experts=_experts(recording),
        has_losses=losses_BS is not None,
        has_targets=labels_BS is not None,
        has_sample_ids=sample_ids_BM is not None,
    )


def _plain(selection: TokenSelection) -> Tensor:
    """[B, M] plain pretraining: every token carries a loss, but for the last one where labels are shifted."""
    expected_BMS = selection.real_BMS
    if selection.shifted:
        next_BMS = torch.nn.functional.pad(expected_BMS[:, :, 1:], (0, 1), value=False)
        expected_BMS = expected_BMS & next_BMS
    return (selection.target_BMS == expected_BMS).all(dim=-1)


def _single_targets(target_BMS: Tensor, labels_BS: Tensor) -> Tensor:
    """[B, M] the label of a sample's only target token, -1 where there are none or several."""
    label_BM = (target_BMS * labels_BS[:, None, :]).sum(dim=-1)
    return label_BM.where(target_BMS.sum(dim=-1) == 1, -1)


def _experts(recording: Recording) -> int:
    return next((int(means.shape[-1]) for means in recording.real_LBMK if means is not None), 0)
