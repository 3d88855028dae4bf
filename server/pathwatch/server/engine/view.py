"""What readers see of a run: swapped in whole after each commit, never changed."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass, replace

from pathwatch.server.engine.health import RunHealth
from pathwatch.server.engine.signals import stale_signal
from pathwatch.server.engine.standing import Standing
from pathwatch.server.store.rows import RunRow, WindowRow
from pathwatch.v1 import run_pb2, signal_pb2


@dataclass(frozen=True, slots=True, kw_only=True)
class RunView:
    """A run at one moment. The messages in it are shared: copy before changing."""

    run: run_pb2.Run
    last_signal: signal_pb2.Signal
    """As it was given; see `signal`."""
    windows: Mapping[str, WindowRow]
    """Newest window of each group, without evidence and losses."""
    phase_changes: Mapping[str, int]
    """Changes of phase of each group since the server started."""
    groups: tuple[str, ...]
    """Groups seen, in the order they came: one that comes later moves none before it."""
    checkpoints: int
    """Registered checkpoints that are not superseded."""
    registrations: int
    """How often one was registered since the server started, again under another tag included."""
    inherited_revision: int
    """Of the newest signal that another server has given, and told of; 0 = there is none."""
    updated_at: float
    """When data last came, seconds since the epoch."""
    patience: float
    """Seconds without data after which nobody knows what the run does."""
    health: RunHealth

    def stale_at(self) -> float | None:
        """When the signal becomes stale if no data comes, seconds since the epoch; None = never."""
        if self.run.state != run_pb2.RUN_STATE_ACTIVE:
            return None
        return self.updated_at + self.patience

    def is_stale(self, now: float) -> bool:
        """Whether nobody knows any more what the run does at `now` (seconds since the epoch)."""
        stale_at = self.stale_at()
        return stale_at is not None and now > stale_at

    def disconnected(self) -> RunView:
        """The run as it was last, its streams ended."""
        return replace(self, health=replace(self.health, connected_ranks=0))

    def signal(self, now: float) -> signal_pb2.Signal:
        """The signal as it reads at `now` (seconds since the epoch)."""
        if self.is_stale(now):
            return stale_signal(self.last_signal, self.updated_at)
        return self.last_signal


def view_of(
    row: RunRow,
    config: run_pb2.RunConfig,
    standing: Standing,
    *,
    checkpoints: int,
    registrations: int,
    inherited_revision: int,
    patience: float,
    health: RunHealth,
) -> RunView:
    """What readers are to see from now on."""
    return RunView(
        run=run_message(row, config),
        last_signal=standing.signal,
        windows=standing.windows,
        phase_changes=standing.phase_changes,
        groups=row.groups,
        checkpoints=checkpoints,
        registrations=registrations,
        inherited_revision=inherited_revision,
        updated_at=row.updated_at,
        patience=patience,
        health=health,
    )


def run_message(row: RunRow, config: run_pb2.RunConfig) -> run_pb2.Run:
    """What callers are told of a run that is stored."""
    run = run_pb2.Run(
        name=row.name,
        config=config,
        state=run_pb2.RUN_STATE_FINISHED if row.finished else run_pb2.RUN_STATE_ACTIVE,
        attempt=row.attempt,
        step=row.step,
        world_size=row.world_size,
        groups=sorted(row.groups),
        closed_step=row.closed_step,
    )
    for stamp, seconds in ((run.created_at, row.created_at), (run.updated_at, row.updated_at)):
        stamp.FromDatetime(datetime.datetime.fromtimestamp(seconds, datetime.UTC))
    return run
