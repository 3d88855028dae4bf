"""What PyTorch's sharding made, told without loading it, which takes a second: who shards has loaded it."""

from __future__ import annotations

import sys


def is_distributed(tensor: object) -> bool:
    """Whether a tensor is a `DTensor`."""
    return _is(tensor, "torch.distributed.tensor", "DTensor")


def is_fully_sharded(module: object) -> bool:
    """Whether a module was given to `fully_shard` (FSDP2)."""
    return _is(module, "torch.distributed.fsdp", "FSDPModule")


def is_flattened(module: object) -> bool:
    """Whether a module is wrapped in `FullyShardedDataParallel` (FSDP1)."""
    return _is(module, "torch.distributed.fsdp", "FullyShardedDataParallel")


def _is(item: object, package: str, name: str) -> bool:
    kind = getattr(sys.modules.get(package), name, None)
    return kind is not None and isinstance(item, kind)
