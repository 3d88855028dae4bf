"""A module trained by a plain PyTorch loop, as a watch sees it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from pathwatch.integrations.capture import Router
from pathwatch.integrations.observing import Layout
from pathwatch.integrations.pytorch.placement import check_data_parallel
from pathwatch.integrations.pytorch.precision import same_autocast
from pathwatch.integrations.pytorch.sharding import is_distributed, is_fully_sharded


class ModuleJob:
    """Implements `observing.Job` over a plain module, one in `DistributedDataParallel`, or one given to
    `fully_shard` (FSDP2)."""

    def __init__(self, model: nn.Module, step: Callable[[], int]) -> None:
        """
        Args:
            model: what training calls, after it was wrapped or sharded.
            step: optimizer steps done since training began, earlier attempts included.
        """
        self._model = model
        self._step = step
        self._autocast: Callable[[], AbstractContextManager[object]] = nullcontext

    @property
    def module(self) -> nn.Module:
        """The module in the wrapper of DDP; any other module as it is."""
        if isinstance(self._model, DistributedDataParallel):
            module: nn.Module = self._model.module
            return module
        return self._model

    @property
    def device(self) -> torch.device:
        """Where the parameters are; where they are computed with, when FSDP offloads them."""
        parameter = next(self._model.parameters())
        if is_distributed(parameter) and parameter.device_mesh.device_type != parameter.device.type:
            kind = parameter.device_mesh.device_type
            return torch.device(kind, torch.get_device_module(kind).current_device())
        return parameter.device

    @property
    def step(self) -> int:
        """Optimizer steps done."""
        return self._step()

    def layout(self, routers: int) -> Layout:
        """Data parallel: every rank holds all layers and its own samples.

        Raises:
            ValueError: the module is split among ranks in another way, too.
        """
        world_size = dist.get_world_size() if dist.is_initialized() else 1
        rank = dist.get_rank() if dist.is_initialized() else 0
        check_data_parallel(self._model, world_size)
        return Layout(
            rank=rank,
            world_size=world_size,
            data_rank=rank,
            data_ranks=world_size,
            total_layers=routers,
            sender=rank,
            senders=world_size,
        )

    def remember_autocast(self) -> None:
        """Have forward passes of ours run under autocast as it is at this point, around training's own."""
        self._autocast = same_autocast(self.device.type)

    def forward(self, inputs: Mapping[str, Tensor]) -> object:
        """The module's forward pass, under the autocast of training.

        DDP is passed by: it would only copy buffers among ranks. FSDP is left without gathered parameters.
        """
        with self._autocast():
            output = self.module(**inputs)
        for module in self._model.modules():
            if is_fully_sharded(module):
                module.reshard()
        return output

    def router_matrices(self, routers: Sequence[Router]) -> list[Tensor]:
        """The routers' weights; those that FSDP sharded are gathered. Collective."""
        weights = (router.weight.detach() for router in routers)
        return [weight.full_tensor() if is_distributed(weight) else weight for weight in weights]
