"""A DeepSpeed job watched by pathwatch: modular arithmetic, one data group per operation.

    deepspeed --num_accelerators 2 examples/arithmetic/train.py --server 127.0.0.1:50051

Three groups can be understood and come to be, one after the other, long after their training pairs are
memorized; the fourth has random answers and can only be memorized.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

os.environ.setdefault("DS_ACCELERATOR", "cpu")

import deepspeed
import torch
import torch.distributed as dist
from data import IGNORED, Group, batches, make_groups
from judge import Judge
from model import ArithmeticModel
from torch.nn.functional import cross_entropy

from pathwatch.integrations.deepspeed import Probe, ProbeGroup, attach

GROUPS = ("sub:0.9", "add:0.8", "mul:0.9", "rnd:0.1")
P = 37
BATCH = 512
WARMUP = 50
BALANCE = 1e-3
JUDGE_INTERVAL = 75


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--server", default="127.0.0.1:50051", help="the sidecar, HOST:PORT")
    parser.add_argument("--run", default="arithmetic", help="name of the run")
    parser.add_argument(
        "--out", type=Path, default=Path("demo-out"), help="checkpoints and labels.npz go here"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=2400, help="end here when not stopped before")
    parser.add_argument(
        "--probe-interval", type=int, default=25, help="steps between two readings of the probe"
    )
    parser.add_argument("--probe-samples", type=int, default=128, help="training samples re-read per group")
    parser.add_argument("--save-interval", type=int, default=250, help="steps between two checkpoints")
    parser.add_argument("--local_rank", type=int, default=0, help=argparse.SUPPRESS)
    return parser.parse_args()


def make_engine(seed: int, world_size: int) -> deepspeed.DeepSpeedEngine:
    torch.manual_seed(seed)
    model = ArithmeticModel(p=P, operations=len(GROUPS))
    # DeepSpeed's top-2 gate renormalizes its weights, so nothing holds up the scale of the router's logits:
    # under this much decay every token would come to be routed almost alike.
    is_gate = {name: ".gate." in name for name, _ in model.named_parameters()}
    optimizer = torch.optim.AdamW(
        [
            {"params": [p for name, p in model.named_parameters() if not is_gate[name]]},
            {"params": [p for name, p in model.named_parameters() if is_gate[name]], "weight_decay": 0.0},
        ],
        lr=2e-3,
        betas=(0.9, 0.98),
        weight_decay=2.0,
        fused=True,
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / WARMUP))
    config = {
        "train_micro_batch_size_per_gpu": BATCH // world_size,
        "gradient_clipping": 1.0,
        "steps_per_print": 1 << 30,
    }
    engine, *_ = deepspeed.initialize(model=model, optimizer=optimizer, lr_scheduler=schedule, config=config)
    return engine


def make_probe(groups: list[Group], samples: int, interval: int, seed: int) -> Probe:
    """A fixed random choice of each group's training pairs."""
    generator = torch.Generator().manual_seed(seed)
    chosen = {
        g.name: g.train_ids[torch.randperm(len(g.train_ids), generator=generator)[:samples]] for g in groups
    }
    return Probe(
        groups={
            g.name: ProbeGroup(
                inputs={"tokens_BS": g.tokens_N3[ids]}, sample_ids=ids, labels=g.labels_N3[ids]
            )
            for g in groups
            for ids in [chosen[g.name]]
        },
        interval=interval,
        shift_labels=False,
        visits=True,
    )


def main() -> None:
    args = arguments()
    torch.set_num_threads(1)
    # Gloo does; DeepSpeed's shared-memory operator would first need a compiler and half a minute.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    deepspeed.init_distributed("gloo")
    rank, world_size = dist.get_rank(), dist.get_world_size()
    groups = make_groups(GROUPS, P, args.seed)
    engine = make_engine(args.seed, world_size)
    judge = Judge(groups, args.seed)
    probe = make_probe(groups, args.probe_samples, args.probe_interval, args.seed)
    with attach(
        engine,
        run=args.run,
        server=args.server,
        probe=probe,
        # Stop when two of the four groups are finished: all four would take longer than a demo may.
        policy="quorum",
        policy_options={"quorum": "0.5"},
        keep_observations=True,
    ) as watch:
        for batch in batches(groups, BATCH, rank, world_size, args.seed):
            step = engine.global_steps
            save = watch.should_checkpoint() or (step > 0 and step % args.save_interval == 0)
            if rank == 0 and (save or step % JUDGE_INTERVAL == 0):
                print(judge.look(engine.module, step), flush=True)
            if save:
                engine.save_checkpoint(args.out / "checkpoints", tag=f"step{step}")
            if watch.should_stop() or step >= args.steps:
                break
            for name, sample_ids in batch.sample_ids.items():
                watch.visited(name, sample_ids)
            logits_BSV, balance_loss = engine(batch.tokens_B3)
            loss = cross_entropy(logits_BSV.flatten(0, 1), batch.labels_B3.flatten(), ignore_index=IGNORED)
            engine.backward(loss + BALANCE * balance_loss)
            engine.step()
    if rank == 0:
        judge.save(args.out / "labels.npz")
        print(f"ended at step {engine.global_steps}", flush=True)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
