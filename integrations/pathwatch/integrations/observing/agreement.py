"""All ranks come to the same decision at the same step."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Decision:
    """What the ranks agreed on."""

    stop_at_step: int = -1
    """Stop once this step is done; -1 = train on."""
    checkpoints: int = 0
    """Checkpoints asked for since the run began."""
    failed: bool = False
    """Some rank cannot go on observing."""


class Agreement:
    """Collective calls of the hook, over host memory: the accelerator is neither used nor waited for.

    Every rank must make the same calls at the same steps, also one that has given up observing.
    """

    def __init__(self) -> None:
        self.world_size = dist.get_world_size() if dist.is_initialized() else 1
        self.rank = dist.get_rank() if dist.is_initialized() else 0
        # A group of its own: the job's may be NCCL, and ours must not mix with its traffic.
        self._group = dist.new_group(backend="gloo") if self.world_size > 1 else None
        self._values: Tensor | None = None
        self._work: dist.Work | None = None

    def propose(self, decision: Decision) -> None:
        """Begin to agree: the largest of each value wins; ranks that know nothing propose `Decision()`."""
        self._values = torch.tensor([decision.stop_at_step, decision.checkpoints, int(decision.failed)])
        if self._group is not None:
            self._work = dist.all_reduce(self._values, dist.ReduceOp.MAX, group=self._group, async_op=True)

    def outcome(self) -> Decision | None:
        """What was agreed since `propose`, once; None when nothing was proposed."""
        values, self._values = self._values, None
        if values is None:
            return None
        if self._work is not None:
            self._work.wait()
            self._work = None
        stop_at_step, checkpoints, failed = values.tolist()
        return Decision(stop_at_step, checkpoints, bool(failed))

    def any(self, flag: bool) -> bool:
        """Whether the flag is set on some rank; waits for all."""
        return bool(self.total(torch.tensor([int(flag)])) > 0)

    def largest(self, value: int) -> int:
        """The largest of the ranks' values; waits for all."""
        values = torch.tensor([value])
        if self._group is not None:
            dist.all_reduce(values, dist.ReduceOp.MAX, group=self._group)
        return int(values)

    def total(self, counts: Tensor) -> Tensor:
        """Sum of an integer host tensor over ranks."""
        total = counts.clone()
        if self._group is not None:
            dist.all_reduce(total, group=self._group)
        return total
