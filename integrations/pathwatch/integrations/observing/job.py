"""What a watch needs of a training framework."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from pathwatch.integrations.capture import Router
from pathwatch.integrations.observing.layout import Layout


class Job(Protocol):
    """One process of a training job. Every process makes the same calls at the same steps."""

    @property
    def module(self) -> nn.Module:
        """The module whose forward passes are training's; the routers are in it."""

    @property
    def device(self) -> torch.device:
        """Where the module computes."""

    @property
    def step(self) -> int:
        """Optimizer steps done since training began, earlier attempts included."""

    def layout(self, routers: int) -> Layout:
        """This process's place, given how many routed layers were found in it. Collective.

        Raises:
            ValueError: the job is split in a way that would be read wrongly; on every process alike.
        """

    def forward(self, inputs: Mapping[str, Tensor]) -> object:
        """Output of a forward pass of probe samples, run as training runs its own. Collective.

        The samples are those of this process's replica, the same in all its processes, of the tokens its
        part. Where a pipeline's last stage is elsewhere, the output is None.
        """

    def router_matrices(self, routers: Sequence[Router]) -> list[Tensor]:
        """Weights [K, D] of the routers here, whole, detached; on rank 0 of all stages, in the order of the
        model's layers. Collective where they are sharded."""
