"""What of a Trainer's settings keeps a job from being read rightly."""

from __future__ import annotations

from typing import Any

from accelerate.state import AcceleratorState
from accelerate.utils import DistributedType
from torch.utils.data import DataLoader
from transformers import TrainingArguments

from pathwatch.integrations.observing import Settings
from pathwatch.integrations.transformers.columns import Columns


def obstacle(
    args: TrainingArguments, settings: Settings, columns: Columns, dataloader: DataLoader[Any]
) -> str | None:
    """Why this job cannot be watched, and what to do; None = nothing known against it.

    No sample of the data is read for this: that could disturb the random state of training.
    """
    return (
        _split(args)
        or _compiled(settings, columns)
        or _without_labels(args, settings)
        or _lost(columns, dataloader)
    )


def _split(args: TrainingArguments) -> str | None:
    if args.n_gpu > 1:
        return (
            f"Trainer runs the model on {args.n_gpu} GPUs of one process (DataParallel), whose replicas "
            "cannot be read: start one process per GPU (torchrun, accelerate launch)"
        )
    parallelism = getattr(args, "parallelism_config", None)
    sizes = {
        kind: getattr(parallelism, f"{short}_size", 1)
        for kind, short in (("tensor", "tp"), ("context", "cp"), ("sequence", "sp"))
    }
    deepspeed = getattr(AcceleratorState(), "deepspeed_plugin", None)
    if deepspeed is not None:
        automatic = deepspeed.deepspeed_config.get("tensor_parallel", {})
        sizes["tensor"] = max(sizes["tensor"], automatic.get("autotp_size", 1))
    for kind, size in sizes.items():
        if size > 1:
            return (
                f"{kind} parallelism over {size} ranks cannot be read through Trainer: ranks would report "
                "the same samples, or parts of them, as samples of their own. Use data parallelism, or "
                "pathwatch's attach to a DeepSpeed engine (docs/parallel.md)"
            )
    return None


def _compiled(settings: Settings, columns: Columns) -> str | None:
    state = AcceleratorState()
    plugin = getattr(state, "dynamo_plugin", None)
    whole = (
        plugin is not None
        and plugin.backend.value != "NO"
        and not getattr(plugin, "use_regional_compilation", False)
        # DeepSpeed compiles within the module.
        and state.distributed_type != DistributedType.DEEPSPEED
    )
    if whole and settings.stream is not None:
        return (
            "torch_compile takes training's forward passes out of sight: use probe mode, or compile nothing"
        )
    if whole and columns.names:
        return (
            "with torch_compile, columns would have the model compiled anew for every batch: leave out "
            "groups= and sample_ids=, and have visits known by defer(trainer, ...)"
        )
    return None


def _without_labels(args: TrainingArguments, settings: Settings) -> str | None:
    if settings.stream is not None and args.label_smoothing_factor:
        return (
            "label smoothing keeps the labels from the model's forward pass, so that losses would be "
            "unknown: use probe mode"
        )
    return None


def _lost(columns: Columns, dataloader: DataLoader[Any]) -> str | None:
    present = getattr(dataloader.dataset, "column_names", None)
    missing = [name for name in columns.names if isinstance(present, list) and name not in present]
    if missing:
        return (
            f"the training dataset has no columns {', '.join(map(repr, missing))} but {present}: where they "
            "are in the dataset given to Trainer, set remove_unused_columns=False in TrainingArguments"
        )
    # Also on one process of a job that could have more.
    broadcast = AcceleratorState().distributed_type != DistributedType.NO
    dispatched = type(dataloader).__name__ == "DataLoaderDispatcher" and broadcast
    if columns.names and dispatched:
        return (
            "accelerate has rank 0 read the data for all and hand out tensors only, so that the columns "
            f"{', '.join(map(repr, columns.names))} are lost: "
            'set accelerator_config={"dispatch_batches": False} in TrainingArguments'
        )
    return None
