"""One of three ranks of test_agreement.py: they agree until rank 2 closes, and again until it is killed."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from pathwatch.integrations.observing.agreement import Agreement, Decision


def agree(agreement: Agreement) -> dict[str, Any]:
    """All kinds of agreement, while all ranks are there."""
    rank = agreement.rank
    agreed = []
    for step in range(3):
        agreement.propose(Decision(stop_at_step=10 * rank + step, checkpoints=step, failed=False))
        outcome = agreement.outcome()
        assert outcome is not None
        agreed.append(outcome.stop_at_step)
    return {
        "agreed": agreed,
        "total": agreement.total(torch.tensor([rank, 1])).tolist(),
        "largest": agreement.largest(rank),
        "first": agreement.first(rank + 7),
        "texts": [agreement.first_text(text if rank == 0 else "other") for text in ("größte", "", None)],
    }


def go_on(agreement: Agreement) -> dict[str, Any]:
    """What is heard once rank 2 is gone."""
    started = time.monotonic()
    agreement.propose(Decision(stop_at_step=5))
    outcomes = [agreement.outcome(), agreement.outcome()]
    return {
        "gave_up": [outcome is not None and outcome.failed for outcome in outcomes],
        "alone": [agreement.total(torch.tensor([3])).item(), agreement.any(False)],
        "seconds": time.monotonic() - started,
    }


def main(out: Path) -> None:
    dist.init_process_group("gloo")
    heard = []
    for how in ("closes", "is killed"):
        agreement = Agreement()
        together = agree(agreement)
        if agreement.rank == 2:
            if how == "is killed":
                os.kill(os.getpid(), signal.SIGKILL)
            agreement.close()
        else:
            heard.append(together | go_on(agreement))
        if how == "closes":
            # The job's own traffic is not touched.
            shared = torch.ones(1)
            dist.all_reduce(shared)
            assert shared.item() == 3
    out.write_text(json.dumps(heard))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
