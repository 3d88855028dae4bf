"""Losses token by token: those the model computes itself, else computed once more."""

from __future__ import annotations

import functools
import inspect
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from pathwatch.integrations.capture.tokens import IGNORED_LABEL

_CHUNK_ELEMENTS = 1 << 24
"""Logits that are made float32 at a time: 64 MiB."""


@dataclass(frozen=True, slots=True)
class TokenLosses:
    """What one cross-entropy call said of every token."""

    losses_T: Tensor
    """float32; 0 where nothing was to be predicted."""
    labels_T: Tensor
    """IGNORED_LABEL where nothing was to be predicted."""


@contextmanager
def keeping_losses(rows: int, length: int) -> Iterator[list[TokenLosses]]:
    """Keep the losses of the cross-entropies that this thread computes inside the block over a batch.

    Replaces `torch.nn.functional.cross_entropy` meanwhile by its own two halves, `log_softmax` and
    `nll_loss`, which give the same bits forward and backward; the losses are gathered from what lies between.
    Calls over other numbers of tokens, with class weights or label smoothing, and of other threads are left
    alone.
    """
    kept: list[TokenLosses] = []
    original, thread = functional.cross_entropy, threading.get_ident()
    signature = inspect.signature(original)

    @functools.wraps(original)
    def cross_entropy(*args: Any, **kwargs: Any) -> Tensor:
        call = _parted(signature, args, kwargs) if threading.get_ident() == thread else None
        if call is None or len(call["target"]) not in (rows * length, rows * (length - 1)):
            return original(*args, **kwargs)
        target_T, ignored = call["target"], call["ignore_index"]
        log_p_TV = functional.log_softmax(call["input"], dim=1, dtype=call["input"].dtype)
        loss = functional.nll_loss(log_p_TV, target_T, ignore_index=ignored, reduction=call["reduction"])
        with torch.no_grad():
            nothing_T = target_T == ignored
            picked_T1 = log_p_TV.gather(1, target_T.masked_fill(nothing_T, 0)[:, None])
            losses_T = picked_T1[:, 0].float().neg().masked_fill(nothing_T, 0)
            kept.append(TokenLosses(losses_T, target_T.masked_fill(nothing_T, IGNORED_LABEL)))
        return loss

    functional.cross_entropy = cross_entropy
    try:
        yield kept
    finally:
        if functional.cross_entropy is cross_entropy:
            functional.cross_entropy = original


def matching_losses(kept: Sequence[TokenLosses], labels_BS: Tensor) -> Tensor:
    """Losses [B, S] of the first call whose labels are these; NaN if there is none.

    Labels told as ignored do not matter, so that a packed batch is known whose own labels reach across the
    borders of samples. A multi-token prediction head's labels are moved one further and do not match.
    """
    losses_BS = torch.full(labels_BS.shape, torch.nan, device=labels_BS.device)
    rows = len(labels_BS)
    for call in reversed(kept):
        call_labels_BS, call_losses_BS = call.labels_T.reshape(rows, -1), call.losses_T.reshape(rows, -1)
        missing = labels_BS.shape[1] - call_labels_BS.shape[1]
        call_labels_BS = functional.pad(call_labels_BS, (0, missing), value=IGNORED_LABEL)
        same = ((call_labels_BS == labels_BS) | (labels_BS == IGNORED_LABEL)).all()
        losses_BS = torch.where(same, functional.pad(call_losses_BS, (0, missing)), losses_BS)
    return losses_BS


def recomputed_losses(logits_BSV: Tensor, labels_BS: Tensor) -> Tensor:
    """Cross-entropy [B, S], float32, 0 at ignored labels: computed again, without gradients, in chunks.

    NaN where a label is no class of the logits.

    Raises:
        ValueError: the logits are not [B, S, V].
    """
    if logits_BSV.shape[:-1] != labels_BS.shape:
        raise ValueError(
            f"logits of shape {tuple(logits_BSV.shape)} do not fit labels of shape {tuple(labels_BS.shape)}"
        )
    logits_TV = logits_BSV.detach().reshape(labels_BS.numel(), -1)
    # A label that is no class would abort the device's kernels, and training with them.
    odd_BS = ((labels_BS < 0) | (labels_BS >= logits_TV.shape[1])) & (labels_BS != IGNORED_LABEL)
    labels_T = labels_BS.masked_fill(odd_BS, IGNORED_LABEL).reshape(-1)
    size = max(1, _CHUNK_ELEMENTS // logits_TV.shape[1])
    losses = [
        functional.cross_entropy(chunk_TV.float(), chunk_T, ignore_index=IGNORED_LABEL, reduction="none")
        for chunk_TV, chunk_T in zip(logits_TV.split(size), labels_T.split(size), strict=True)
    ]
    return torch.cat(losses).reshape(labels_BS.shape).masked_fill(odd_BS, torch.nan)


def _parted(
    signature: inspect.Signature, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> dict[str, Any] | None:
    """Arguments of a plain cross-entropy of [T, V] with class indices; None for any other."""
    try:
        bound = signature.bind(*args, **kwargs)
    except TypeError:
        return None
    bound.apply_defaults()
    call = bound.arguments
    logits, target = call["input"], call["target"]
    plain = (
        type(logits) is Tensor
        and type(target) is Tensor
        and (logits.ndim, target.ndim) == (2, 1)
        and target.dtype == torch.int64
        and call["weight"] is None
        and call["size_average"] is None
        and call["reduce"] is None
        and call["label_smoothing"] == 0
        and call.keys() == _KNOWN
        # Autocast would choose the precision of each half by itself.
        and (logits.dtype == torch.float32 or not torch.is_autocast_enabled(logits.device.type))
    )
    return dict(call) if plain else None


_KNOWN = {
    "input",
    "target",
    "weight",
    "size_average",
    "ignore_index",
    "reduce",
    "reduction",
    "label_smoothing",
}
