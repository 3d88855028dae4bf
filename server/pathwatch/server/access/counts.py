"""Counts of who was turned away, and of files that could not be read again."""

from __future__ import annotations

import threading
from collections import Counter, defaultdict
from collections.abc import Callable


class AccessCounts:
    """Counts since the start, from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._refused: Counter[tuple[str, str]] = Counter()
        self._reload_failures: Counter[str] = Counter()
        self._failing_readers: defaultdict[str, set[object]] = defaultdict(set)

    def refuse(self, listener: str, reason: str) -> None:
        """Somebody was turned away: at `grpc` or `http`, because `unauthenticated` or `forbidden`."""
        with self._lock:
            self._refused[listener, reason] += 1

    def reader_of(self, file: str) -> Callable[[bool], None]:
        """For one who reads the file anew as it changes: is told True when a change cannot be used, False
        once the file can be used again."""
        reader = object()

        def report(failing: bool) -> None:
            with self._lock:
                if failing:
                    self._reload_failures[file] += 1
                    self._failing_readers[file].add(reader)
                else:
                    self._failing_readers[file].discard(reader)

        return report

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

    @property
    def reload_failing(self) -> set[str]:
        """Files whose newest change cannot be used, by one of their readers at least."""
        with self._lock:
            return {file for file, readers in self._failing_readers.items() if readers}
