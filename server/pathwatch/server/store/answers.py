"""What a store answers that is more than rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pathwatch.server.store.rows import SignalRow, WindowRow


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """Windows and signals that belong together, read at one moment."""

    windows: Sequence[WindowRow]
    """By step, then group; without evidence and losses (empty bytes)."""
    signals: Sequence[SignalRow]
    """Oldest first."""
    closed_step: int
    """Newest judged step of the run; -1 = none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StorageInfo:
    """Room taken and left where the state is kept."""

    free_bytes: int
    """Left on the file system, for this process; of Redis, below its memory limit."""
    size_bytes: int
    """Of the file system; of Redis, its memory limit, or the memory of its machine."""
    database_bytes: int
    """Of the database and its log; of Redis, the memory that it uses."""
    snapshot_taken_at: float | None
    """When the newest snapshot was taken, seconds since the epoch; None = there is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ThinnedHistory:
    """Windows that stand for a run's history, read at one moment."""

    windows: Mapping[str, Sequence[WindowRow]]
    """Of each group asked for, by step; without evidence and losses (empty bytes)."""
    stride: int
    """How many windows there are for each that is here, in the group where that is most; 1 = all are here."""
    attempt: int
    """The run's current one."""
    closed_step: int
    """Newest judged step of the run; -1 = none."""
