"""Commits of a run, each known by a mark, so that one whose reply was lost is not applied twice, one that
comes late is refused, and what Redis has lost of the newest is written again.

Beside the data of a run stands the mark of the last commit, which names the server that made it: a script
applies a commit where it finds the mark of the one before, and finds its own where it was applied already.
"""

from __future__ import annotations

import secrets
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from pathwatch.server.store.rows import DeleteRun, Write

KEPT_SECONDS = 10.0
"""How long commits are kept to be written again: longer than Redis takes from a reply to an fsync
(`appendfsync everysec`: up to two seconds) or than a replica usually lags behind."""
KEPT_BYTES = 128 << 20
"""And how much of them, of all runs together."""

Arguments = Sequence[bytes | str | int]


@dataclass(frozen=True, slots=True, eq=False)
class Commit:
    """What a script is given."""

    accepts: tuple[str, ...]
    """Marks that may stand there before; empty text = none does."""
    mark: str
    arguments: Arguments
    writes: tuple[Write, ...]
    """As they were given; empty once it is known that they are applied."""
    size: int
    """Of the arguments, in bytes."""
    deletes: bool
    """Whether nothing of the run is there after it."""
    at: float
    """When it was made, or, once it is applied, acknowledged."""


@dataclass(slots=True)
class _RunLog:
    mark: str
    """Of the last commit that is applied."""
    unsure: list[Commit] = field(default_factory=list)
    """May be applied or not; the caller has not heard that they are."""
    kept: deque[Commit] = field(default_factory=deque)
    """The newest that are applied."""


class CommitLog:
    """Used by one thread."""

    def __init__(self) -> None:
        self._writer = secrets.token_hex(8)
        self._runs: dict[str, _RunLog] = {}
        self._kept: deque[tuple[str, Commit]] = deque()
        self._kept_bytes = 0

    def knows(self, run: str) -> bool:
        """Whether `begin` has been told of the run."""
        return run in self._runs

    def begin(self, run: str, mark: str) -> None:
        """The run stands at `mark` in Redis."""
        self._runs[run] = _RunLog(mark)

    def forget(self, run: str) -> None:
        """What is known of the run is of no use any more."""
        self._runs.pop(run, None)

    def said_before(self, run: str, writes: Sequence[Write]) -> int:
        """How many of the writes are the very ones of commits that may be applied already."""
        said = [write for commit in self._runs[run].unsure for write in commit.writes]
        same = len(said) <= len(writes) and all(a is b for a, b in zip(said, writes, strict=False))
        return len(said) if same else 0

    def number(self, run: str) -> int:
        """Of the commit that is added next."""
        log = self._runs[run]
        return 1 + number_of(log.unsure[-1].mark if log.unsure else log.mark)

    def add(self, run: str, writes: Sequence[Write], arguments: Arguments, said_before: int) -> list[Commit]:
        """The commits to apply, in order: those that may be applied already, and one of `writes` after them.

        Where the caller does not come back to what may be applied (`said_before` = 0), the new commit takes
        its place, applied or not.
        """
        log = self._runs[run]
        mark = f"{self.number(run)}-{self._writer}"
        before = log.unsure[-1] if log.unsure else log.kept[-1] if log.kept else None
        accepts: tuple[str, ...] = (before.mark if before else log.mark,)
        if not said_before and log.unsure:
            accepts = (*log.unsure[0].accepts, *(commit.mark for commit in log.unsure))
            log.unsure.clear()
        if writes:
            deletes = isinstance(writes[-1], DeleteRun)
            if deletes or (before and before.deletes):
                # Of a run that is gone the mark goes, too, in time (redis_write.lua).
                accepts = (*accepts, "")
            size = sum(len(value) for value in arguments if not isinstance(value, int))
            log.unsure.append(
                Commit(accepts, mark, arguments, tuple(writes), size, deletes, time.monotonic())
            )
        return list(log.unsure)

    def after(self, run: str, mark: str) -> list[Commit] | None:
        """The commits that bring a run from `mark` to where it should be; None = not all of them are kept."""
        log = self._runs[run]
        commits = [*log.kept, *log.unsure]
        for number, commit in enumerate(commits):
            if mark in commit.accepts:
                return commits[number:]
        return None

    def newest(self) -> dict[str, Commit]:
        """The newest commit of each run of which some are kept, applied as far as is known."""
        return {run: self._runs[run].kept[-1] for run in self._runs if self._runs[run].kept}

    def is_older(self, run: str, mark: str) -> bool:
        """Whether a run that is found at `mark` has lost commits; else somebody else has made some."""
        return number_of(mark) < number_of(self._runs[run].mark)

    def applied(self, run: str) -> None:
        """All commits of the run are."""
        log = self._runs[run]
        for commit in log.unsure:
            kept = replace(commit, writes=(), at=time.monotonic())
            log.kept.append(kept)
            log.mark = commit.mark
            self._kept.append((run, kept))
            self._kept_bytes += commit.size
        log.unsure.clear()

    def drop_old(self) -> None:
        """Let go of commits that are durable by now, and of what is too much."""
        limit = time.monotonic() - KEPT_SECONDS
        while self._kept and (self._kept[0][1].at < limit or self._kept_bytes > KEPT_BYTES):
            run, commit = self._kept.popleft()
            self._kept_bytes -= commit.size
            log = self._runs.get(run)
            if log is not None and log.kept and log.kept[0] is commit:
                log.kept.popleft()
                if commit.deletes and not log.kept and not log.unsure:
                    self.forget(run)


def number_of(mark: str) -> int:
    """Which commit of its run a mark is of; 0 = none."""
    return int(mark.partition("-")[0] or 0)
