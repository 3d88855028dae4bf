"""What the streams of one run share."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field

from pathwatch.server.config import Limits
from pathwatch.server.engine.refusal import SOON, LimitError


@dataclass(slots=True)
class RunShare:
    """One run's part of what there is."""

    streams: int = 0
    decoding: asyncio.Lock = field(default_factory=asyncio.Lock)
    """One message of a run is decoded at a time, so that all its streams together get one turn."""


class RunShares:
    """The shares of all runs that have streams. Used on the event loop."""

    def __init__(self, limits: Limits) -> None:
        self._most = limits.streams_per_run
        self._shares: dict[str, RunShare] = {}

    @contextlib.contextmanager
    def enter(self, run: str) -> Iterator[RunShare]:
        """Take part as one more stream of the run. Raises LimitError."""
        share = self._shares.setdefault(run, RunShare())
        if share.streams >= self._most:
            raise LimitError(
                "streams_per_run",
                f"{share.streams} streams of run {run!r} are open, as many as a run may have",
                retry_seconds=SOON,
            )
        share.streams += 1
        try:
            yield share
        finally:
            share.streams -= 1
            if not share.streams:
                del self._shares[run]
