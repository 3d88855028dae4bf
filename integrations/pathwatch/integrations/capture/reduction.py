"""From a recorded forward pass to one small tensor per batch, and from its host copy to arrays."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from pathwatch.integrations.capture.recorder import Recording
from pathwatch.integrations.capture.tokens import IGNORED_LABEL, TokenSelection

_SCALARS = 4
"""Columns of a packed reading before the weights: loss, real tokens, target tokens, target."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What one batch gave, packed on the device, a row per sample: one copy brings it all to the host."""

    packed_NX: Tensor
    """[N, 4 + L·K, or 4 + 2·L·K with target tokens] float32."""
    layers: int
    experts: int
    has_losses: bool
    has_targets: bool
    """Whether target tokens were told apart from real ones."""
    shifted: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class HostReading:
    """A reading on the host; float32, counts and targets int32."""

    weights_NLK: Tensor
    """Mean routing weights over real tokens."""
    target_weights_NLK: Tensor | None
    """The same over target tokens; None where they are the same tokens."""
    losses_N: Tensor | None
    """Mean loss over target tokens, nats."""
    tokens_N: Tensor
    target_tokens_N: Tensor
    targets_N: Tensor | None
    """Label of the samples' only target token; -1 where there are several."""


def reduce_reading(recording: Recording, logits_BSV: Tensor | None) -> Reading:
    """Pack a recording and the losses of its samples; everything stays on the device.

    Args:
        recording: closed, of one forward pass.
        logits_BSV: the model's logits, aligned with the tokens; None = no losses.

    Raises:
        ValueError: a router was silent.
    """
    if recording.error is not None:
        raise recording.error
    selection = recording.selection
    silent = [str(layer) for layer, means in enumerate(recording.real_LBMK) if means is None]
    if silent:
        raise ValueError(
            f"routed layers {', '.join(silent)} gave nothing in this forward pass: "
            "their modules were replaced, compiled away (CUDA graphs, torch.compile) or not called"
        )
    B, M, _ = selection.real_BMS.shape
    labels_BS = selection.labels_BS
    real_BM = selection.real_BMS.sum(dim=-1)
    target_BM = selection.target_BMS.sum(dim=-1)
    columns = [
        torch.zeros_like(real_BM)
        if labels_BS is None or logits_BSV is None
        else _losses(selection, logits_BSV),
        real_BM,
        target_BM,
        torch.full_like(real_BM, -1)
        if labels_BS is None
        else _single_targets(selection.target_BMS, labels_BS),
    ]
    parts = [torch.stack([column.float() for column in columns], dim=-1).reshape(B * M, _SCALARS)]
    for means_LBMK in (recording.real_LBMK, recording.target_LBMK):
        kept = [means for means in means_LBMK if means is not None]
        if kept:
            parts.append(torch.stack(kept, dim=2).reshape(B * M, -1))
    return Reading(
        packed_NX=torch.cat(parts, dim=1),
        layers=len(recording.real_LBMK),
        experts=_experts(recording),
        has_losses=labels_BS is not None and logits_BSV is not None,
        has_targets=labels_BS is not None,
        shifted=selection.shifted,
    )


def unpack(reading: Reading, packed_NX: Tensor) -> HostReading:
    """A reading from the host copy of its packed tensor (or from some of its rows)."""
    size = reading.layers * reading.experts
    shape = (len(packed_NX), reading.layers, reading.experts)
    tokens_N = packed_NX[:, 1].int()
    target_tokens_N = packed_NX[:, 2].int()
    # Plain pretraining: every token carries a loss, but for the last one where labels are shifted.
    plain = bool((target_tokens_N == tokens_N - int(reading.shifted)).all())
    return HostReading(
        weights_NLK=packed_NX[:, _SCALARS : _SCALARS + size].reshape(shape),
        target_weights_NLK=packed_NX[:, _SCALARS + size :].reshape(shape)
        if reading.has_targets and not plain
        else None,
        losses_N=packed_NX[:, 0] if reading.has_losses else None,
        tokens_N=tokens_N,
        target_tokens_N=target_tokens_N,
        targets_N=packed_NX[:, 3].int() if reading.has_targets else None,
    )


def _losses(selection: TokenSelection, logits_BSV: Tensor) -> Tensor:
    """[B, M] mean cross-entropy over each sample's target tokens, float32."""
    assert selection.labels_BS is not None  # noqa: S101
    B, S = selection.labels_BS.shape
    losses_BS = cross_entropy(
        logits_BSV.detach().reshape(B * S, -1).float(),
        selection.labels_BS.reshape(B * S),
        ignore_index=IGNORED_LABEL,
        reduction="none",
    ).reshape(B, S)
    target_BMS = selection.target_BMS.float()
    return (target_BMS @ losses_BS[:, :, None]).squeeze(-1) / target_BMS.sum(dim=-1).clamp_min(1)


def _single_targets(target_BMS: Tensor, labels_BS: Tensor) -> Tensor:
    """[B, M] the label of a sample's only target token, -1 where there are none or several."""
    label_BM = (target_BMS * labels_BS[:, None, :]).sum(dim=-1)
    return label_BM.where(target_BMS.sum(dim=-1) == 1, -1)


def _experts(recording: Recording) -> int:
    return next((int(means.shape[-1]) for means in recording.real_LBMK if means is not None), 0)
