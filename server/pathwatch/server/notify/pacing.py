"""When the next attempt may be made: at a rate, and after failures ever later."""

from __future__ import annotations

import random

BURST = 5
"""Notifications that may go out at once after a quiet time: what one verdict on a few groups tells."""
FIRST_WAIT_SECONDS = 1.0
LONGEST_WAIT_SECONDS = 300.0


class TokenBucket:
    """Lets through `per_minute`, at most BURST of them at once. Times are in seconds, by a steady clock."""

    def __init__(self, per_minute: int, now: float) -> None:
        self._per_second = per_minute / 60
        self._size = float(min(BURST, per_minute))
        self._tokens = self._size
        self._at = now

    def take(self, now: float) -> bool:
        """Whether one may go now; then it counts."""
        self._refill(now)
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True

    def wait(self, now: float) -> float:
        """Seconds until the next may go."""
        self._refill(now)
        # A little more than enough, as sums of floats may come to a little less than one.
        return max(0.0, (1 - self._tokens) / self._per_second + 1e-3)

    def _refill(self, now: float) -> None:
        self._tokens = min(self._size, self._tokens + max(0.0, now - self._at) * self._per_second)
        self._at = now


class Backoff:
    """Waits that double from one failure to the next, each drawn from its upper half."""

    def __init__(self) -> None:
        self._random = random.SystemRandom()
        self._next = FIRST_WAIT_SECONDS

    @property
    def is_fresh(self) -> bool:
        """Whether the last attempt worked."""
        return self._next == FIRST_WAIT_SECONDS

    def wait(self) -> float:
        """Seconds to wait after one more failure."""
        longest = self._next
        self._next = min(2 * longest, LONGEST_WAIT_SECONDS)
        return self._random.uniform(longest / 2, longest)

    def reset(self) -> None:
        """It worked."""
        self._next = FIRST_WAIT_SECONDS
