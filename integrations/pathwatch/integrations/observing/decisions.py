"""What the service wants, answered alike on every rank."""

from __future__ import annotations

from dataclasses import replace

from pathwatch.integrations.observing.agreement import Agreement, Decision
from pathwatch.v1 import signal_pb2


class Decisions:
    """Follows the signal on rank 0 and agrees on it with the other ranks every `check_interval` steps."""

    def __init__(self, agreement: Agreement, check_interval: int) -> None:
        self._agreement = agreement
        self._check_interval = check_interval
        self._agreed = Decision()
        self._wanted = Decision()
        self._round_saved: int | None = None
        self._checkpoint_wanted = False
        self._asked_at: int | None = None

    def after_step(self, step: int, signal: signal_pb2.Signal | None, *, failed: bool) -> bool:
        """Take in what was agreed last, and begin to agree anew where it is time. Collective.

        Args:
            step: optimizer steps done.
            signal: the newest, on the rank that follows it.
            failed: this rank cannot go on observing.

        Returns:
            False when some rank cannot go on: from here on none may observe, nor call this.
        """
        if self._asked_at is not None and self._asked_at != step:
            self._checkpoint_wanted, self._asked_at = False, None
        if signal is not None and not signal.stale:
            self._note(signal)
        outcome = self._agreement.outcome()
        if outcome is not None:
            self._checkpoint_wanted |= outcome.checkpoints > self._agreed.checkpoints
            self._agreed = outcome
            if outcome.failed:
                self._agreed = Decision()
                return False
        if step % self._check_interval == 0:
            wanted = self._wanted
            self._agreement.propose(Decision(wanted.stop_at_step, wanted.checkpoints, failed))
        return True

    def go_back(self) -> None:
        """The job went back: a stop that was decided on what came after does not stand. Collective."""
        self._wanted = replace(self._wanted, stop_at_step=-1)
        self._agreed = replace(self._agreed, stop_at_step=-1)

    def should_checkpoint(self, step: int) -> bool:
        """True at the first step at which it is asked after the service wanted a checkpoint."""
        if self._checkpoint_wanted and self._asked_at is None:
            self._asked_at = step
        return self._asked_at == step

    def answered(self) -> None:
        """What was asked for is saved: not once more at this step, which may have further micro-batches."""
        if self._asked_at is not None:
            self._checkpoint_wanted, self._asked_at = False, None

    def should_stop(self, step: int) -> bool:
        """True from the agreed step on."""
        return 0 <= self._agreed.stop_at_step <= step

    def _note(self, signal: signal_pb2.Signal) -> None:
        checkpoints = self._wanted.checkpoints
        if signal.action == signal_pb2.ACTION_CHECKPOINT and signal.step != self._round_saved:
            self._round_saved = signal.step
            checkpoints += 1
        stop = signal.action == signal_pb2.ACTION_STOP and signal.HasField("stop_at_step")
        self._wanted = Decision(signal.stop_at_step if stop else -1, checkpoints)
