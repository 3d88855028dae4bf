"""How far the ranks of the current attempt have come, and which messages were applied already."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from pathwatch.server.engine.refusal import Code, RefusedError
from pathwatch.server.engine.streams import RankStream
from pathwatch.server.engine.tensors import invalid
from pathwatch.server.store.rows import ForgetSession, PutRank, PutSession, RankRow, SessionRow, Write

MAX_ATTEMPT_JUMP = 1000
"""How far above the current attempt the next may be. Later attempts end earlier ones for good: a sender with
a wrong number must not end them all."""


def check_next_attempt(number: int, current: int) -> None:
    """Refuse an attempt that cannot follow `current` (-1 = there was none)."""
    if number > current + MAX_ATTEMPT_JUMP:
        since = f"the current one is {current}" if current >= 0 else "the run is new"
        raise invalid(
            "attempt", f"is {number}, {since}; attempts count up, by at most {MAX_ATTEMPT_JUMP} at once"
        )


class AttemptProgress:
    """Ranks and sessions of one attempt of a run."""

    def __init__(self, run: str, number: int, *, sessions_per_rank: int) -> None:
        """Of each rank the `sessions_per_rank` sessions used last are remembered."""
        self.run = run
        self.number = number
        self.world_size = 0
        self.watermarks: dict[int, int] = {}
        """Last complete step by rank; -1 before the first."""
        self._sessions_per_rank = sessions_per_rank
        self._applied: dict[int, dict[str, int]] = {}
        """Last sequence by rank and session, the session used last at the end."""
        self._changed_ranks: set[int] = set()
        self._changed_sessions: set[tuple[int, str]] = set()
        self._forgotten_sessions: set[tuple[int, str]] = set()

    def restore(self, ranks: Iterable[RankRow], sessions: Iterable[SessionRow]) -> None:
        """Take over what the store knows."""
        for rank in ranks:
            self.world_size = rank.world_size
            self.watermarks[rank.rank] = rank.watermark
        for session in sessions:
            self._applied.setdefault(session.rank, {})[session.session] = session.last_sequence

    def join(self, stream: RankStream) -> None:
        """A rank introduces itself. Raises RefusedError where it does not fit."""
        if stream.world_size < 1:
            raise invalid("hello.world_size", "is 0; it is the number of ranks that send observations")
        if stream.rank >= stream.world_size:
            raise invalid(
                "hello.rank", f"is {stream.rank}; with world_size {stream.world_size} it must be below"
            )
        if self.world_size not in (0, stream.world_size):
            raise RefusedError(
                Code.FAILED_PRECONDITION,
                f"attempt {self.number} of run {self.run!r} has world size {self.world_size}, "
                f"not {stream.world_size}; a job of another size is a new attempt",
                "hello.world_size",
            )
        self.world_size = stream.world_size
        if stream.rank not in self.watermarks:
            self.watermarks[stream.rank] = -1
            self._changed_ranks.add(stream.rank)
        stream.acked = self._last_sequence(stream)

    def is_duplicate(self, stream: RankStream, sequence: int) -> bool:
        """Whether a message of the stream's session was applied before."""
        return sequence <= self._last_sequence(stream)

    def applied(self, stream: RankStream, sequence: int) -> None:
        """A message was applied or refused."""
        sessions = self._applied.setdefault(stream.rank, {})
        sessions.pop(stream.session, None)
        sessions[stream.session] = sequence
        self._changed_sessions.add((stream.rank, stream.session))
        if len(sessions) > self._sessions_per_rank:
            # Its process is long gone; were it to come back, applying its messages again changes nothing.
            oldest = next(iter(sessions))
            del sessions[oldest]
            self._changed_sessions.discard((stream.rank, oldest))
            self._forgotten_sessions.add((stream.rank, oldest))

    def check_step(self, rank: int, step: int, field: str) -> None:
        """Raises RefusedError, naming `field`, for data of a step that the rank has declared complete."""
        if step <= self.watermarks[rank]:
            raise self._behind(rank, step, field)

    def advance(self, rank: int, step: int) -> None:
        """A rank has sent everything up to `step`. Raises RefusedError where it goes back."""
        if step < self.watermarks[rank]:
            raise self._behind(rank, step, "watermark.step")
        self.watermarks[rank] = step
        self._changed_ranks.add(rank)

    def take_writes(self) -> Iterator[Write]:
        """What changed since the last time."""
        for rank in sorted(self._changed_ranks):
            yield PutRank(
                row=RankRow(
                    run=self.run,
                    attempt=self.number,
                    rank=rank,
                    world_size=self.world_size,
                    watermark=self.watermarks[rank],
                )
            )
        for rank, session in sorted(self._changed_sessions):
            yield PutSession(
                row=SessionRow(
                    run=self.run,
                    attempt=self.number,
                    rank=rank,
                    session=session,
                    last_sequence=self._applied[rank][session],
                )
            )
        for rank, session in sorted(self._forgotten_sessions - self._changed_sessions):
            yield ForgetSession(run=self.run, attempt=self.number, rank=rank, session=session)
        self._forgotten_sessions.clear()
        self._changed_ranks.clear()
        self._changed_sessions.clear()

    def _last_sequence(self, stream: RankStream) -> int:
        return self._applied.get(stream.rank, {}).get(stream.session, 0)

    def _behind(self, rank: int, step: int, field: str) -> RefusedError:
        return RefusedError(
            Code.FAILED_PRECONDITION,
            f"step {step} is not above {self.watermarks[rank]}, the step rank {rank} declared complete; "
            "a job that goes back must start a new attempt",
            field,
        )
