"""How often data of a run comes, so that silence can be told from a long interval."""

from __future__ import annotations

import statistics
from collections import deque

REMEMBERED = 9
"""Gaps that count; the median of so many is not moved by an outage or two."""
PATIENCE = 3.0
"""Silence is what lasts longer than so many usual gaps."""


class Cadence:
    """Gaps between the first data of one observed step and that of the next, seconds of a steady clock."""

    def __init__(self) -> None:
        self._gaps: deque[float] = deque(maxlen=REMEMBERED)
        self._step = -1
        self._seen_at = 0.0

    def saw(self, step: int, now: float) -> None:
        """Data of a step has come."""
        if step <= self._step:
            return
        if self._step >= 0:
            self._gaps.append(now - self._seen_at)
        self._step, self._seen_at = step, now

    def patience(self, grace_seconds: float) -> float:
        """Seconds without data after which a run is silent: never less than the grace time."""
        return max(grace_seconds, PATIENCE * statistics.median(self._gaps)) if self._gaps else grace_seconds
