"""What was last said about a run: its signal, newest windows, and how often phases changed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from pathwatch.server.engine.judge import Judgement
from pathwatch.server.engine.signals import first_signal, next_signal
from pathwatch.server.store.rows import PutSignal, SignalRow, WindowRow
from pathwatch.v1 import signal_pb2


class Standing:
    """Changed by the writer thread after each round; what it gives out is never changed."""

    def __init__(self, run: str, created_at: float) -> None:
        self.signal = first_signal(run, created_at)
        self.windows: Mapping[str, WindowRow] = {}
        """Newest window of each group, without evidence and losses."""
        self.phase_changes: Mapping[str, int] = {}
        """Of each group, since the server started: what a rewind supersedes still happened."""

    def restore(self, signal: signal_pb2.Signal, windows: Iterable[WindowRow]) -> None:
        """Take over what the store knows."""
        self.signal = signal
        self.windows = {window.group: window for window in windows}

    def take_windows(self, windows: Iterable[WindowRow]) -> None:
        """The windows of a judged round."""
        newest, changes = dict(self.windows), dict(self.phase_changes)
        for window in windows:
            before = newest.get(window.group)
            if before and before.phase != window.phase:
                changes[window.group] = changes.get(window.group, 0) + 1
            newest[window.group] = replace(window, evidence=b"", losses=b"")
        self.windows, self.phase_changes = newest, changes

    def take_judgement(
        self,
        judgement: Judgement,
        *,
        newest_step: int,
        stop_margin_steps: int,
        now: float,
        keep_stop: bool = True,
    ) -> None:
        """Say what follows from a round; arguments as of `next_signal`."""
        self.signal = next_signal(
            self.signal,
            judgement,
            newest_step=newest_step,
            stop_margin_steps=stop_margin_steps,
            now=now,
            keep_stop=keep_stop,
        )

    def signal_write(self) -> PutSignal:
        """The signal for the store."""
        return PutSignal(
            row=SignalRow(
                run=self.signal.run,
                revision=self.signal.revision,
                step=self.signal.step,
                signal=self.signal.SerializeToString(),
            )
        )
