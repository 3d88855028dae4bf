"""One of two ranks, run by test_two_ranks.py: DDP and FSDP2, watched and not; writes what it saw."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from conftest import KeptStream, TorchMoe
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, FullyShardedDataParallel, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor
from torch.distributed.tensor.parallel import ColwiseParallel, parallelize_module
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel

from pathwatch.integrations.observing import observer
from pathwatch.integrations.pytorch import Probe, ProbeGroup, attach
from pathwatch.v1 import signal_pb2

TOKENS = torch.randint(16, (8, 6), generator=torch.Generator().manual_seed(1))
PROBE = Probe(
    groups={"a": ProbeGroup(inputs={"tokens": TOKENS[:7]}, sample_ids=torch.arange(7), labels=TOKENS[:7])},
    interval=5,
    batch_size=2,
    shift_labels=False,
)
STREAMS: list[KeptStream] = []


def open_stream(server: str, **settings: Any) -> KeptStream:
    STREAMS.append(KeptStream(settings))
    return STREAMS[-1]


def data_parallel() -> torch.nn.Module:
    torch.manual_seed(0)
    return DistributedDataParallel(TorchMoe())


def fully_sharded(
    mesh: Any = None, policy: MixedPrecisionPolicy | None = None, *, keep: bool = False
) -> torch.nn.Module:
    """With `keep`, parameters stay gathered between the forward and the backward pass."""
    torch.manual_seed(0)
    model = TorchMoe()
    policy = policy or MixedPrecisionPolicy()
    for layer in model.layers:
        fully_shard(layer, mesh=mesh, mp_policy=policy, reshard_after_forward=not keep)
    return fully_shard(model, mesh=mesh, mp_policy=policy, reshard_after_forward=not keep)


def train(make: Callable[[], torch.nn.Module], *, watched: bool, steps: int = 20) -> dict[str, Any]:
    """Under autocast where the model does not see to its precision itself."""
    rank = dist.get_rank()
    model = make()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    watch = attach(model, optimizer, run="r", probe=PROBE, check_interval=3) if watched else None
    torch.manual_seed(rank)
    seen: dict[str, Any] = {"losses": [], "checkpoints": [], "stopped_at": None, "gathered": []}
    for step in range(1, steps + 1):
        with torch.autocast("cpu", torch.bfloat16, enabled=not isinstance(model, FSDPModule)):
            loss = cross_entropy(model(TOKENS[rank::2]).float().flatten(0, 1), TOKENS[rank::2].flatten())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        seen["losses"].append(loss.item())
        if isinstance(model, FSDPModule):
            seen["gathered"] += [n for n, p in model.named_parameters() if not isinstance(p, DTensor)]
        if watch is None:
            continue
        if rank == 0:
            STREAMS[-1].signal = a_signal(step)
        if watch.should_checkpoint():
            seen["checkpoints"].append(step)
        if watch.should_stop() and seen["stopped_at"] is None:
            seen["stopped_at"] = step
    if watch is not None:
        watch.close()
        seen |= sent(STREAMS[-1])
        seen["gates"] = [whole(layer.gate.weight) for layer in watched_module(model).layers]
    return seen


def watched_module(model: torch.nn.Module) -> Any:
    return model.module if isinstance(model, DistributedDataParallel) else model


def whole(weight: torch.Tensor) -> Any:
    return (weight.full_tensor() if isinstance(weight, DTensor) else weight).detach().tolist()


def a_signal(step: int) -> signal_pb2.Signal:
    if step < 7:
        return signal_pb2.Signal(step=0, action=signal_pb2.ACTION_CHECKPOINT)
    return signal_pb2.Signal(step=5, action=signal_pb2.ACTION_STOP, stop_at_step=15)


def sent(stream: KeptStream) -> dict[str, Any]:
    last = [event for event in stream.of("observe") if event["step"] == 20]
    return {
        "sample_ids": [i for event in last for i in event["sample_ids"].tolist()],
        "probe_losses": [x for event in last for x in event["losses"].tolist()],
        "watermarks": [event["step"] for event in stream.of("watermark")],
        "gram_self": [event["gram_self"].tolist() for event in stream.of("geometry")][-1:],
        "settings": {name: stream.settings[name] for name in ("rank", "world_size", "watch")},
    }


def refused() -> dict[str, str]:
    """What a strict attach says of layouts that cannot be read."""
    pair = init_device_mesh("cpu", (2,))
    tensor_parallel = parallelize_module(TorchMoe(), pair, {"head": ColwiseParallel()})
    flat = FullyShardedDataParallel(TorchMoe(), device_id=torch.device("cpu"))
    grid = init_device_mesh("cpu", (2, 1), mesh_dim_names=("pipeline", "data"))
    said = {}
    for name, model in {"tensor": tensor_parallel, "flat": flat, "part": fully_sharded(grid["data"])}.items():
        try:
            attach(model, torch.optim.SGD(model.parameters()), run="r", probe=PROBE, strict=True)
        except ValueError as error:
            said[name] = str(error)
    return said


def main(out: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    observer.RoutingStream = open_stream
    hybrid = init_device_mesh("cpu", (2, 1), mesh_dim_names=("replicas", "shards"))
    halves = MixedPrecisionPolicy(param_dtype=torch.bfloat16)
    makers = {
        "ddp": data_parallel,
        "fsdp2": fully_sharded,
        "kept": lambda: fully_sharded(keep=True),
        "bf16": lambda: fully_sharded(policy=halves),
        "hybrid": lambda: fully_sharded(hybrid),
    }
    results: dict[str, Any] = {
        name: {"plain": train(make, watched=False), "watched": train(make, watched=True)}
        for name, make in makers.items()
    }
    results["refused"] = refused()
    out.write_text(json.dumps(results))
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
