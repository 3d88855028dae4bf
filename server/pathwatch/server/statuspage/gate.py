"""Reads of history take turns: many who look at once take the disk and memory of few."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from pathwatch.server.statuspage.failures import busy

AT_ONCE = 2
WAIT_SECONDS = 5.0
"""Longest wait for one's turn."""
RETRY_SECONDS = 5


class Gate:
    """Used from any thread."""

    def __init__(self) -> None:
        self._room = threading.Semaphore(AT_ONCE)

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Inside are at most AT_ONCE. Raises ApiError where one's turn does not come."""
        if not self._room.acquire(timeout=WAIT_SECONDS):
            raise busy("too many read history at once; ask again later", RETRY_SECONDS)
        try:
            yield
        finally:
            self._room.release()
