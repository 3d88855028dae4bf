"""Who waits for a run to change."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator


class Watchers:
    """Events of those who watch, by run. Made and used on the event loop; `notify` from any thread."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._events: dict[str, set[asyncio.Event]] = {}

    @contextlib.contextmanager
    def watch(self, run: str) -> Iterator[asyncio.Event]:
        """An event that is set at every change of the run."""
        event = asyncio.Event()
        self._events.setdefault(run, set()).add(event)
        try:
            yield event
        finally:
            self._events[run].discard(event)
            if not self._events[run]:
                del self._events[run]

    def notify(self, run: str) -> None:
        """The run has changed."""
        with contextlib.suppress(RuntimeError):  # the loop has closed: nobody watches
            self._loop.call_soon_threadsafe(self._wake, run)

    def wake_all(self) -> None:
        """Let all watchers look, changed or not."""
        for run in list(self._events):
            self._wake(run)

    def _wake(self, run: str) -> None:
        for event in self._events.get(run, ()):
            event.set()
