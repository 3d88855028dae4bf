"""One of two ranks of a DeepSpeed job that is killed and resumed, run by test_checkpointing.py."""

from __future__ import annotations

import json
import signal
import sys
import time
from pathlib import Path

import deepspeed
import torch
from deepspeed.moe.layer import MoE

from pathwatch.integrations.deepspeed import Probe, ProbeGroup, attach
from pathwatch.v1 import run_pb2

TOKENS = torch.randint(16, (4, 6), generator=torch.Generator().manual_seed(1))
SAVED = (4, 8)


class Model(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = torch.nn.Embedding(16, 8)
        self.layers = torch.nn.ModuleList(
            # Which tokens do not fit would be drawn at random.
            MoE(8, torch.nn.Linear(8, 8), num_experts=4, k=1, drop_tokens=False)
            for _ in "ab"
        )
        self.head = torch.nn.Linear(8, 16)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.embedding(tokens)
        for layer in self.layers:
            x = x + layer(x)[0]
        return self.head(x)


def main(out: Path, server: str, until: str) -> None:
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    deepspeed.init_distributed("gloo", verbose=False)
    rank = torch.distributed.get_rank()
    torch.manual_seed(0)
    model = Model()
    engine, *_ = deepspeed.initialize(
        model=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
        config={
            "train_micro_batch_size_per_gpu": 4,
            "steps_per_print": 1 << 30,
            "pathwatch": {"run": "life", "server": server, "check_interval": 2, "probe": {"interval": 2}},
        },
    )
    group = ProbeGroup(inputs={"tokens": TOKENS}, sample_ids=torch.arange(4), labels=TOKENS)
    watch = attach(
        engine,
        probe=Probe(groups={"a": group}, shift_labels=False, visits=True),
        # What rank 0 reads once it is alone is not to be judged before the test has looked.
        config=run_pb2.RunConfig(grace_seconds=3600),
    )
    checkpoints = out / "checkpoints"
    if (checkpoints / "latest").exists():
        engine.load_checkpoint(checkpoints)
    while engine.global_steps < (7 if until == "killed" else 10):
        watch.visited("a", [0] if rank == 0 else [0, 1])
        engine.backward(engine(TOKENS).square().mean())
        engine.step()
        if engine.global_steps in SAVED:
            engine.save_checkpoint(checkpoints)
    if until == "killed":
        signal.pause()
    heard = {"visits": watch.state_dict()["probe"]["a"]["visits"].tolist()}
    for _ in range(300):  # as often on both ranks: it is collective
        heard["best"] = watch.best_checkpoint()
        if heard["best"] == "global_step8":
            break
        time.sleep(0.1)
    if rank == 1:
        watch.close()
    if rank == 0:
        for _ in range(6):
            engine.global_steps += 1
            watch.after_step()
        watch.close()
    (out / f"{rank}.json").write_text(json.dumps(heard))
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3])
