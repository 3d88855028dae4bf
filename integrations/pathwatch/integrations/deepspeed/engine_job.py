"""A DeepSpeed engine as a watch sees it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from pathwatch.integrations.capture import Router
from pathwatch.integrations.observing import Layout

if TYPE_CHECKING:
    from deepspeed import DeepSpeedEngine


class EngineJob:
    """Implements `observing.Job` over an engine."""

    def __init__(self, engine: DeepSpeedEngine) -> None:
        self._engine = engine

    @property
    def module(self) -> nn.Module:
        """The module the engine trains."""
        module: nn.Module = self._engine.module
        return module

    @property
    def device(self) -> torch.device:
        """Where the engine computes."""
        return torch.device(self._engine.device)

    @property
    def step(self) -> int:
        """Optimizer steps done, those skipped on overflow included."""
        return int(self._engine.global_steps)

    def layout(self, routers: int) -> Layout:
        """Data parallel: every rank holds all layers and its own samples."""
        rank, world_size = int(self._engine.global_rank), int(self._engine.world_size)
        return Layout(
            rank=rank,
            world_size=world_size,
            data_rank=rank,
            data_ranks=world_size,
            total_layers=routers,
            sender=rank,
            senders=world_size,
        )

    def forward(self, inputs: Mapping[str, Tensor]) -> object:
        """The engine's own forward pass."""
        return self._engine(**inputs)

    def router_matrices(self, routers: Sequence[Router]) -> list[Tensor]:
        """The routers' weights as they are."""
        return [router.weight.detach() for router in routers]
