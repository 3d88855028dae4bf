"""Which tokens belong to which sample, and which of them carry a loss."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

IGNORED_LABEL = -100


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenSelection:
    """The tokens of a batch of B rows of S tokens that hold N samples, at most M in a row."""

    real_BMS: Tensor
    """bool: token s of row b is a real token of its m-th sample."""
    target_BMS: Tensor
    """bool: that token's prediction carries a loss."""
    labels_BS: Tensor | None
    """What each token is to predict; IGNORED_LABEL where nothing."""
    shifted: bool
    """True when the labels came unshifted, so that the last token of a sample can have none."""
    whole: bool = False
    """Known without looking at the device: every token is a real token of its row's only sample."""
    surplus_B: Tensor | None = None
    """Packed samples of each row beyond the M that were told; None = rows are not packed."""

    @classmethod
    def of_batch(
        cls,
        *,
        rows: int,
        length: int,
        labels_BS: Tensor | None = None,
        attention_mask_BS: Tensor | None = None,
        segment_ids_BS: Tensor | None = None,
        samples_per_row: int = 1,
        shift_labels: bool = False,
        device: torch.device | None = None,
    ) -> TokenSelection:
        """Selection of one batch; nothing is read back from the device.

        Args:
            rows, length: B and S.
            labels_BS: -100 where nothing is to be predicted; None = every token carries a loss.
            attention_mask_BS: 0 = padding; None = no padding.
            segment_ids_BS: packed sequences: 1 … M numbers the samples of a row, 0 = padding; [1, S] = the
                same for all rows.
            samples_per_row: M, the most samples a row holds; told, not read from the device.
            shift_labels: as in transformers, the prediction for label t + 1 is made at token t; the target
                token is the one that predicts. Otherwise labels stand where they are predicted.
            device: where to put masks when no tensor tells.
        """
        given = [x for x in (labels_BS, attention_mask_BS, segment_ids_BS) if x is not None]
        device = given[0].device if given else device
        surplus_B = None
        if segment_ids_BS is None:
            real_BMS = torch.ones(rows, 1, length, dtype=torch.bool, device=device)
        else:
            segment_ids_BS = segment_ids_BS.expand(rows, length)
            samples_M = torch.arange(1, samples_per_row + 1, device=device)
            real_BMS = segment_ids_BS[:, None, :] == samples_M[None, :, None]
            surplus_B = (segment_ids_BS.amax(dim=1) - samples_per_row).clamp_min(0)
        if attention_mask_BS is not None:
            real_BMS = real_BMS & (attention_mask_BS != 0)[:, None, :]
        target_BMS = real_BMS
        if labels_BS is not None:
            if shift_labels:
                labels_BS = _shifted(labels_BS, segment_ids_BS)
            target_BMS = real_BMS & (labels_BS != IGNORED_LABEL)[:, None, :]
        return cls(
            real_BMS=real_BMS,
            target_BMS=target_BMS,
            labels_BS=labels_BS,
            shifted=shift_labels and labels_BS is not None,
            whole=segment_ids_BS is None and attention_mask_BS is None,
            surplus_B=surplus_B,
        )


def _shifted(labels_BS: Tensor, segment_ids_BS: Tensor | None) -> Tensor:
    """Labels moved to the token that predicts them; never across the border of two samples."""
    nothing_B1 = labels_BS.new_full((labels_BS.shape[0], 1), IGNORED_LABEL)
    shifted_BS = torch.cat([labels_BS[:, 1:], nothing_B1], dim=1)
    if segment_ids_BS is None:
        return shifted_BS
    same_BS = torch.cat([segment_ids_BS[:, 1:] == segment_ids_BS[:, :-1], nothing_B1 == 0], dim=1)
    return shifted_BS.masked_fill(~same_BS, IGNORED_LABEL)
