"""Plain PyTorch with FSDP2 (`fully_shard`, in bfloat16), watched by pathwatch: routers are sharded, too.

torchrun --nproc-per-node 2 examples/frameworks/train_fsdp2.py --run-name fsdp2 --server 127.0.0.1:50051
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from tiny_task import LEARNING_RATE, Sequences, arguments, batches, make_model, make_probe
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

from pathwatch.integrations.pytorch import attach


def main() -> None:
    args = arguments(__doc__)
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    rank, world_size = dist.get_rank(), dist.get_world_size()
    data = Sequences()
    model = make_model()
    policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16)
    for layer in model.model.layers:
        fully_shard(layer, mp_policy=policy)
    fully_shard(model, mp_policy=policy)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE)
    loop: dict[str, Any] = {"step": 0, "watch": {}}
    if args.resume:
        weights, moments = get_state_dict(model, optimizer)
        dcp.load({"model": weights, "optimizer": moments}, checkpoint_id=args.resume)
        set_state_dict(model, optimizer, model_state_dict=weights, optim_state_dict=moments)
        loop = torch.load(args.resume / "loop.pt", weights_only=True)
    step = loop["step"]

    probe = make_probe(data, interval=args.probe_interval)
    # After loading: torch makes an optimizer without state step once, to have something to load into.
    with attach(model, optimizer, start_step=step, run=args.run, server=args.server, probe=probe) as watch:
        watch.load_state_dict(loop["watch"])
        for batch in batches(data, first_step=step, rank=rank, world_size=world_size):
            loss = model(**batch).loss
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            step += 1
            last = step >= args.steps or watch.should_stop()
            if watch.should_checkpoint() or last:
                path = args.out / f"step{step}"
                weights, moments = get_state_dict(model, optimizer)
                dcp.save({"model": weights, "optimizer": moments}, checkpoint_id=path)
                loop = {"step": step, "watch": watch.state_dict(path.name, path)}
                if rank == 0:
                    torch.save(loop, path / "loop.pt")
                watch.checkpoint_saved(path.name, path)
            if last:
                break
        best = watch.best_checkpoint()
    if rank == 0:
        print(f"ended at step {step}, loss {loss.item():.3f}, best checkpoint: {best}", flush=True)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
