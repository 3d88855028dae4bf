"""A DeepSpeed engine as a watch sees it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from pathwatch.integrations.capture import Router
from pathwatch.integrations.deepspeed.place import engine_layout
from pathwatch.integrations.deepspeed.ulysses import check_evaluation
from pathwatch.integrations.deepspeed.unmeasured import unmeasured
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
        """This process's place among replicas, stages, parts of the tokens and shards. Collective.

        Raises:
            ValueError: a layout that would be read wrongly; on every process alike.
        """
        return engine_layout(self._engine, routers)

    def forward(self, inputs: Mapping[str, Tensor]) -> object:
        """The engine's own forward pass.

        Raises:
            ValueError: in evaluation mode the parts of a sequence would not be joined.
        """
        if self._engine.sequence_parallel_size > 1:
            check_evaluation(self.module)
        with unmeasured(self._engine):
            return self._engine(**inputs)

    def router_matrices(self, routers: Sequence[Router]) -> list[Tensor]:
        """The routers' weights, copied; those that ZeRO-3 partitions are gathered for it. Collective."""
        import deepspeed

        weights = [router.weight for router in routers]
        with deepspeed.zero.GatheredParameters(weights):
            return [weight.detach().clone() for weight in weights]
