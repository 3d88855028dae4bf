"""Connecting a plain PyTorch training loop to the sidecar."""

from __future__ import annotations

from typing import Unpack

from torch import nn
from torch.optim import Optimizer

from pathwatch.integrations.observing import Options, Settings, Watch
from pathwatch.integrations.pytorch.following import StepCounter, follow
from pathwatch.integrations.pytorch.module_job import ModuleJob


def attach(
    model: nn.Module, optimizer: Optimizer, *, start_step: int = 0, **options: Unpack[Options]
) -> Watch:
    """Watch a training loop: call on every rank, once the model is wrapped (DDP) or sharded (`fully_shard`).

        with attach(model, optimizer, run="my-run", probe=Probe(groups=...)) as watch:
            for batch in batches:
                model(**batch).loss.backward()
                optimizer.step()
                optimizer.zero_grad()
                if watch.should_checkpoint():
                    save(...)
                    watch.checkpoint_saved(tag)
                if watch.should_stop():
                    break

    Args:
        model: what the loop calls.
        optimizer: its steps are the run's steps; of several optimizers, one that steps every time. What
            `GradScaler` skips is no step, unless the optimizer is fused: then only the device knows.
        start_step: steps done before, when going on from a checkpoint.
        options: the fields of `observing.Settings`; `run`, and either `probe` or `stream`, are needed.

    Raises:
        ValueError: arguments that do not fit together; with `strict=True` also a model without routers, or
            split among ranks in a way that cannot be read. Nothing is raised later.
    """
    if start_step < 0:
        raise ValueError(f"start_step must be at least 0, got {start_step}")
    steps = StepCounter(start_step)
    job = ModuleJob(model, steps)
    watch = Watch(job, Settings.of(options))
    follow(model, optimizer, job, steps, watch)
    return watch
