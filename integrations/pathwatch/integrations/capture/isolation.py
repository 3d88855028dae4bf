"""An evaluation pass that training does not notice."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

_MISSING = object()


@contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; on exit all that a pass may change is as it was before.

    That is: every module's own mode, so that parts a job keeps frozen in evaluation mode stay so; buffers,
    and plain tensors and numbers that modules keep of their last pass; the random states of torch, NumPy,
    Python and DeepSpeed's activation checkpointing; autocast's cache. Models of transformers keep no keys and
    values meanwhile, which only generation needs.
    """
    with ExitStack() as stack:
        stack.enter_context(_same_random_states(model))
        stack.enter_context(_same_buffers(model))
        stack.enter_context(_same_attributes(model))
        stack.enter_context(_no_key_value_cache(model))
        stack.enter_context(_no_autocast_cache())
        stack.enter_context(torch.no_grad())
        for module in model.modules():
            # Not `model.eval()`: what modules do besides (merging adapters into weights) would be noticed.
            module.training = False
        yield


@contextmanager
def _same_random_states(model: nn.Module) -> Iterator[None]:
    devices = sorted(
        {p.device.index for p in model.parameters() if p.device.type != "cpu" and p.device.index is not None}
    )
    device_type = next((p.device.type for p in model.parameters() if p.device.type != "cpu"), "cuda")
    python = random.getstate()
    # Modules that the job has not imported draw no numbers.
    numpy_random: Any = sys.modules.get("numpy.random")
    numpy = None if numpy_random is None else numpy_random.get_state()
    checkpointing: Any = sys.modules.get("deepspeed.runtime.activation_checkpointing.checkpointing")
    tracker = None if checkpointing is None else checkpointing.get_cuda_rng_tracker()
    tracked = None if tracker is None else tracker.get_states()
    with torch.random.fork_rng(devices, device_type=device_type):
        try:
            yield
        finally:
            random.setstate(python)
            if numpy_random is not None:
                numpy_random.set_state(numpy)
            if tracker is not None:
                tracker.set_states(tracked)


@contextmanager
def _same_buffers(model: nn.Module) -> Iterator[None]:
    """Buffers that a pass replaces or writes to even in evaluation mode: counters, statistics, caches."""
    kept = [
        (module._buffers, name, buffer, buffer._version, buffer.clone())
        for module in model.modules()
        for name, buffer in module._buffers.items()
        if buffer is not None and not buffer.is_inference()
    ]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffers, name, buffer, version, values in kept:
                if buffer._version != version:
                    buffer.copy_(values)
                buffers[name] = buffer


@contextmanager
def _same_attributes(model: nn.Module) -> Iterator[None]:
    """Modes, and what modules remember of a pass: auxiliary losses, counts, sequence lengths."""
    kept = [
        (
            module.__dict__,
            {
                name: value
                for name, value in module.__dict__.items()
                if value is None or isinstance(value, Tensor | bool | int | float)
            },
        )
        for module in model.modules()
    ]
    try:
        yield
    finally:
        for attributes, before in kept:
            for name, value in before.items():
                if attributes.get(name, _MISSING) is not value:
                    attributes[name] = value


@contextmanager
def _no_key_value_cache(model: nn.Module) -> Iterator[None]:
    configs = {
        id(config): config for m in model.modules() if _of_transformers(config := m.__dict__.get("config"))
    }
    caching = [config for config in configs.values() if getattr(config, "use_cache", None) is True]
    for config in caching:
        config.use_cache = False
    try:
        yield
    finally:
        for config in caching:
            config.use_cache = True


def _of_transformers(config: object) -> bool:
    return any(cls.__module__.partition(".")[0] == "transformers" for cls in type(config).__mro__)


@contextmanager
def _no_autocast_cache() -> Iterator[None]:
    """Weights that autocast casts without gradients must not be the ones that training then uses."""
    enabled = torch.is_autocast_cache_enabled()
    torch.set_autocast_cache_enabled(False)
    try:
        yield
    finally:
        torch.set_autocast_cache_enabled(enabled)
