"""Where an engine's process stands: what DeepSpeed and its `mpu` say of the groups it is in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch.distributed as dist

from pathwatch.integrations.observing import Layout, Place, agreed_layout

if TYPE_CHECKING:
    from deepspeed import DeepSpeedEngine


def engine_layout(engine: DeepSpeedEngine, routers: int) -> Layout:
    """The layout of this process, given how many routed layers were found in it. Collective.

    Data parallel ranks (ZeRO and expert parallelism among them) see samples of their own; those of a
    pipeline, of a sequence group or of a tensor group the same ones.

    Raises:
        ValueError: on every process alike, a layout that would be read wrongly.
    """
    mpu = engine.mpu
    _refuse_unknown(engine, mpu)
    pipeline = is_pipeline(engine)
    token_parts = int(engine.sequence_parallel_size)
    tensor_group = _tensor_group(engine, mpu)
    groups = [
        engine.grid.get_pipe_parallel_group() if pipeline else None,
        engine.get_sequence_parallel_group() if token_parts > 1 else None,
        tensor_group,
    ]
    peers = {dist.get_rank(), *(rank for group in groups for rank in _ranks(group))}
    layout = agreed_layout(
        Place(
            peers=tuple(sorted(peers)),
            routers=routers,
            stage=int(engine.stage_id) if pipeline else 0,
            stages=int(engine.num_stages) if pipeline else 1,
            token_part=dist.get_rank(engine.get_sequence_parallel_group()) if token_parts > 1 else 0,
            token_parts=token_parts,
            tensor_ranks=max(1, len(_ranks(tensor_group))),
        )
    )
    # With sequence parallelism DeepSpeed counts other things under this name, or nothing.
    if token_parts == 1 and layout.data_ranks != int(engine.dp_world_size):
        raise ValueError(
            f"DeepSpeed has {engine.dp_world_size} data-parallel replicas, its pipeline and tensor groups "
            f"make up {layout.data_ranks}: some ranks see the same samples in a way that is not known here"
        )
    return layout


def is_pipeline(engine: DeepSpeedEngine) -> bool:
    """Whether the engine trains a `PipelineModule`, by `train_batch`."""
    from deepspeed.runtime.pipe.engine import PipelineEngine

    return isinstance(engine, PipelineEngine)


def _refuse_unknown(engine: DeepSpeedEngine, mpu: Any) -> None:
    """Ways to split a model that would be read wrongly, or as something else."""
    from deepspeed.utils.bwc import bwc_pipeline_parallel_world_size

    def says(name: str) -> int:
        told = getattr(mpu, name, None)
        return 1 if told is None else int(told() or 1)

    if not is_pipeline(engine) and bwc_pipeline_parallel_world_size(mpu) > 1:
        raise ValueError(
            "the mpu tells of a pipeline that DeepSpeed does not run (Megatron's own): only a PipelineModule "
            "is read"
        )
    if says("get_virtual_pipeline_model_parallel_world_size") > 1:
        raise ValueError(
            "an interleaved (virtual) pipeline: the layers of a rank do not follow each other; not read"
        )
    if says("get_context_parallel_world_size") > 1:
        raise ValueError(
            "context parallelism of Megatron deals tokens out in an order that pathwatch does not know; use "
            "DeepSpeed's sequence parallelism (Ulysses)"
        )
    if is_pipeline(engine) and int(engine.sequence_parallel_size) > 1:
        raise ValueError("sequence parallelism within a pipeline is not read")


def _tensor_group(engine: DeepSpeedEngine, mpu: Any) -> dist.ProcessGroup | None:
    from deepspeed.utils import groups
    from deepspeed.utils.bwc import bwc_tensor_model_parallel_group, bwc_tensor_model_parallel_world_size

    # DeepSpeed's own mpu of sequence parallelism calls its group a model-parallel one, too.
    if mpu is None or hasattr(mpu, "initialize_sequence_parallel"):
        return None
    if mpu is groups and not engine.autotp_size():
        return None
    if bwc_tensor_model_parallel_world_size(mpu) <= 1:
        return None
    group: dist.ProcessGroup = bwc_tensor_model_parallel_group(mpu)
    return group


def _ranks(group: dist.ProcessGroup | None) -> list[int]:
    return [] if group is None else dist.get_process_group_ranks(group)
