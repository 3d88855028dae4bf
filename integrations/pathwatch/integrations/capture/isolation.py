"""An evaluation pass that training does not notice."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; on exit every module's mode and the random states are as before.

    Each module gets its own mode back, so parts a job keeps frozen in evaluation mode stay so.
    """
    training = [module for module in model.modules() if module.training]
    devices = sorted(
        {p.device.index for p in model.parameters() if p.device.type != "cpu" and p.device.index is not None}
    )
    device_type = next((p.device.type for p in model.parameters() if p.device.type != "cpu"), "cuda")
    with torch.random.fork_rng(devices, device_type=device_type), torch.no_grad():
        model.eval()
        try:
            yield
        finally:
            for module in training:
                module.training = True
