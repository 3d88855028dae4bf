"""What became of notifications, by webhook."""

from __future__ import annotations

import threading
from collections import Counter

RESULTS = ("delivered", "failed", "dropped")
"""Accepted by the receiver; one attempt in vain, others may follow; given up for good."""


class DeliveryCounts:
    """Counts since the start, from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._deliveries: Counter[tuple[str, str]] = Counter()
        self._pending: dict[str, int] = {}

    def know(self, webhook: str) -> None:
        """It is configured; begins at 0."""
        with self._lock:
            self._pending[webhook] = 0

    def count(self, webhook: str, result: str) -> None:
        """One more of RESULTS; of a webhook that is not known, nothing."""
        with self._lock:
            if webhook in self._pending:
                self._deliveries[webhook, result] += 1

    def set_pending(self, webhook: str, events: int) -> None:
        """So many changes were neither delivered nor given up; of a webhook that is not known, nothing."""
        with self._lock:
            if webhook in self._pending:
                self._pending[webhook] = events

    def forget(self, webhook: str) -> None:
        """It is not configured any more; its courier may be at work for a moment yet."""
        with self._lock:
            self._pending.pop(webhook, None)
            for result in RESULTS:
                self._deliveries.pop((webhook, result), None)

    @property
    def deliveries(self) -> dict[tuple[str, str], int]:
        """(webhook, result) → how many, for every webhook that is configured."""
        with self._lock:
            return {
                (name, result): self._deliveries[name, result] for name in self._pending for result in RESULTS
            }

    @property
    def pending(self) -> dict[str, int]:
        """Webhook → events that wait."""
        with self._lock:
            return dict(self._pending)
