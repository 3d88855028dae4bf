"""Runs that say what a test wants, as an engine and its store would: for what listens to changes."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pathwatch.server.engine.clock import Clock
from pathwatch.server.engine.signals import stale_signal
from pathwatch.server.store.rows import DeleteRun, PutSignal, SignalRow
from pathwatch.server.store.sqlite import SqliteStore
from pathwatch.v1 import run_pb2, signal_pb2

PATIENCE_SECONDS = 3600.0


@dataclass(frozen=True)
class ToldView:
    """Of a run, as much as concerns what it is told."""

    run: run_pb2.Run
    last_signal: signal_pb2.Signal
    updated_at: float
    inherited_revision: int = 0

    def signal(self, now: float) -> signal_pb2.Signal:
        is_stale = self.run.state == run_pb2.RUN_STATE_ACTIVE and now > self.updated_at + PATIENCE_SECONDS
        return stale_signal(self.last_signal, self.updated_at) if is_stale else self.last_signal


class ToldRuns:
    """Stands in for the engine: `views`, `listen`; `store` is a real one. Its clocks stand still."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self.store = SqliteStore(data)
        self.views: dict[str, ToldView] = {}
        self.wall = 1_700_000_000.0
        self.steady = 0.0
        self.clock = Clock(wall=lambda: self.wall, steady=lambda: self.steady)
        self.inherited: dict[str, int] = {}
        """Up to which revision another server has told of a run that is here now."""
        self._listeners: list[Callable[[str], None]] = []
        self._created: dict[str, float] = {}

    def listen(self, listener: Callable[[str], None]) -> None:
        self._listeners.append(listener)

    def pass_time(self, seconds: float) -> None:
        self.wall += seconds
        self.steady += seconds

    def say(
        self,
        run: str,
        action: str = "CONTINUE",
        *,
        reason: str = "so it is",
        best: int | None = None,
        **phases: str,
    ) -> int:
        """Give the next signal of a run, which is made with the first; its revision."""
        self.wall += 1
        self._created.setdefault(run, self.wall)
        former = self.views.get(run)
        revision = former.last_signal.revision + 1 if former else 1
        signal = signal_pb2.Signal(
            run=run,
            revision=revision,
            step=10 * revision,
            action=signal_pb2.Action.Value(f"ACTION_{action}"),
            reason=reason,
            best_checkpoint_step=best,
            groups=[
                signal_pb2.GroupStatus(
                    group=group,
                    phase=signal_pb2.Phase.Value(f"PHASE_{phase}"),
                    since_step=10 * revision,
                    reason=reason,
                    evidence={"drop": 0.25},
                )
                for group, phase in sorted(phases.items())
            ],
        )
        if action == "STOP":
            signal.stop_at_step = signal.step + 5
        _stamp(signal.created_at, self.wall)
        row = SignalRow(run=run, revision=revision, step=signal.step, signal=signal.SerializeToString())
        self.store.commit([PutSignal(row=row)])
        self._show(run, signal)
        return revision

    def finish(self, run: str) -> None:
        self._show(run, self.views[run].last_signal, finished=True)

    def delete(self, run: str) -> None:
        self.store.commit([DeleteRun(run=run)])
        self.views = {name: view for name, view in self.views.items() if name != run}
        del self._created[run]
        self._notify(run)

    def put_back(self, run: str, revision: int) -> None:
        """An older snapshot of the store, in which the run has no later signals."""
        rows = [row for row in self.store.signals(run) if row.revision <= revision]
        created = self._created[run]
        self.delete(run)
        self._created[run] = created
        self.store.commit([PutSignal(row=row) for row in rows])
        self._show(run, signal_pb2.Signal.FromString(rows[-1].signal))

    def _show(self, run: str, signal: signal_pb2.Signal, *, finished: bool = False) -> None:
        state = run_pb2.RUN_STATE_FINISHED if finished else run_pb2.RUN_STATE_ACTIVE
        shown = run_pb2.Run(name=run, state=state, step=signal.step)
        _stamp(shown.created_at, self._created[run])
        self.views = self.views | {run: ToldView(shown, signal, self.wall, self.inherited.get(run, 0))}
        self._notify(run)

    def _notify(self, run: str) -> None:
        for listener in self._listeners:
            listener(run)


def _stamp(stamp: object, seconds: float) -> None:
    stamp.FromDatetime(datetime.datetime.fromtimestamp(seconds, datetime.UTC))  # type: ignore[attr-defined]
