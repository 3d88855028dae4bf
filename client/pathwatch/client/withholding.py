"""Between what a job observes and what is sent: holds observations back while a server is there that says
which of them it needs (docs/sampling.md)."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from pathwatch.client.buffer import SendBuffer
from pathwatch.client.observations import Observations
from pathwatch.v1 import routing_pb2

if TYPE_CHECKING:
    from pathwatch.client.held_windows import HeldWindows

_AT_ONCE = 50
"""Observations handed over under one hold of the lock: training observes under the same."""
_BREATH = 1e-5
_MOST_PASSED = 2
"""Windows that wait for an answer, beyond which the server is no longer believed to give one."""
_TELL_SECONDS = 1.0
"""How often a rank says how far it has come where nothing else does. Rank 0 says it after every step, from
the newest of which the step to stop at is counted."""


class Withholding:
    """Holds observations back from a buffer, and every watermark that they would break. Thread-safe.

    Only while a connection is open and the server has sent its plan: without, all goes straight to the
    buffer. `observe` and `watermark` wait for nobody; what takes long is done where a NUDGE is answered.
    """

    def __init__(
        self,
        run: str,
        rank: int,
        buffer: SendBuffer,
        *,
        attempt: int,
        send: Callable[[Observations], None],
        mark: Callable[[int], None],
        most_bytes: int,
    ) -> None:
        """`send` and `mark` put observations and watermarks into the buffer; `most_bytes` may be held."""
        self._run = run
        # Later attempts go over what earlier ones did from the first step that any rank observes.
        self._tells_begin = rank == 0 or attempt > 0
        self._tell_seconds = _TELL_SECONDS if rank else 0.0
        self._buffer = buffer
        self._send = send
        self._mark = mark
        self._most_bytes = most_bytes
        self._lock = threading.Lock()
        self._held: HeldWindows | None = None
        self._ending = False
        self._reached = -1
        self._marked = -1
        self._told = (-1, -1, -1)
        self._tell_at = 0.0

    @property
    def active(self) -> bool:
        """Whether anything is held back."""
        return self._held is not None

    def observe(self, observations: Observations) -> None:
        """Something was observed."""
        with self._lock:
            if self._held is None or self._ending:
                self._send(observations)
                return
            for part in self._held.offer(observations):
                self._send(part)
            self._bound(self._held)

    def watermark(self, step: int) -> None:
        """All up to `step` was observed."""
        with self._lock:
            self._reached = max(self._reached, step)
            if self._held is None or step < self._marked:  # a wrong order is for the server to refuse
                self._mark(step)
                self._marked = max(self._marked, step)
                return
            self._held.reach(step)
            self._bound(self._held)
            if self._held.complete_through(step) == step:
                self._marked = step
                self._mark(step)
            elif self._held.passed_windows or time.monotonic() >= self._tell_at:
                self._buffer.nudge()

    def heed(self, response: routing_pb2.StreamRoutingResponse, *, first: bool) -> None:
        """Take in what the server says: whether to hold back, what is asked for, what is of no use.

        `first`: nothing came before on this connection.
        """
        if first:
            if response.plan.window_steps and response.plan.capacity:
                self._begin(response.plan)
            else:
                self.stop()
        with self._lock:
            if self._held is None:
                return
            for advice in response.advice:
                self._held.advise(advice.group, advice.until_step, advice.hash_threshold)
            for request in response.requests:
                self._held.ask(request)
            if response.advice or response.requests:
                self._buffer.nudge()

    def next_message(self) -> routing_pb2.StreamRoutingRequest | None:
        """Answer a NUDGE: hand over what is asked for; what is to be told once nothing is left of that."""
        self._hand_over()
        if self._buffer.has_unsent:  # it goes first
            self._buffer.nudge()
            return None
        with self._lock:
            if self._held is None or self._ending:
                return None
            waiting = self._held.waiting()
            until, round_, counts = waiting or (-1, 0, {})
            told = (self._reached if until < 0 else -1, until, round_)
            if told == self._told or (until < 0 and self._marked == self._reached):
                return None
            self._told = told
            self._tell_at = time.monotonic() + self._tell_seconds
            message = routing_pb2.StreamRoutingRequest()
            message.withheld.step = self._reached
            if until >= 0:
                message.withheld.until_step = until
                message.withheld.round = round_
                for group, samples in counts.items():
                    message.withheld.groups.add(group=group, samples=samples)
            return message

    def release(self) -> None:
        """Hand over all that is held now."""
        with self._lock:
            if self._held is not None:
                self._held.release()
        self._hand_over()

    def stop(self) -> None:
        """Hold nothing back until a server asks for it again."""
        with self._lock:
            self._ending = True
        self.release()
        with self._lock:
            self._held = None
            self._ending = False

    def _begin(self, plan: routing_pb2.SamplingPlan) -> None:
        from pathwatch.client.held_windows import HeldWindows  # probe runs never need it

        with self._lock:
            if self._held is None:
                self._held = HeldWindows(self._run, plan, tells_begin=self._tells_begin)
                self._held.reach(self._reached)
            self._held.reconnect()
            self._told = (-1, -1, -1)
            self._buffer.nudge()

    def _bound(self, held: HeldWindows) -> None:
        """Let go of everything where memory is short or the server says nothing."""
        nbytes = held.nbytes
        if nbytes > self._most_bytes or held.passed_windows > _MOST_PASSED:
            held.release()
            self._buffer.nudge()
        self._buffer.reserve(nbytes)

    def _hand_over(self) -> None:
        """Move all that is asked for into the buffer, a little at a time, and the watermark behind it."""
        while True:
            with self._lock:
                if self._held is None:
                    return
                parts = self._held.take(_AT_ONCE)
                for part in parts:
                    self._send(part)
                self._buffer.reserve(self._held.nbytes)
                if not parts:
                    complete = self._held.complete_through(self._reached)
                    if complete > self._marked:
                        self._marked = complete
                        self._mark(complete)
                    return
            time.sleep(_BREATH)
