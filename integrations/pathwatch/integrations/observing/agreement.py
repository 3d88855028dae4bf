"""All ranks come to the same decision at the same step."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from pathwatch.client.logs import QuietLogger

_logger = QuietLogger("pathwatch.integrations")


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

    Every rank must make the same calls at the same steps, also one that has given up observing. When another
    rank has ended or closed, the call that it is missing from fails on all others alike: from then on nobody
    waits for anybody, every rank speaks for itself, and `outcome` says that the ranks must give up.
    """

    def __init__(self, *, joined: bool = True) -> None:
        """Collective, unless not `joined`: a rank by itself."""
        together = joined and dist.is_initialized()
        self.world_size = dist.get_world_size() if together else 1
        self.rank = dist.get_rank() if dist.is_initialized() else 0
        # A group of its own: the job's may be NCCL, and ours must not mix with its traffic.
        self._group = dist.new_group(backend="gloo") if self.world_size > 1 else None
        self.lost = False
        """Another rank is gone."""
        self._values: Tensor | None = None
        self._work: dist.Work | None = None

    def propose(self, decision: Decision) -> None:
        """Begin to agree: the largest of each value wins; ranks that know nothing propose `Decision()`."""
        self._values = torch.tensor([decision.stop_at_step, decision.checkpoints, int(decision.failed)])
        if self._group is not None:
            try:
                self._work = dist.all_reduce(
                    self._values, dist.ReduceOp.MAX, group=self._group, async_op=True
                )
            except RuntimeError as error:
                self._lose(error)

    def outcome(self) -> Decision | None:
        """What was agreed since `propose`, once; None when nothing was proposed."""
        values, self._values = self._values, None
        work, self._work = self._work, None
        if work is not None:
            try:
                work.wait()
            except RuntimeError as error:
                self._lose(error)
        if self.lost:
            return Decision(failed=True)
        if values is None:
            return None
        stop_at_step, checkpoints, failed = values.tolist()
        return Decision(stop_at_step, checkpoints, bool(failed))

    def any(self, flag: bool) -> bool:
        """Whether the flag is set on some rank; waits for all."""
        found = bool(self.total(torch.tensor([int(flag)])) > 0)
        return found or self.lost

    def largest(self, value: int) -> int:
        """The largest of the ranks' values; waits for all."""
        return int(self._reduced(torch.tensor([value]), dist.ReduceOp.MAX))

    def total(self, counts: Tensor) -> Tensor:
        """Sum of an integer host tensor over ranks."""
        return self._reduced(counts, dist.ReduceOp.SUM)

    def first(self, value: int) -> int:
        """The value of rank 0, on every rank."""
        return int(self.total(torch.tensor([value if self.rank == 0 else 0])))

    def first_text(self, text: str | None) -> str | None:
        """The text of rank 0, on every rank."""
        if self.world_size == 1:
            return text
        encoded = (text or "").encode() if self.rank == 0 else b""
        length = self.first(-1 if text is None else len(encoded))
        if self.lost or length < 0:
            return None
        letters = torch.zeros(length, dtype=torch.int64)
        letters[: len(encoded)] = torch.tensor(list(encoded), dtype=torch.int64)
        told = self.total(letters)
        return None if self.lost else bytes(told.tolist()).decode()

    def close(self) -> None:
        """Leave: others that still wait for this rank are let go, and give up. Not collective."""
        group, self._group = self._group, None
        self._work = self._values = None
        if group is not None and dist.is_initialized():
            dist.destroy_process_group(group)

    def _reduced(self, values: Tensor, operation: dist.ReduceOp.RedOpType) -> Tensor:
        reduced = values.clone()
        if self._group is None:
            return reduced
        try:
            dist.all_reduce(reduced, operation, group=self._group)
        except RuntimeError as error:
            self._lose(error)
            return values.clone()
        return reduced

    def _lose(self, error: RuntimeError) -> None:
        _logger.warning(
            "pathwatch: another rank has ended or closed its watch, so the ranks cannot agree any more; this "
            "one stops observing, training goes on (%s)",
            str(error).splitlines()[0],
        )
        self.lost = True
        self.close()
