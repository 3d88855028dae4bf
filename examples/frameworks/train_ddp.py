"""Plain PyTorch with DDP, watched by pathwatch.

torchrun --nproc-per-node 2 examples/frameworks/train_ddp.py --run-name ddp --server 127.0.0.1:50051
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from tiny_task import LEARNING_RATE, Sequences, arguments, batches, make_model, make_probe
from torch.nn.parallel import DistributedDataParallel

from pathwatch.integrations.pytorch import attach


def main() -> None:
    args = arguments(__doc__)
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    rank, world_size = dist.get_rank(), dist.get_world_size()
    data = Sequences()
    model = DistributedDataParallel(make_model())
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE)
    state: dict[str, Any] = {"step": 0, "watch": {}}
    if args.resume:
        state = torch.load(args.resume, weights_only=True)
        model.module.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
    step = state["step"]

    probe = make_probe(data, interval=args.probe_interval)
    with attach(model, optimizer, start_step=step, run=args.run, server=args.server, probe=probe) as watch:
        watch.load_state_dict(state["watch"])
        for batch in batches(data, first_step=step, rank=rank, world_size=world_size):
            loss = model(**batch).loss
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            step += 1
            last = step >= args.steps or watch.should_stop()
            if watch.should_checkpoint() or last:
                path = args.out / f"step{step}.pt"
                state = {
                    "step": step,
                    "model": model.module.state_dict(),
                    "optimizer": optimizer.state_dict(),
                    "watch": watch.state_dict(path.name, path),
                }
                if rank == 0:
                    args.out.mkdir(parents=True, exist_ok=True)
                    torch.save(state, path)
                watch.checkpoint_saved(path.name, path)
            if last:
                break
        best = watch.best_checkpoint()
    if rank == 0:
        print(f"ended at step {step}, loss {loss.item():.3f}, best checkpoint: {best}", flush=True)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
