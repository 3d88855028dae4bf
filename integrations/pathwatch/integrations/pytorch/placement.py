"""How a module is split among ranks, and whether that can be read."""

from __future__ import annotations

from torch import nn

from pathwatch.integrations.pytorch.sharding import is_distributed, is_flattened, is_fully_sharded


def check_data_parallel(model: nn.Module, world_size: int) -> None:
    """Refuse what would be read wrongly.

    Data parallelism, sharded or not, is read, and experts may be split in any way: the routers of a rank see
    all its tokens and nothing else.

    Raises:
        ValueError: FSDP1; tensor parallelism; sharding over some ranks only.
    """
    if any(is_flattened(module) for module in model.modules()):
        raise ValueError(
            "FullyShardedDataParallel (FSDP1) flattens router weights beyond recognition: "
            "use fully_shard (FSDP2)"
        )
    fully_sharded = any(is_fully_sharded(module) for module in model.modules())
    for name, parameter in model.named_parameters():
        if not is_distributed(parameter) or "experts" in name.split("."):
            continue
        mesh = parameter.device_mesh
        split_dims = sum(not placement.is_replicate() for placement in parameter.placements)
        if not fully_sharded or split_dims > 1:
            raise ValueError(
                f"{name} is split by tensor parallelism ({parameter.placements} on {mesh}), which pathwatch "
                "cannot read: ranks would report the same samples, or parts of their tokens, as samples of "
                "their own. Use DDP, fully_shard or expert parallelism"
            )
        if mesh.size() != world_size:
            raise ValueError(
                f"{name} is sharded over {mesh.size()} of {world_size} processes: pathwatch cannot tell what "
                "the others hold. Use fully_shard over all processes (with replicas: a two-dimensional mesh)"
            )
