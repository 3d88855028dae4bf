"""One of three ranks of test_agreement.py: agrees a few times, until rank 2 goes."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

import torch
import torch.distributed as dist

from pathwatch.integrations.observing.agreement import Agreement, Decision


def main(out: Path, how: str) -> None:
    dist.init_process_group("gloo")
    agreement = Agreement()
    rank = agreement.rank
    agreed = []
    for step in range(3):
        agreement.propose(Decision(stop_at_step=10 * rank + step, checkpoints=step, failed=False))
        outcome = agreement.outcome()
        assert outcome is not None
        agreed.append(outcome.stop_at_step)
    heard = {
        "agreed": agreed,
        "total": agreement.total(torch.tensor([rank, 1])).tolist(),
        "largest": agreement.largest(rank),
        "first": agreement.first(rank + 7),
        "texts": [agreement.first_text(text if rank == 0 else "other") for text in ("größte", "", None)],
    }
    if rank == 2:
        if how == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        agreement.close()
    else:
        started = time.monotonic()
        agreement.propose(Decision(stop_at_step=5))
        outcomes = [agreement.outcome(), agreement.outcome()]
        heard["gave_up"] = [outcome is not None and outcome.failed for outcome in outcomes]
        heard["alone"] = [agreement.total(torch.tensor([3])).item(), agreement.any(False)]
        heard["seconds"] = time.monotonic() - started
        if how == "closed":
            # The job's own traffic is not touched.
            shared = torch.ones(1)
            dist.all_reduce(shared)
            heard["job"] = shared.item()
    out.write_text(json.dumps(heard))
    if rank == 2:
        shared = torch.ones(1)
        dist.all_reduce(shared)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
