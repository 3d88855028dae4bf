"""The training job that is timed: one step of real DeepSpeed training after another."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from bench.overhead import models
from pathwatch.integrations.deepspeed import attach
from pathwatch.integrations.observing import Watch

if TYPE_CHECKING:
    from deepspeed import DeepSpeedEngine

BATCHES = 64
"""Batches that are trained on in turn; every block begins with the first, so all train on the same."""


def join_world() -> tuple[int, int]:
    """Rank and number of ranks: `torchrun`'s, or this process alone. DeepSpeed runs on the CPU over gloo."""
    # Port 0: the store of one rank listens where there is room.
    alone = {
        "RANK": "0",
        "LOCAL_RANK": "0",
        "WORLD_SIZE": "1",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": "0",
    }
    for name, value in alone.items():
        os.environ.setdefault(name, value)
    os.environ["DS_ACCELERATOR"] = "cpu"
    import deepspeed

    # It would be compiled first, and gloo does.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    deepspeed.init_distributed("gloo", verbose=False)
    torch.set_num_threads(1)
    return torch.distributed.get_rank(), torch.distributed.get_world_size()


class Job(Protocol):
    """What a variant is attached to."""

    @property
    def module(self) -> nn.Module:
        """What is trained."""

    def attach(self, **options: Any) -> Watch:
        """pathwatch, by the `attach` of the job's framework."""

    def step(self, tokens_BS: Tensor, extra: Mapping[str, Any]) -> object:
        """Forward, backward, update; `extra` arguments of the forward pass. Returns the model's output."""


class DeepSpeedJob:
    """A DeepSpeed engine and its batches. The same object serves all variants: memory lies as it lies."""

    def __init__(self, model: nn.Module, *, zero_stage: int) -> None:
        import deepspeed

        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
        self.engine: DeepSpeedEngine = deepspeed.initialize(
            model=model,
            optimizer=optimizer,
            config={
                "train_micro_batch_size_per_gpu": models.ROWS,
                "steps_per_print": 1 << 30,
                "zero_optimization": {"stage": zero_stage},
                "zero_allow_untested_optimizer": True,
            },
        )[0]
        generator = torch.Generator().manual_seed(torch.distributed.get_rank())
        shape = (BATCHES, models.ROWS, models.LENGTH)
        self._batches = torch.randint(models.VOCABULARY, shape, generator=generator)

    @property
    def module(self) -> nn.Module:
        """What is trained."""
        module: nn.Module = self.engine.module
        return module

    def attach(self, **options: Any) -> Watch:
        """pathwatch for DeepSpeed."""
        return attach(self.engine, **options)

    def batch(self, number: int) -> Tensor:
        """[B, S] token ids."""
        return self._batches[number % BATCHES]

    def step(self, tokens_BS: Tensor, extra: Mapping[str, Any]) -> object:
        """Forward, backward, update."""
        output: object
        if isinstance(self.module, models.GatedModel):
            output = logits_BSV = self.engine(input_ids=tokens_BS, **extra)
            loss = cross_entropy(logits_BSV[:, :-1].flatten(0, 1), tokens_BS[:, 1:].flatten())
        else:
            output = self.engine(input_ids=tokens_BS, labels=tokens_BS, **extra)
            loss = output.loss  # type: ignore[attr-defined] # transformers' output
        self.engine.backward(loss)
        self.engine.step()
        return output
