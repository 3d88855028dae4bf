"""Files that are read again when they change."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Generic, TypeVar

log = logging.getLogger("pathwatch.server")

T = TypeVar("T")

CHECK_SECONDS = 1.0
"""How often, at most, files are looked at."""

_Signature = tuple[tuple[int, int, int, int] | None, ...]


class Reloaded(Generic[T]):
    """What was read from files, and again once they changed, links being followed. From any thread.

    What cannot be read leaves the former in force and is logged. `report` hears of it, every time (True), and
    when the files are good again (False).
    """

    def __init__(
        self, what: str, files: Sequence[Path], read: Callable[[], T], report: Callable[[bool], None]
    ) -> None:
        """`what` names it in the log. Raises whatever `read` raises, at first."""
        self._what = what
        self._files = tuple(files)
        self._read = read
        self._report = report
        self._failing = False
        self._lock = threading.Lock()
        self._seen = self._signature()
        self._said: _Signature | None = None
        """Files that could not be read, and of which that was said."""
        self._is_seen_bad = False
        """Whether what was seen last was read, and is wrong."""
        self._thread = ThreadPoolExecutor(1, "pathwatch-reload")
        """Not the loop's: slow reads of others may hold all of that one's threads."""
        self._look_under_way: Future[T] | None = None
        self._value = read()
        self._look_at = time.monotonic() + CHECK_SECONDS

    async def newest(self) -> T:
        """As `current`, for an event loop: files are read in a thread of their own, for one call at a time.

        A call that comes meanwhile gets what is at hand.
        """
        if not self._is_due() or (self._look_under_way is not None and not self._look_under_way.done()):
            return self._value
        self._look_under_way = self._thread.submit(self.current)
        return await asyncio.wrap_future(self._look_under_way)

    def current(self) -> T:
        """The newest that could be read, at most a second old."""
        if self._is_due() and self._lock.acquire(blocking=False):
            try:
                self._look()
            finally:
                self._look_at = time.monotonic() + CHECK_SECONDS
                self._lock.release()
        return self._value

    def _is_due(self) -> bool:
        return time.monotonic() >= self._look_at

    def _look(self) -> None:
        signature = self._signature()
        if signature == self._seen:
            self._said = None
            if not self._is_seen_bad:
                self._mend()
            return
        try:
            value = self._read()
        except OSError as error:
            # Nothing was read, for want of files or of rights: that may end while the files stay as they are.
            if signature != self._said:
                self._said = signature
                self._fail(error)
            return
        except ValueError as error:
            self._seen, self._is_seen_bad = signature, True
            self._fail(error)
            return
        if self._signature() == signature:  # else it changed while it was read: next time
            self._seen, self._is_seen_bad, self._said, self._value = signature, False, None, value
            self._mend()
            log.info("%s changed: read again", self._what)

    def _fail(self, error: Exception) -> None:
        self._failing = True
        self._report(True)
        log.error("%s changed and cannot be used, the former stays in force: %s", self._what, error)

    def _mend(self) -> None:
        if self._failing:
            self._failing = False
            self._report(False)

    def _signature(self) -> _Signature:
        return tuple(map(_signature, self._files))


def _signature(path: Path) -> tuple[int, int, int, int] | None:
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_dev, stat.st_ino, stat.st_mtime_ns, stat.st_size
