"""What the engine needs of a place to keep state."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

from pathwatch.server.phases.verdict import Checkpoint
from pathwatch.server.store.answers import History, StorageInfo, ThinnedHistory
from pathwatch.server.store.rows import (
    BatchRow,
    GeometryRow,
    ObservationsRow,
    PartialRoundRow,
    RankRow,
    RunRow,
    SessionRow,
    SignalRow,
    WindowRow,
    Write,
)


class StoreError(Exception):
    """The store cannot be opened, read or written; the message says which and what to do."""


class DamagedError(StoreError):
    """What is stored cannot be read, now or ever, before somebody mends it."""


class UnstorableError(StoreError):
    """The store can never take a value that was to be written; to try again is no use."""


class FencedError(UnstorableError):
    """The run is another server's now: what this one has made of it may not be stored any more."""

    def __init__(self, message: str, owner: str = "") -> None:
        """`owner` is HOST:PORT at which that server is reached; empty = not known."""
        super().__init__(message)
        self.owner = owner


class StoreReader(Protocol):
    """What is read of durable state, from any thread at any time. Every read may raise StoreError."""

    def runs(self) -> list[RunRow]:
        """All runs, oldest first."""
        ...

    def names(self) -> list[str]:
        """Of all runs, and maybe of some that are gone, sorted."""
        ...

    def run(self, name: str) -> RunRow | None:
        """One of them; None = there is none of that name."""
        ...

    def ranks(self, run: str, attempt: int) -> list[RankRow]:
        """Ranks of an attempt."""
        ...

    def sessions(self, run: str, attempt: int) -> list[SessionRow]:
        """Sessions of an attempt, the one written last at the end."""
        ...

    def batches(self, run: str) -> Iterator[BatchRow]:
        """Batches of windows not judged yet, in the order they came."""
        ...

    def geometries(self, run: str) -> list[GeometryRow]:
        """Geometries still needed, by attempt, then step."""
        ...

    def partial_rounds(self, run: str) -> list[PartialRoundRow]:
        """Rounds that closed without some ranks and are not judged yet, by attempt, then step."""
        ...

    def windows(self, run: str) -> Iterator[WindowRow]:
        """All windows that are not superseded, complete, by step, then group."""
        ...

    def newest_windows(self, run: str) -> list[WindowRow]:
        """The newest window of each group, without evidence and losses."""
        ...

    def checkpoints(self, run: str) -> list[Checkpoint]:
        """Checkpoints that are not superseded, by step."""
        ...

    def last_signal(self, run: str) -> SignalRow | None:
        """The newest signal."""
        ...

    def signals(self, run: str, *, after_revision: int = 0, limit: int = 0) -> list[SignalRow]:
        """Signals with a revision > after_revision as they were first given, oldest first.

        At most `limit`, the first ones (0 = all).
        """
        ...

    def history(
        self, run: str, *, after_step: int = -1, group: str = "", limit: int = 0, signal_limit: int = 0
    ) -> History:
        """Windows and signals with step > after_step.

        Only windows of `group` where named, and at most `limit` windows and `signal_limit` signals, the
        first ones (0 = all).
        """
        ...

    def thinned_history(
        self, run: str, groups: Sequence[str], *, points: int, after_step: int = -1, layers: bool = True
    ) -> ThinnedHistory | None:
        """At most `points` (2 or more) windows with step > after_step of each group, evenly over the steps.

        Without their distances per layer (empty) unless `layers`.

        Among them are the first, the last and each whose phase is not that of the one before; where these
        alone are too many, the phases are thinned too. None = there is no such run.

        The cost grows with `points`, not with the number of windows.
        """
        ...

    def observations(self, run: str, *, after_step: int = -1) -> Iterator[ObservationsRow]:
        """Kept rounds with step > after_step that are not superseded, by step.

        Each is read when it is asked for, so that neither their number nor a slow reader matters; what
        comes while they are read may be among them.
        """
        ...


class Store(StoreReader, Protocol):
    """Durable state. `commit` is called by one thread."""

    remedy: str
    """What to do where what is stored of a run is damaged, as the end of a sentence."""

    def commit(self, writes: Sequence[Write]) -> None:
        """Apply all writes in order, durably, or of each run none of them: then StoreError, and
        UnstorableError where one of them holds a value that the store can never take.

        After an error the writes of some runs may be stored, and nobody can tell. Whoever gives the very same
        ones again, first of all of their run, has them stored once.
        """
        ...

    def take_up(self, run: str) -> None:
        """What is read of the run from here on is what the next commit is to follow, whoever has written it.

        A run whose commit was refused takes no other before. By the thread that commits. Raises StoreError.
        """
        ...

    def let_go(self, run: str) -> None:
        """The run is another server's now: nothing that was made of it here is written any more.

        It may be taken up again later. By the thread that commits.
        """
        ...

    def storage(self) -> StorageInfo:
        """Room taken and left, from any thread at any time. Raises StoreError."""
        ...

    def close(self) -> None:
        """Let go of the store; the next server may take it."""
        ...
