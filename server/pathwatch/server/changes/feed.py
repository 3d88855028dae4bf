"""Tells of every change of what runs are told, in order, once it is durable."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping

from pathwatch.server.changes.diff import Change
from pathwatch.server.changes.reading import changes_by_revision
from pathwatch.server.engine.engine import Engine
from pathwatch.server.engine.view import RunView
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
        known: Mapping[str, RunView],
    ) -> None:
        """`known` holds the runs, by name, as the consumer knows them: it hears of what changed since."""
        self._engine = engine
        self._store = store
        self._consumer = consumer
        self._told = {name: _point(view) for name, view in known.items()}
        self._changed: set[str] = set()
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._closing = False
        self._thread = threading.Thread(target=self._tell_until_closed, name="pathwatch-changes", daemon=True)
        engine.listen(self._notify)
        with self._lock:  # after the first notice can come: none falls in between
            self._changed |= {*known, *engine.views}

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
            self._wake.clear()
            closing = self._closing  # after: an end that is asked for in between would not be heard of again
            with self._lock:
                changed, self._changed = self._changed, set()
            failed = {run for run in sorted(changed) if not self._tell(run)}
            with self._lock:
                self._changed |= failed
            if closing:
                return
            self._wake.wait(RETRY_SECONDS if failed else None)

    def _tell(self, run: str) -> bool:
        """Whether all is told that is to be had."""
        view = self._engine.views.get(run)
        if view is None:
            self._told.pop(run, None)
            return True
        created, newest = _point(view)
        told_of, seen = self._told.get(run, (created, 0))
        if told_of != created:  # deleted, and made anew
            seen = 0
        seen = max(seen, view.inherited_revision)
        if newest <= seen:
            return True
        try:
            rows = self._store.signals(run, after_revision=seen - 1)
        except StoreError as error:
            log.warning("changes of run %r cannot be told of yet: %s", run, error, extra={"run": run})
            return False
        view = self._engine.views.get(run)
        if view is None or _point(view)[0] != created:
            return True  # gone meanwhile, perhaps made anew: what was read may be of either; a notice comes
        for revision, changes in changes_by_revision(rows, seen):
            for change in changes:
                self._consumer(change)
            self._told[run] = created, revision
        return True


def _point(view: RunView) -> tuple[int, int]:
    """When the run was made, which tells it from others of its name, and its newest revision."""
    return view.run.created_at.ToMicroseconds(), view.last_signal.revision
