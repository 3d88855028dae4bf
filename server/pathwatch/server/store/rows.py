"""What is durable, as plain rows, and the writes that change it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pathwatch.server.phases.verdict import Checkpoint


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRow:
    """A run without its data."""

    name: str
    config: bytes
    """Serialized pathwatch.v1.RunConfig, defaults filled in."""
    finished: bool
    attempt: int
    first_step: int
    """Step of the attempt's first observation: it replaces older attempts from there on. -1 = none yet."""
    step: int
    """Newest step seen; -1 = none."""
    closed_step: int
    """Newest step whose windows are closed and judged; -1 = none."""
    world_size: int
    groups: tuple[str, ...]
    """In the order they came."""
    created_at: float
    """Seconds since the epoch."""
    updated_at: float
    """When data last came; `created_at` before the first. Seconds since the epoch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RankRow:
    """How far a rank of an attempt has promised to be."""

    run: str
    attempt: int
    rank: int
    world_size: int
    watermark: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionRow:
    """Newest message applied of one life of a client process."""

    run: str
    attempt: int
    rank: int
    session: str
    last_sequence: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchRow:
    """Observations of a window that is not judged yet, as they came."""

    run: str
    attempt: int
    step: int
    batch: bytes
    """Serialized pathwatch.v1.ObservationBatch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GeometryRow:
    """Inner products of expert embeddings, as they came."""

    run: str
    attempt: int
    step: int
    geometry: bytes
    """Serialized pathwatch.v1.ExpertGeometry."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PartialRoundRow:
    """A round that closed without some ranks and is not judged yet: what they send later is too late."""

    run: str
    attempt: int
    step: int
    missing_ranks: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowRow:
    """One judged window of one group."""

    run: str
    attempt: int
    first_step: int
    step: int
    group: str
    partial: bool
    judged: bool
    """Whether the detector was given it; not where ranks were missing."""
    phase: int
    reason: str
    metrics: Mapping[str, float]
    layer_path_distance: tuple[float, ...]
    evidence: bytes
    """What the detector remembers of it: named arrays (see engine.evidence)."""
    losses: bytes
    """Sample ids and losses, from which memorization is rebuilt: named arrays."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ObservationsRow:
    """What the windows of one judged round held, where the run keeps that."""

    run: str
    attempt: int
    step: int
    observations: bytes
    """Compressed pathwatch.v1.RoundObservations (see engine.kept_rounds)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SignalRow:
    """A signal as it was given."""

    run: str
    revision: int
    step: int
    signal: bytes
    """Serialized pathwatch.v1.Signal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PutRun:
    """Insert or replace a run's row."""

    row: RunRow


@dataclass(frozen=True, slots=True, kw_only=True)
class PutRank:
    """Insert or replace a rank's row."""

    row: RankRow


@dataclass(frozen=True, slots=True, kw_only=True)
class PutSession:
    """Insert or replace a session's row."""

    row: SessionRow


@dataclass(frozen=True, slots=True, kw_only=True)
class ForgetSession:
    """Remove a session's row."""

    run: str
    attempt: int
    rank: int
    session: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PutBatch:
    """Append a batch."""

    row: BatchRow


@dataclass(frozen=True, slots=True, kw_only=True)
class PutGeometry:
    """Insert or replace the geometry of a step of an attempt."""

    row: GeometryRow


@dataclass(frozen=True, slots=True, kw_only=True)
class PutPartialRound:
    """Note that a round has closed without some ranks."""

    row: PartialRoundRow


@dataclass(frozen=True, slots=True, kw_only=True)
class PutRound:
    """Store a judged round; drop its raw batches, the note that it was partial, and the geometries that no
    later round needs."""

    run: str
    attempt: int
    step: int
    windows: tuple[WindowRow, ...]
    observations: bytes = b""
    """What the windows held, to be kept (see ObservationsRow); empty = not kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PutSignal:
    """Store a signal; one with the same revision is replaced as the latest, but not in the history."""

    row: SignalRow


@dataclass(frozen=True, slots=True, kw_only=True)
class PutCheckpoint:
    """Insert or replace a checkpoint, known by attempt and step."""

    run: str
    checkpoint: Checkpoint


@dataclass(frozen=True, slots=True, kw_only=True)
class BeginAttempt:
    """Older attempts send no more: their ranks, sessions and the batches of their open windows go."""

    run: str
    attempt: int
    closed_step: int
    """Newest step whose window is closed, judged or not; batches up to there are kept until it is judged."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rewind:
    """Attempt `attempt` has its first observation at `first_step`: it supersedes older ones from there on."""

    run: str
    attempt: int
    first_step: int
    first_window_step: int
    """First step of the window that holds `first_step`; what older attempts sent for it goes whole."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeleteRun:
    """Remove a run and all its data."""

    run: str


Write = (
    PutRun
    | PutRank
    | PutSession
    | ForgetSession
    | PutBatch
    | PutGeometry
    | PutPartialRound
    | PutRound
    | PutSignal
    | PutCheckpoint
    | BeginAttempt
    | Rewind
    | DeleteRun
)
"""A change; a commit applies a sequence of them in order, all or none."""


def run_of(write: Write) -> str:
    """Name of the run that a write changes."""
    match write:
        case PutRun(row=run):
            return run.name
        case PutRank() | PutSession() | PutBatch() | PutGeometry() | PutPartialRound() | PutSignal():
            return write.row.run
        case _:
            return write.run
