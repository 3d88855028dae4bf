"""Tells of every change of what runs are told, in order, once it is durable."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping

from pathwatch.server.changes.diff import Change
from pathwatch.server.changes.reading import changes_by_revision
from pathwatch.server.engine.engine import Engine
from pathwatch.server.store.interface import StoreError, StoreReader

log = logging.getLogger("pathwatch.server")

RETRY_SECONDS = 1.0
"""How long after a failed read the next is tried."""


class ChangeFeed:
    """Reads signals from the store, in a thread of its own: a slow consumer holds up nobody else."""

    def __init__(
        self,
        engine: Engine,
        store: StoreReader,
        consumer: Callable[[Change], None],
        seen: Mapping[str, int] | None = None,
    ) -> None:
        """`seen` holds the revision of each run's signal up to which the consumer knows everything; without
        it that is the newest of each run that the engine, which has started, knows."""
        self._engine = engine
        self._store = store
        self._consumer = consumer
        newest = {name: view.last_signal.revision for name, view in engine.views.items()}
        self._seen = dict(newest if seen is None else seen)
        self._changed = set(newest)
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._closing = False
        self._thread = threading.Thread(target=self._tell_until_closed, name="pathwatch-changes", daemon=True)
        engine.listen(self._notify)

    def start(self) -> None:
        """Begin with what is not seen yet."""
        self._wake.set()
        self._thread.start()

    def close(self) -> None:
        """Tell what is known by now, then no more."""
        self._closing = True
        self._wake.set()
        self._thread.join()

    def _notify(self, run: str) -> None:
        with self._lock:
            self._changed.add(run)
        self._wake.set()

    def _tell_until_closed(self) -> None:
        while True:
            closing = self._closing
            self._wake.clear()
            with self._lock:
                changed, self._changed = self._changed, set()
            failed = {run for run in sorted(changed) if not self._tell(run)}
            with self._lock:
                self._changed |= failed
            if closing:
                return
            self._wake.wait(RETRY_SECONDS if failed else None)

    def _tell(self, run: str) -> bool:
        view = self._engine.views.get(run)
        seen = self._seen.get(run, 0)
        if view is None:
            self._seen.pop(run, None)
            return True
        if view.last_signal.revision < seen:  # deleted, and made anew
            seen = 0
        if view.last_signal.revision == seen:
            return True
        try:
            rows = self._store.signals(run, after_revision=seen - 1)
        except StoreError as error:
            log.warning("changes of run %r cannot be told of yet: %s", run, error, extra={"run": run})
            return False
        for revision, told in changes_by_revision(rows, seen):
            for change in told:
                self._consumer(change)
            self._seen[run] = revision
        return True
