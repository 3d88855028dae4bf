"""Takes snapshots from time to time, in a thread of its own, never in the writer's way."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path

from pathwatch.server.store.sqlite_connection import ERRORS, describe
from pathwatch.server.store.sqlite_snapshots import DamagedCopyError, SnapshotError, Snapshots

log = logging.getLogger("pathwatch.server")


class SnapshotThread:
    """Runs from the start until `stop`."""

    def __init__(
        self,
        database: Path,
        snapshots: Snapshots,
        every_seconds: float,
        *,
        changes: Callable[[], int],
        damaged: Callable[[str], None],
    ) -> None:
        """`changes` counts commits: what has not changed is not copied again.

        `damaged` hears of a database that the check of a snapshot found damaged.
        """
        self._database = database
        self._snapshots = snapshots
        self._every_seconds = every_seconds
        self._changes = changes
        self._damaged = damaged
        self._copied: int | None = None
        """Changes at the last snapshot; None = what an earlier server did is not known."""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="pathwatch-snapshots")
        self._thread.start()

    def stop(self) -> None:
        """End; a snapshot under way is given up."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        wait = self._until_first()
        while not self._stop.wait(wait):
            self._take()
            wait = self._every_seconds

    def _until_first(self) -> float:
        """Seconds; a server that is restarted often takes no more snapshots than others."""
        known = self._snapshots.all()
        age = time.time() - known[-1].taken_at if known else 0.0
        return min(max(self._every_seconds - age, 0.0), self._every_seconds)

    def _take(self) -> None:
        changes = self._changes()
        if changes == self._copied:
            return
        try:
            snapshot = self._snapshots.take(self._database, stopping=self._stop.is_set, unhurried=True)
        except DamagedCopyError as error:
            self._damaged(str(error))
        except (SnapshotError, *ERRORS, OSError) as error:
            if not self._stop.is_set():
                log.warning("no snapshot of %s was taken: %s", self._database, describe(error))
        else:
            self._copied = changes
            log.info("took the snapshot %s", snapshot)
