"""What may take long beside training."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from pathwatch.client.logs import QuietLogger

_logger = QuietLogger("pathwatch.integrations")


class Errands:
    """Runs errands one after the other in a daemon thread, which starts with the first.

    An errand that still waits is replaced by a newer one of the same name, so that nothing piles up behind
    a slow one. One that fails is logged, the first time.
    """

    def __init__(self) -> None:
        self._waiting: dict[str, Callable[[], None]] = {}
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closed = False
        self._warned: set[str] = set()

    def run(self, doing: str, errand: Callable[[], None]) -> None:
        """Have an errand run soon; `doing` names it, in the log too."""
        with self._changed:
            if self._closed:
                return
            self._waiting[doing] = errand
            self._changed.notify_all()
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="pathwatch-errands", daemon=True)
                self._thread.start()

    def close(self, timeout: float) -> None:
        """Take no more; wait at most `timeout` seconds for what was asked before."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if self._thread is not None:
            started = time.monotonic()
            self._thread.join(timeout)
            if self._thread.is_alive():
                _logger.warning(
                    "pathwatch: closed while still %s (%.1f s)",
                    " and ".join(self._waiting) or "busy",
                    time.monotonic() - started,
                )

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closed)
                if not self._waiting:
                    return
                doing = next(iter(self._waiting))
                errand = self._waiting.pop(doing)
            try:
                errand()
            except Exception as error:
                if doing not in self._warned:
                    self._warned.add(doing)
                    _logger.warning(
                        "pathwatch failed while %s, training goes on (told once): %s: %s",
                        doing,
                        type(error).__name__,
                        error,
                    )
