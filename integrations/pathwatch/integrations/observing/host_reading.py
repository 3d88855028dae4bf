"""From the host copy of a packed reading to arrays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pathwatch.integrations.capture import Reading
from pathwatch.integrations.capture.reduction import ID_BITS, ID_COLUMNS, SCALARS

_ID_SHIFTS_C = np.arange(ID_COLUMNS) * ID_BITS


@dataclass(frozen=True, slots=True, kw_only=True)
class HostReading:
    """A reading on the host; float32, counts and targets int32, ids int64."""

    weights_NLK: NDArray[np.float32]
    """Mean routing weights over real tokens."""
    target_weights_NLK: NDArray[np.float32] | None
    """The same over target tokens; None where they are the same tokens."""
    losses_N: NDArray[np.float32] | None
    """Mean loss over target tokens, nats."""
    tokens_N: NDArray[np.int32]
    target_tokens_N: NDArray[np.int32]
    targets_N: NDArray[np.int32] | None
    """Label of the samples' only target token; -1 where there are several."""
    surplus_N: NDArray[np.int32]
    """Packed samples in the sample's row beyond those told: unless 0, the row was not divided as told."""
    sample_ids_N: NDArray[np.int64] | None
    """Ids that were not known on the host."""


def unpack(reading: Reading, packed_NX: NDArray[np.float32]) -> HostReading:
    """A reading from the host copy of its packed tensor (or from some of its rows).

    In NumPy, which takes a fifth as long as PyTorch where it is but a sample or two.
    """
    size = reading.layers * reading.experts
    start = SCALARS + ID_COLUMNS * reading.has_sample_ids
    shape = (len(packed_NX), reading.layers, reading.experts)
    whole_NC = packed_NX[:, 1:5].astype(np.int32)
    plain_N = packed_NX[:, 5] > 0
    weights_NLK = packed_NX[:, start : start + size].reshape(shape)
    target_weights_NLK = None
    if reading.has_targets and not plain_N.all():
        # What a plain sample gives must not depend on those that happen to be in its batch.
        target_weights_NLK = np.where(
            plain_N[:, None, None], weights_NLK, packed_NX[:, start + size :].reshape(shape)
        )
    return HostReading(
        weights_NLK=weights_NLK,
        target_weights_NLK=target_weights_NLK,
        losses_N=packed_NX[:, 0] if reading.has_losses else None,
        tokens_N=whole_NC[:, 0],
        target_tokens_N=whole_NC[:, 1],
        targets_N=whole_NC[:, 2] if reading.has_targets else None,
        surplus_N=whole_NC[:, 3],
        sample_ids_N=_joined(packed_NX[:, SCALARS:start]) if reading.has_sample_ids else None,
    )


def _joined(columns_NC: NDArray[np.float32]) -> NDArray[np.int64]:
    """[N] ids from their columns, lowest bits first."""
    joined_N: NDArray[np.int64] = (columns_NC.astype(np.int64) << _ID_SHIFTS_C).sum(axis=1)
    return joined_N
