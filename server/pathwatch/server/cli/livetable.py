"""A run as a table that changes while it runs."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from pathwatch.server.cli.following import Update
from pathwatch.server.cli.tables import number, phase_text, sparkline, step, table
from pathwatch.server.messages import (
    action_name,
    best_checkpoint_by_group,
    phase_name,
    state_name,
    stop_at_step,
)
from pathwatch.v1 import signal_pb2

_DISTANCE = "path_distance_normalized"
_COLUMNS = ("since", "loss", "unseen", "distance", "d_eff", "affinity", "memorized", "checkpoint")


class LiveTable:
    """Remembers the newest window of each group and the course of its path distance."""

    def __init__(self) -> None:
        self._update: Update | None = None
        self._newest: dict[str, signal_pb2.Window] = {}
        self._distances: dict[str, list[float]] = {}
        self._changes: dict[str, tuple[str, int]] = {}

    def take(self, update: Update) -> list[str]:
        """Takes in what is new; returns one line per change of phase or action, for plain terminals."""
        lines = []
        if update.rewound:
            self._newest.clear()
            self._distances.clear()
            self._changes.clear()
            lines.append(f"attempt {update.run.attempt} begins")
        for window in update.windows:
            phase = phase_name(window.phase)
            if self._changes.get(window.group, ("", 0))[0] != phase:
                self._changes[window.group] = phase, window.step
                lines.append(f"step {window.step}: {window.group} is {phase}: {window.reason}")
            self._newest[window.group] = window
            if _DISTANCE in window.metrics:
                self._distances.setdefault(window.group, []).append(window.metrics[_DISTANCE])
        before = "CONTINUE" if self._update is None else action_name(self._update.signal.action)
        for signal in update.signals:
            action = action_name(signal.action)
            if action != before and (action != "CONTINUE" or before == "STOP"):
                stop = stop_at_step(signal)
                at = "" if stop is None else f" at step {stop}"
                lines.append(f"step {signal.step}: told to {action}{at}: {signal.reason}")
            before = action
        self._update = update
        return lines

    def __rich__(self) -> Group:
        if self._update is None:
            return Group(Text("waiting for the run"))
        run, signal = self._update.run, self._update.signal
        stop = stop_at_step(signal)
        head = Text.assemble(
            (run.name, "bold"),
            f"  step {run.step}  {state_name(run.state).lower()}  ",
            (action_name(signal.action) + ("" if stop is None else f" at step {stop}"), "bold"),
            "  (stale)" if signal.stale else "",
        )
        return Group(head, Text(signal.reason), self._table(best_checkpoint_by_group(signal)))

    def _table(self, best: dict[str, int]) -> Table:
        listing = table("group", "phase", *_COLUMNS, "distance so far", right=_COLUMNS)
        for group, window in sorted(self._newest.items()):
            metrics = window.metrics
            phase, since = self._changes[group]
            listing.add_row(
                group,
                phase_text(phase),
                str(since),
                number(metrics, "train_loss"),
                number(metrics, "unseen_loss"),
                number(metrics, _DISTANCE),
                number(metrics, "effective_dimension", 2),
                number(metrics, "target_affinity"),
                number(metrics, "memorized_ratio", 2),
                step(best.get(group)),
                sparkline(self._distances.get(group, [])),
            )
        return listing


def show(updates: Iterable[Update], console: Console) -> None:
    """Draws the updates until they end: a live table on a terminal, else a line for every change."""
    live_table = LiveTable()
    if not console.is_terminal:
        for update in updates:
            for line in live_table.take(update):
                console.print(line, highlight=False, markup=False, soft_wrap=True)
        return
    with Live(live_table, console=console, refresh_per_second=4):
        for update in updates:
            live_table.take(update)
