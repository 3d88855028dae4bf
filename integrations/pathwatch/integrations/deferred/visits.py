"""How often samples were trained on, from the schedule alone."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pathwatch.integrations.deferred.choice import Indices


class Drawing(Protocol):
    """What is drawn when."""

    def position(self, step: int) -> tuple[int, int]:
        """Epoch, and draws of it that are done, once `step` optimizer steps are done."""

    def trained_order(self, epoch: int) -> Indices:
        """All draws of an epoch that are trained on, over all ranks."""


class ScheduledVisits:
    """Visits of some samples by step. Nothing is counted: prefetching, restarts and rewinds do not matter."""

    def __init__(self, drawing: Drawing, sample_ids: Tensor) -> None:
        """`sample_ids` [N]: indices of the dataset, each once."""
        self._drawing = drawing
        ids_N = sample_ids.cpu().numpy().astype(np.int64)
        self._rank_N = ids_N.argsort()
        self._sorted_N = ids_N[self._rank_N]
        self._epoch = 0
        self._before_N: NDArray[np.int64] = np.zeros(len(ids_N), np.int64)
        self._places, self._which = self._look_up(0)

    def at(self, step: int) -> Tensor:
        """[N] int64: how often each was trained on in the first `step` optimizer steps."""
        epoch, done = self._drawing.position(step)
        if epoch < self._epoch:
            self._epoch, self._before_N = 0, np.zeros_like(self._before_N)
            self._places, self._which = self._look_up(0)
        while self._epoch < epoch:
            self._before_N = self._before_N + self._count(self._which)
            self._epoch += 1
            self._places, self._which = self._look_up(self._epoch)
        return torch.from_numpy(self._before_N + self._count(self._which[self._places < done]))

    def _count(self, which: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.bincount(which, minlength=len(self._sorted_N))

    def _look_up(self, epoch: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Where in an epoch one of the samples is drawn, and which."""
        order_M = self._drawing.trained_order(epoch)
        places = np.flatnonzero(np.isin(order_M, self._sorted_N))
        return places, self._rank_N[np.searchsorted(self._sorted_N, order_M[places])]
