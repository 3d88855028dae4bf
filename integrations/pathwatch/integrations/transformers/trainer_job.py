"""A Trainer's model as a watch sees it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from transformers import TrainerState, TrainingArguments

from pathwatch.integrations.capture import Router
from pathwatch.integrations.observing import Layout
from pathwatch.integrations.pytorch import ModuleJob


class TrainerJob(ModuleJob):
    """Implements `observing.Job` over what a callback is given: the model within whatever wraps it.

    A wrapper (DDP, a DeepSpeed engine, `torch.compile`) calls the model, and so fires its hooks.
    """

    def __init__(
        self, model: nn.Module, args: TrainingArguments, state: TrainerState, problem: str | None
    ) -> None:
        """
        Args:
            model, args, state: as Trainer gives them to a callback's events.
            problem: why this job cannot be watched; None = nothing known against it.
        """
        super().__init__(model, lambda: int(state.global_step))
        self._args = args
        self._problem = problem

    @property
    def device(self) -> torch.device:
        """Where Trainer puts batches."""
        return torch.device(self._args.device)

    def layout(self, routers: int) -> Layout:
        """Data parallel: every rank holds all layers and its own samples.

        Raises:
            ValueError: the job is split in another way, too, or something else is known against it.
        """
        if self._problem is not None:
            raise ValueError(self._problem)
        return super().layout(routers)

    def router_matrices(self, routers: Sequence[Router]) -> list[Tensor]:
        """The routers' weights; those that FSDP or ZeRO-3 sharded are gathered. Collective."""
        if any(hasattr(router.weight, "ds_id") for router in routers):
            import deepspeed

            with deepspeed.zero.GatheredParameters([router.weight for router in routers]):
                return [router.weight.detach().clone() for router in routers]
        return super().router_matrices(routers)
