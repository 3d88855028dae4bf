"""One of two ranks of a DeepSpeed job, run by test_decisions.py: trains and writes what it was told."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import deepspeed
import torch
from deepspeed.moe.layer import MoE

from pathwatch.integrations.deepspeed import Probe, ProbeGroup, attach
from pathwatch.integrations.observing import observer
from pathwatch.v1 import signal_pb2

TOKENS = torch.randint(16, (7, 6), generator=torch.Generator().manual_seed(1))


class Model(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = torch.nn.Embedding(16, 8)
        self.moe = MoE(8, torch.nn.Linear(8, 8), num_experts=4, k=1)
        self.passes = 0

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        self.passes += not self.training
        return self.moe(self.embedding(tokens))[0]


class Stream:
    """Gives signals by itself, as a service would, and keeps what it is sent."""

    def __init__(self, server: str, **settings: Any) -> None:
        self.signal: signal_pb2.Signal | None = None
        self.rank = settings["rank"]
        self.observed: dict[int, list[tuple[int, int]]] = {}
        self.watermarks: list[int] = []
        self.geometries = 0

    def observe(self, *, step: int, sample_ids: Any, visits: Any, **_: Any) -> None:
        self.observed.setdefault(step, []).extend(zip(sample_ids.tolist(), visits.tolist(), strict=True))

    def geometry(self, **_: Any) -> None:
        self.geometries += 1

    def watermark(self, step: int) -> None:
        self.watermarks.append(step)

    def register_checkpoint(self, **_: Any) -> None: ...

    def flush(self, timeout: float) -> None: ...

    def close(self, timeout: float) -> None: ...


def main(out: Path, mode: str) -> None:
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    deepspeed.init_distributed("gloo", verbose=False)
    rank = torch.distributed.get_rank()
    opened: list[Stream] = []

    def open_stream(server: str, **settings: Any) -> Stream:
        opened.append(Stream(server, **settings))
        return opened[-1]

    observer.RoutingStream = open_stream
    torch.manual_seed(0)
    model = Model()
    engine, *_ = deepspeed.initialize(
        model=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
        config={"train_micro_batch_size_per_gpu": 7, "steps_per_print": 1 << 30},
    )

    def forward(engine: Any, inputs: Any) -> torch.Tensor:
        if mode == "failure" and rank == 1:
            raise RuntimeError("out of memory")
        return engine(**inputs)

    group = ProbeGroup(inputs={"tokens": TOKENS}, sample_ids=torch.arange(7))
    probe = Probe(groups={"a": group}, interval=5, batch_size=2, visits=True, forward=forward)
    losses, checkpoints, stopped_at = [], [], None
    with attach(engine, run="r", probe=probe, check_interval=3) as watch:
        while engine.global_steps < 30 if mode == "signals" else engine.global_steps < 20:
            watch.visited("a", [0] if rank == 0 else [0, 1])
            loss = engine(TOKENS).square().mean()
            engine.backward(loss)
            engine.step()
            losses.append(loss.item())
            step = engine.global_steps
            if rank == 0 and mode == "signals":
                opened[0].signal = _signal(step)
            if watch.should_checkpoint():
                checkpoints.append(step)
                watch.checkpoint_saved()
            if watch.should_stop():
                stopped_at = step
                break
    stream = opened[0]
    newest = dict(stream.observed.get(20, []))
    out.write_text(
        json.dumps(
            {
                "checkpoints": checkpoints,
                "stopped_at": stopped_at,
                "losses": losses,
                "sample_ids": [i for i, _ in stream.observed.get(0, [])],
                "visits": newest,
                "watermarks": stream.watermarks,
                "geometry": stream.geometries,
                "forward_passes": model.passes,
            }
        )
    )
    torch.distributed.destroy_process_group()


def _signal(step: int) -> signal_pb2.Signal:
    if step < 7:
        return signal_pb2.Signal(step=0, action=signal_pb2.ACTION_CONTINUE)
    if step < 12:
        return signal_pb2.Signal(step=5, action=signal_pb2.ACTION_CHECKPOINT)
    return signal_pb2.Signal(step=10, action=signal_pb2.ACTION_STOP, stop_at_step=20)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
