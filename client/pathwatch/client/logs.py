"""Logging that cannot fail: what a handler of the job raises must not reach training."""

from __future__ import annotations

import contextlib
import logging


class QuietLogger(logging.LoggerAdapter[logging.Logger]):
    """The logger of that name, of which no call ever raises an Exception."""

    def __init__(self, name: str) -> None:
        super().__init__(logging.getLogger(name), {})

    def log(self, level: int, msg: object, *args: object, **kwargs: object) -> None:
        """As `logging.Logger.log`; all other methods come here."""
        with contextlib.suppress(Exception):
            super().log(level, msg, *args, stacklevel=2, **kwargs)  # type: ignore[arg-type]
