"""Following a training loop: when it begins to train, and when it has done a step."""

from __future__ import annotations

import sys
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from pathwatch.integrations.observing import Watch
from pathwatch.integrations.pytorch.module_job import ModuleJob
from pathwatch.integrations.pytorch.precision import without_autocast


class StepCounter:
    """Optimizer steps done; called, it gives their number."""

    def __init__(self, done: int) -> None:
        self.done = done

    def __call__(self) -> int:
        return self.done


def follow(model: nn.Module, optimizer: Optimizer, job: ModuleJob, steps: StepCounter, watch: Watch) -> None:
    """Call `watch.begin` before the model's first forward pass in training, and `watch.after_step` after each
    step of the optimizer, until the watch is closed."""

    def first_forward(module: nn.Module, args: object) -> None:
        if module.training and torch.is_grad_enabled() and not torch.compiler.is_compiling():
            first.remove()
            job.remember_autocast()
            with without_autocast(job.device.type):
                watch.begin()

    def stepped(optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        steps.done += 1
        watch.after_step()

    # `model.compile()` compiles hooks, too; importing the compiler where nobody did would take seconds.
    eager = torch.compiler.disable(first_forward) if "torch._dynamo" in sys.modules else first_forward
    # Before the hook by which FSDP gathers parameters: a forward pass inside another would confuse it.
    first = model.register_forward_pre_hook(eager, prepend=True)
    watch.on_close(first.remove)
    watch.on_close(optimizer.register_step_post_hook(stepped).remove)
