"""What a rank holds back until it is asked for: the whole of the decision, without threads or connections."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import cast

import numpy as np
from numpy.typing import NDArray

from pathwatch.client.hashing import sample_hash
from pathwatch.client.held_group import ALL, HeldGroup
from pathwatch.client.observations import Observations
from pathwatch.v1 import routing_pb2

_EVERY_GROUP = ""
_MOST_KNOWN = 1000
"""Groups and windows that a server can say something about, which could make up any number."""


@dataclass(slots=True)
class _Window:
    groups: dict[str, HeldGroup] = field(default_factory=dict)
    round: int = 0
    """Newest round of requests that came for it on this connection."""
    asked: set[str] = field(default_factory=set)
    """Groups for which one came."""
    all_asked: bool = False


class HeldWindows:
    """Everything a rank observed and has not sent, by window. The caller serializes the calls.

    What is held goes in one of three ways: it is asked for (`take` gives it), nobody will ever keep it
    (`advise`), or holding back ends (`release`).
    """

    def __init__(self, run: str, plan: routing_pb2.SamplingPlan, *, tells_begin: bool) -> None:
        """`tells_begin`: of the first observations one goes out at once, whatever was asked for."""
        self._run = run
        self._window_steps = plan.window_steps
        self._capacity = plan.capacity
        self._windows: dict[int, _Window] = {}  # by last step
        self._expected: dict[str, int] = {}
        self._repeating: set[str] = set()
        self._reached = -1
        self._tells_begin = tells_begin

    @property
    def nbytes(self) -> int:
        """Bytes of what is held."""
        return sum(held.nbytes for window in self._windows.values() for held in window.groups.values())

    def offer(self, observations: Observations) -> list[Observations]:
        """Take in what was observed; that part of it which is to be sent at once."""
        if not observations.samples:
            return []
        group = observations.group
        held = self._group(self._end(observations.step), group)
        ids_N = cast("NDArray[np.int64]", observations.arrays["sample_ids"])
        hashes_N = sample_hash(self._run, group, ids_N)
        sent = held.offer(observations, hashes_N)
        if sent is None and self._tells_begin:
            # The server learns from an attempt's first observation which step it begins with.
            sent = observations.select(np.argsort(hashes_N)[:1])
        self._tells_begin = False
        return [] if sent is None else [sent]

    def reach(self, step: int) -> None:
        """The rank has observed everything up to `step`."""
        for end, window in self._windows.items():
            if self._reached < end <= step:
                for group, held in window.groups.items():
                    held.late = False
                    (self._repeating.add if held.repeated else self._repeating.discard)(group)
        self._reached = max(self._reached, step)

    def take(self, most: int) -> list[Observations]:
        """Up to `most` observations that are to be sent, oldest windows first; they are no longer held."""
        taken: list[Observations] = []
        for end in sorted(self._windows):
            window = self._windows[end]
            for held in window.groups.values():
                if not held.late and len(held) and most > 0:
                    parts = held.take(most)
                    most -= sum(part.samples for part in parts)
                    taken += parts
            if end <= self._reached and not any(map(len, window.groups.values())):
                del self._windows[end]
        return taken

    def complete_through(self, step: int) -> int:
        """Largest step up to `step` up to which nothing is held, as far as whole windows go."""
        held = [end for end, window in self._windows.items() if any(map(len, window.groups.values()))]
        return min([step, *(end - self._window_steps for end in held)])

    def advise(self, group: str, until_step: int, threshold: int) -> None:
        """In the window that ends at `until_step` samples from `threshold` up change nothing any more."""
        if self._is_known(until_step) and (held := self._windows[until_step].groups.get(group)):
            held.cut(threshold)
            if until_step <= self._reached:  # else the limit falls further, and may be far too high so far
                held.through = max(held.through, threshold - 1)

    def ask(self, request: routing_pb2.SampleRequest) -> None:
        """The server asks for samples."""
        if not request.HasField("until_step"):
            if request.group in self._expected or len(self._expected) < _MOST_KNOWN:
                self._expected[request.group] = request.through
            for end, window in self._windows.items():
                held = window.groups.get(request.group)
                if held is not None and request.group not in window.asked and end > self._reached:
                    held.through = max(held.through, request.through)
            return
        if not self._is_known(request.until_step):
            return
        window = self._windows[request.until_step]
        window.round = max(window.round, request.round)
        groups: Iterable[str] = [request.group]
        if request.group == _EVERY_GROUP:
            groups, window.all_asked = list(window.groups), True
        for group in groups:
            if held := window.groups.get(group):
                window.asked.add(group)
                held.through = max(held.through, request.through)

    def reconnect(self) -> None:
        """On a new connection the server counts its rounds anew."""
        for window in self._windows.values():
            window.round = 0

    def release(self) -> None:
        """All that is held is to be sent."""
        for window in self._windows.values():
            window.all_asked = True
            for held in window.groups.values():
                held.late, held.through = False, ALL

    def waiting(self) -> tuple[int, int, Mapping[str, int]] | None:
        """The oldest window that the rank has passed and of which something is held; None = there is none.

        Its last step, the newest round that was heeded, and how many samples are held of each group of which
        nothing has been asked.
        """
        for end in sorted(self._windows):
            window = self._windows[end]
            if end <= self._reached and any(map(len, window.groups.values())):
                counts = {
                    group: held.samples
                    for group, held in window.groups.items()
                    if len(held) and held.through < 0
                }
                return end, window.round, counts
        return None

    @property
    def passed_windows(self) -> int:
        """Windows that the rank has passed and of which something is held."""
        return sum(
            end <= self._reached and any(map(len, window.groups.values()))
            for end, window in self._windows.items()
        )

    def _end(self, step: int) -> int:
        return step - step % self._window_steps + self._window_steps - 1

    def _is_known(self, until_step: int) -> bool:
        return until_step in self._windows

    def _group(self, end: int, group: str) -> HeldGroup:
        window = self._windows.setdefault(end, _Window())
        held = window.groups.get(group)
        if held is None:
            held = window.groups[group] = HeldGroup(self._capacity)
            held.late = group in self._repeating and end > self._reached
            held.through = ALL if window.all_asked else self._expected.get(group, -1)
        return held
