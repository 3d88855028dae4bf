"""Observations as the sketch takes them: validated, as arrays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pathwatch.server.sketch.admission import Admission


@dataclass(frozen=True, slots=True, kw_only=True)
class ObservationBlock:
    """n observations, or fragments of observations, of one group at one step. L' = layers held."""

    attempt: int
    step: int
    group: str
    sample_ids_N: NDArray[np.int64]
    losses_N: NDArray[np.float64] | None
    """Mean loss over the target tokens held; None in fragments that do not see it."""
    tokens_N: NDArray[np.int64]
    """Real tokens held."""
    target_tokens_N: NDArray[np.int64]
    """Target tokens held."""
    weights_NLK: NDArray[np.float32]
    """[n, L', K] mean routing weights over the real tokens held."""
    target_weights_NLK: NDArray[np.float32] | None = None
    """[n, L', K] mean over the target tokens held, where it differs."""
    targets_N: NDArray[np.int32] | None = None
    visits_N: NDArray[np.int32] | None = None
    layers: tuple[int, ...] | None = None
    """Layers held, ascending; None = all."""
    token_part: int = 0
    token_parts: int = 1
    admission: Admission | None = None
    """Set where observations of the message were left out, since its window does not want them any more."""

    @property
    def observations(self) -> int:
        """How many the message held, those left out included."""
        return len(self.sample_ids_N) if self.admission is None else self.admission.observations
