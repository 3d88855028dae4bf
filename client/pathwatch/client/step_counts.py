"""How many messages of each step are held, and which step is the smallest."""

from __future__ import annotations

import heapq


class StepCounts:
    """Counts by step; finding the smallest one costs next to nothing."""

    def __init__(self) -> None:
        self._counts: dict[int, int] = {}
        self._heap: list[int] = []

    def add(self, step: int) -> None:
        """One more message of a step."""
        if step not in self._counts:
            self._counts[step] = 0
            heapq.heappush(self._heap, step)
        self._counts[step] += 1

    def remove(self, step: int) -> None:
        """One message of a step less."""
        self._counts[step] -= 1
        if self._counts[step] == 0:
            del self._counts[step]
            while self._heap and self._heap[0] not in self._counts:
                heapq.heappop(self._heap)

    def count(self, step: int) -> int:
        """Messages of a step."""
        return self._counts.get(step, 0)

    @property
    def smallest(self) -> int | None:
        """Smallest step of which there are messages."""
        return self._heap[0] if self._heap else None
