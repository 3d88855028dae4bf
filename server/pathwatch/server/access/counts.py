"""Counts of who was turned away, and of files that could not be read again."""

from __future__ import annotations

import threading
from collections import Counter


class AccessCounts:
    """Counts since the start, from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._refused: Counter[tuple[str, str]] = Counter()
        self._reload_failures: Counter[str] = Counter()

    def refuse(self, listener: str, reason: str) -> None:
        """Somebody was turned away: at `grpc` or `http`, because `unauthenticated` or `forbidden`."""
        with self._lock:
            self._refused[listener, reason] += 1

    def fail_reload(self, file: str) -> None:
        """A changed file could not be used."""
        with self._lock:
            self._reload_failures[file] += 1

    @property
    def refused(self) -> dict[tuple[str, str], int]:
        """(listener, reason) → calls turned away."""
        with self._lock:
            return dict(self._refused)

    @property
    def reload_failures(self) -> dict[str, int]:
        """File → changes that could not be used."""
        with self._lock:
            return dict(self._reload_failures)
