"""How much may be read ahead of acknowledgements: of one stream, of one run, and of all.

Who finds no room waits, and meanwhile is not read on. Room is given to runs in turn, and within a run in the
order of asking, so that a run with many streams gets no more than others.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from pathwatch.server.config import Limits
from pathwatch.server.engine.refusal import SOON, LimitError


@dataclass(eq=False, slots=True)
class _Waiter:
    size: int
    admitted: asyncio.Future[None]


class InFlight:
    """Bytes of all streams that were read and are not acknowledged. Used on the event loop."""

    def __init__(self, limits: Limits) -> None:
        self.unacked = 0
        self._limits = limits
        self._by_run: dict[str, int] = {}
        self._waiting: dict[str, int] = {}
        """Run → bytes of its messages that wait for room; a run without any is not there."""
        self._waiters: dict[str, deque[_Waiter]] = {}
        """Runs in the order of their turns; a run without waiters is not there."""

    @property
    def waiting(self) -> int:
        """Bytes of messages that wait for room."""
        return sum(self._waiting.values())

    def has_room(self, run: str, size: int) -> bool:
        """Whether a message fits, and overtakes none; one message of a run, and one at all, always fits."""
        # Those who wait for room that their own run takes are in nobody else's way.
        return (
            run not in self._waiters
            and self._fits(run, size)
            and not any(self._fits_run(other, queue[0].size) for other, queue in self._waiters.items())
        )

    def take(self, run: str, size: int) -> None:
        """Count a message."""
        self.unacked += size
        self._by_run[run] = self._by_run.get(run, 0) + size

    def give_back(self, run: str, size: int) -> None:
        """Messages of a run are acknowledged, or gone."""
        self.unacked -= size
        left = self._by_run.get(run, 0) - size
        if left:
            self._by_run[run] = left
        else:
            self._by_run.pop(run, None)
        self._admit()

    @contextlib.contextmanager
    def wait(self, run: str, size: int) -> Iterator[None]:
        """Hold a message that waits. Raises LimitError where too many do.

        Half of the bound is free to whoever comes first; the other half is for runs of which nothing waits,
        or less than their fair share of the first.
        """
        most, held = self._limits.waiting_bytes, self._waiting.get(run, 0)
        total, half = self.waiting + size, self._limits.waiting_bytes // 2
        sharing = len(self._waiting) + (not held)
        is_past_share = held and total > half and held + size > half // sharing
        if self.waiting and (total > most or is_past_share):
            raise LimitError(
                "waiting_bytes",
                f"{self.waiting} bytes of messages wait for room already, {held} of this run; at most {most} "
                "may, past half of it only those of runs below their fair share; send it later",
                retry_seconds=SOON,
            )
        self._waiting[run] = held + size
        try:
            yield
        finally:
            self._waiting[run] -= size
            if not self._waiting[run]:
                del self._waiting[run]

    async def admit(self, run: str, size: int, flow: Flow) -> None:
        """Count a message once it is its run's turn and there is room.

        Raises LimitError after `waiting_seconds` in which others kept the room: while the stream has messages
        of its own under way it waits on, to spare sending them again.
        """
        waiter = _Waiter(size, asyncio.get_running_loop().create_future())
        self._waiters.setdefault(run, deque()).append(waiter)
        self._admit()
        try:
            while not waiter.admitted.done():
                await asyncio.wait([waiter.admitted], timeout=self._limits.waiting_seconds)
                if not waiter.admitted.done() and not flow.unacked:
                    raise self._crowded_out(run)
        except BaseException:
            if waiter.admitted.done():
                self.give_back(run, size)
            else:
                self._remove(run, waiter)
            raise

    def _fits(self, run: str, size: int) -> bool:
        return self._fits_run(run, size) and self._fits_all(size)

    def _fits_run(self, run: str, size: int) -> bool:
        held = self._by_run.get(run, 0)
        return not held or held + size <= self._limits.unacked_bytes_per_run

    def _fits_all(self, size: int) -> bool:
        return not self.unacked or self.unacked + size <= self._limits.unacked_bytes

    def _admit(self) -> None:
        """Let in who fits, run by run."""
        progress = True
        while progress:
            progress = False
            for run in list(self._waiters):
                waiter = self._waiters[run][0]
                if not self._fits_run(run, waiter.size):
                    continue
                if not self._fits_all(waiter.size):
                    return  # a smaller one must not overtake, else a large one would wait for ever
                self.take(run, waiter.size)
                self._remove(run, waiter)
                if run in self._waiters:
                    self._waiters[run] = self._waiters.pop(run)  # to the end: the others first
                waiter.admitted.set_result(None)
                progress = True

    def _remove(self, run: str, waiter: _Waiter) -> None:
        self._waiters[run].remove(waiter)
        if not self._waiters[run]:
            del self._waiters[run]

    def _crowded_out(self, run: str) -> LimitError:
        limits, held = self._limits, self._by_run.get(run, 0)
        return LimitError(
            "waiting_seconds",
            f"no room for {limits.waiting_seconds} s: {self.unacked} bytes of all runs are not acknowledged "
            f"(at most {limits.unacked_bytes}), {held} of this run (at most {limits.unacked_bytes_per_run})",
            retry_seconds=SOON,
        )


class Flow:
    """Bytes of one stream that were read and are not acknowledged. Used on the event loop."""

    def __init__(self, run: str, limits: Limits, in_flight: InFlight) -> None:
        self.unacked = 0
        self._run = run
        self._most = limits.unacked_bytes_per_stream
        self._in_flight = in_flight
        self._released = asyncio.Event()

    async def acquire(self, size: int) -> None:
        """Count a message, once there is room for it; one message always has room. Raises LimitError."""
        if self._fits(size) and self._in_flight.has_room(self._run, size):
            self._in_flight.take(self._run, size)
        else:
            with self._in_flight.wait(self._run, size):
                while not self._fits(size):
                    self._released.clear()
                    await self._released.wait()
                await self._in_flight.admit(self._run, size, self)
        self.unacked += size

    def release(self, size: int) -> None:
        """Messages of this many bytes are acknowledged."""
        self.unacked -= size
        self._in_flight.give_back(self._run, size)
        self._released.set()

    def close(self) -> None:
        """The stream is over, and nothing of it is held any more."""
        self.release(self.unacked)

    def _fits(self, size: int) -> bool:
        return not self.unacked or self.unacked + size <= self._most
