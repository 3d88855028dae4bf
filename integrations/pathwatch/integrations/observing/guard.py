"""Nothing that goes wrong in the hook reaches training."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from pathwatch.client.logs import QuietLogger

_logger = QuietLogger("pathwatch.integrations")


class Guard:
    """Swallows the first exception of guarded code, logs it once, and is `failed` from then on."""

    def __init__(self) -> None:
        self.failed = False

    @contextmanager
    def __call__(self, doing: str) -> Iterator[None]:
        """Run a block; `doing` says in the log what failed."""
        try:
            yield
        except Exception:
            if not self.failed:
                _logger.exception("pathwatch failed while %s; it observes no more, training goes on", doing)
            self.failed = True
