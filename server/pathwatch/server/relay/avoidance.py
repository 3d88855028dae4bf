"""Servers that have kept somebody waiting, and so are better asked last for a while."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence

SLOW_SECONDS = 1.0
"""Without an answer; from then on it is worth while to ask the others first."""
ALONE_SECONDS = 5.0
"""How long they are."""


class Avoidance:
    """What one call has found out counts for the calls about all runs. Used on the event loop."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._unreached: dict[str, float] = {}
        self._slow: dict[str, float] = {}

    def unreached(self, address: str, seconds: float) -> None:
        """A server could not be connected to, which took so long to find out."""
        self._note(self._unreached, address, seconds)

    def slow(self, address: str, seconds: float) -> None:
        """A server did not answer in so much time, all that there was: it may be busy with just that call."""
        self._note(self._slow, address, seconds)

    def order(self, addresses: Iterable[str]) -> Sequence[str]:
        """The same, those to be avoided last."""
        return sorted(addresses, key=lambda at: self.is_unreached(at) or self._is_in(self._slow, at))

    def is_unreached(self, address: str) -> bool:
        """Whether it is not worth while to go there, even where others say that it has a run."""
        return self._is_in(self._unreached, address)

    def _is_in(self, until: dict[str, float], address: str) -> bool:
        return address in until and self._clock() < until[address]

    def _note(self, until: dict[str, float], address: str, seconds: float) -> None:
        if seconds < SLOW_SECONDS:
            return
        now = self._clock()
        for other in [other for other, end in until.items() if end <= now]:
            del until[other]
        until[address] = now + ALONE_SECONDS
