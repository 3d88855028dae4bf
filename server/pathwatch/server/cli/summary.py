"""What a whole replay came to."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console

from pathwatch.server.cli.lines import signal_line
from pathwatch.server.cli.tables import phase_text, step, table
from pathwatch.server.messages import action_name, best_checkpoint_by_group, phase_name
from pathwatch.v1 import signal_pb2


class ReplaySummary:
    """Collects windows and signals in order; keeps the changes alone."""

    def __init__(self, run: str) -> None:
        self._run = run
        self._history: dict[str, list[tuple[str, int]]] = {}
        self._last = signal_pb2.Signal(action=signal_pb2.ACTION_CONTINUE, step=-1)
        self._first_stop: signal_pb2.Signal | None = None
        self._windows = 0

    def add(self, windows: Iterable[signal_pb2.Window], signals: Iterable[signal_pb2.Signal]) -> None:
        for window in windows:
            self._windows += 1
            history = self._history.setdefault(window.group, [])
            phase = phase_name(window.phase)
            if not history or history[-1][0] != phase:
                history.append((phase, window.step))
        for signal in signals:
            self._last = signal
            if signal.action == signal_pb2.ACTION_STOP and self._first_stop is None:
                self._first_stop = signal

    def line(self) -> dict[str, object]:
        """The last JSON line."""
        last = _without_type(self._last)
        return {
            "type": "summary",
            "run": self._run,
            "windows": self._windows,
            "signal": last,
            "phase_history": {
                group: [{"phase": phase, "step": since} for phase, since in history]
                for group, history in sorted(self._history.items())
            },
            "first_stop": None if self._first_stop is None else _without_type(self._first_stop),
            "best_checkpoint_step": last["best_checkpoint_step"],
            "best_checkpoint_by_group": last["best_checkpoint_by_group"],
        }

    def show(self, console: Console) -> None:
        """A table for people."""
        best = best_checkpoint_by_group(self._last)
        listing = table("group", "phase", "since", "checkpoint", "history", right=("since", "checkpoint"))
        for group, history in sorted(self._history.items()):
            phase, since = history[-1]
            listing.add_row(
                group,
                phase_text(phase),
                str(since),
                step(best.get(group)),
                " → ".join(f"{phase} {since}" for phase, since in history),
            )
        console.print(listing)
        stop = self._first_stop
        if stop is not None:
            console.print(f"told to stop at step {stop.stop_at_step}: {stop.reason}", highlight=False)
        else:
            console.print(f"{action_name(self._last.action)}: {self._last.reason}", highlight=False)


def _without_type(signal: signal_pb2.Signal) -> dict[str, object]:
    return {name: value for name, value in signal_line(signal).items() if name != "type"}
