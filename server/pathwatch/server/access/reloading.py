"""Files that are read again when they change."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Generic, TypeVar

log = logging.getLogger("pathwatch.server")

T = TypeVar("T")

CHECK_SECONDS = 1.0
"""How often, at most, files are looked at."""

_Signature = tuple[tuple[int, int, int, int] | None, ...]


class Reloaded(Generic[T]):
    """What was read from files, and again once they changed, links being followed. From any thread.

    What cannot be read leaves the former in force, is logged, and counted by `failed`.
    """

    def __init__(
        self, what: str, files: Sequence[Path], read: Callable[[], T], failed: Callable[[], None]
    ) -> None:
        """`what` names it in the log. Raises whatever `read` raises, at first."""
        self._what = what
        self._files = tuple(files)
        self._read = read
        self._failed = failed
        self._lock = threading.Lock()
        self._seen = self._signature()
        self._value = read()
        self._look_at = time.monotonic() + CHECK_SECONDS

    async def newest(self) -> T:
        """As `current`, for an event loop: files are read in a thread."""
        if self._is_due():
            return await asyncio.to_thread(self.current)
        return self._value

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
            return
        try:
            value = self._read()
        except (OSError, ValueError) as error:
            self._seen = signature
            self._failed()
            log.error("%s changed and cannot be used, the former stays in force: %s", self._what, error)
            return
        if self._signature() == signature:  # else it changed while it was read: next time
            self._seen, self._value = signature, value
            log.info("%s changed: read again", self._what)

    def _signature(self) -> _Signature:
        return tuple(map(_signature, self._files))


def _signature(path: Path) -> tuple[int, int, int, int] | None:
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_dev, stat.st_ino, stat.st_mtime_ns, stat.st_size
