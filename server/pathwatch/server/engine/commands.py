"""What the writer thread is to do next: in order within a run, fair between runs.

A run has a lane of its own once it is in hand; those that are not share one.

Start-time fair queueing: a command costs its bytes and a fixed part, each run has a tag that grows by
what was taken of it, and the run with the smallest tag is next. A run that comes anew starts at the
tag of the command taken last, so it neither waits behind what others have queued nor makes up for idle time.
"""

from __future__ import annotations

import heapq
import threading
from collections import deque
from collections.abc import Callable
from typing import TypeAlias

Command: TypeAlias = Callable[[], None]

COMMAND_COST = 8 << 10
"""What a command costs besides its bytes, in bytes."""
BATCH_COST = 2 << 20
"""A batch is complete when its commands cost this much: it sets how long a newcomer waits at most."""
GATHER_SECONDS = 0.004
"""How long a batch is waited for after one of several commands: what is taken together is committed together.
After a single command nothing is waited for, as its sender may be waiting for the answer."""
_SHARED = ""
"""The lane of all runs that have none of their own."""


class CommandQueue:
    """Filled from any thread, emptied in batches by one."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._urgent: deque[Command] = deque()
        self._lanes: dict[str, deque[tuple[int, str, Command]]] = {}
        """Cost, run and command."""
        self._strangers: set[str] = set()
        """Runs of which something may wait in the lane that is shared."""
        self._turns: list[tuple[int, int, str]] = []
        """Heap of (tag, arrival, lane): one entry per lane that holds something."""
        self._tags: dict[str, int] = {}
        self._now = 0
        self._arrivals = 0
        self._closed = False
        self._waiting_cost = 0
        self._gathers = False
        self._gathering = False
        """Whether the taker waits for a batch to become complete, not for a first command."""

    def put(self, run: str, command: Command, size: int = 0, *, shares: bool = False) -> None:
        """Queue a command of `size` bytes behind the others of its run; `shares` where it has no lane."""
        with self._changed:
            if not shares and run in self._strangers:
                self._part(run)
            # What waits of the run goes first, also where it has gone out of hand meanwhile.
            lane = run if not shares or run in self._lanes else _SHARED
            if lane == _SHARED:
                self._strangers.add(run)
            self._append(lane, size + COMMAND_COST, run, command)
            self._waiting_cost += size + COMMAND_COST
            # Woken for each that comes while it gathers, the taker would take the interpreter for nothing.
            if not self._gathering or self._is_due():
                self._changed.notify()

    def put_urgent(self, command: Command) -> None:
        """Queue a command before all others but earlier urgent ones."""
        with self._changed:
            self._urgent.append(command)
            self._changed.notify()

    def close(self) -> None:
        """Nothing more will come that matters; what waits is still to be taken."""
        with self._changed:
            self._closed = True
            self._changed.notify()

    @property
    def closed(self) -> bool:
        """Whether it is closed; commands may still wait."""
        return self._closed

    @property
    def finished(self) -> bool:
        """Whether it is closed and empty."""
        with self._changed:
            return self._closed and not self._turns and not self._urgent

    def take(self, timeout: float | None) -> list[Command]:
        """The next batch; empty if closed, or if nothing comes within `timeout` seconds (None = for ever)."""
        with self._changed:
            self._changed.wait_for(lambda: self._urgent or self._turns or self._closed, timeout)
            if self._gathers:
                self._gathering = True
                self._changed.wait_for(self._is_due, GATHER_SECONDS)
                self._gathering = False
            batch: list[Command] = [*self._urgent]
            self._urgent.clear()
            spent = 0
            while self._turns and spent < BATCH_COST:
                cost, command = self._next()
                spent += cost
                batch.append(command)
            self._gathers = len(batch) > 1
            if not self._turns:  # all are served: nobody owes anything
                self._now = max(self._tags.values(), default=self._now)
                self._tags.clear()
            return batch

    def _next(self) -> tuple[int, Command]:
        tag, _, lane = heapq.heappop(self._turns)
        self._now = tag
        commands = self._lanes[lane]
        cost, _, command = commands.popleft()
        self._tags[lane] = tag + cost
        self._waiting_cost -= cost
        if commands:
            self._line_up(lane)
        else:
            self._empty(lane)
        return cost, command

    def _append(self, lane: str, cost: int, run: str, command: Command) -> None:
        commands = self._lanes.setdefault(lane, deque())
        commands.append((cost, run, command))
        if len(commands) == 1:
            self._line_up(lane)

    def _empty(self, lane: str) -> None:
        del self._lanes[lane]
        if lane == _SHARED:
            self._strangers.clear()

    def _part(self, run: str) -> None:
        """What waits of the run in the lane that is shared goes to its own."""
        self._strangers.remove(run)
        shared = self._lanes[_SHARED]
        self._lanes[_SHARED] = deque(waiting for waiting in shared if waiting[1] != run)
        for cost, of, command in shared:
            if of == run:
                self._append(run, cost, of, command)
        if not self._lanes[_SHARED]:
            self._empty(_SHARED)
            self._turns = [turn for turn in self._turns if turn[2] != _SHARED]
            heapq.heapify(self._turns)

    def _is_due(self) -> bool:
        return bool(self._urgent) or self._closed or self._waiting_cost >= BATCH_COST

    def _line_up(self, lane: str) -> None:
        self._arrivals += 1
        tag = max(self._now, self._tags.get(lane, 0))
        heapq.heappush(self._turns, (tag, self._arrivals, lane))
