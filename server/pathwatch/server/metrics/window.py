"""What a metric is computed from: the observations of one closed window, as arrays."""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from pathwatch.server.metrics.measured import MeasuredRouting


@dataclass(frozen=True, kw_only=True)
class WindowArrays:
    """The sketch of one group's window; n observations in ascending order of sample id.

    Shape letters: N samples, L routed MoE layers, K experts.
    """

    group: str
    first_step: int
    """First step covered."""
    step: int
    """Last step covered: the window's step."""
    sample_ids_N: NDArray[np.int64]
    losses_N: NDArray[np.float64]
    """Mean loss over each sample's target tokens, nats; NaN where no loss came."""
    weights_NLK: NDArray[np.float32]
    """Mean routing weights over real tokens (docs/metrics.md)."""
    target_weights_NLK: NDArray[np.float32] | None = None
    """The same over target tokens, where it differs from `weights_NLK`."""
    targets_N: NDArray[np.int32] | None = None
    """Class or token id shared by the sample's target tokens; -1 = none."""
    visits_N: NDArray[np.int32] | None = None
    """How often the sample was trained on before; 0 = unseen, -1 = not known."""
    tokens_N: NDArray[np.int64]
    """Real tokens of each sample."""
    partial: bool = False
    """True when ranks or fragments were missing when the window closed."""

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays."""
        values = (getattr(self, item.name) for item in fields(self))
        return sum(value.nbytes for value in values if isinstance(value, np.ndarray))

    @property
    def carrying_weights_NLK(self) -> NDArray[np.float32]:
        """Routing weights over target tokens; over all tokens where the two are the same."""
        return self.weights_NLK if self.target_weights_NLK is None else self.target_weights_NLK

    @cached_property
    def routing(self) -> MeasuredRouting:
        """What is known of `weights_NLK`; kept with the window, a few hundred bytes a sample."""
        return MeasuredRouting(self.weights_NLK)

    @cached_property
    def carrying_routing(self) -> MeasuredRouting:
        """The same of `carrying_weights_NLK`."""
        return self.routing if self.target_weights_NLK is None else MeasuredRouting(self.target_weights_NLK)


@dataclass(frozen=True, slots=True, kw_only=True)
class Geometry:
    """Inner products of expert embeddings: W_l·W_lᵀ [L, K, K] and W_l·W_{l+1}ᵀ [L-1, K, K]."""

    step: int
    gram_self_LKK: NDArray[np.float32]
    gram_next_LKK: NDArray[np.float32]
