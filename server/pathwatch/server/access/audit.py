"""Who changed what, and who was turned away: one line each."""

from __future__ import annotations

import json
import logging
import os
import time
from datetime import UTC, datetime
from io import TextIOWrapper
from logging.handlers import WatchedFileHandler
from pathlib import Path

log = logging.getLogger("pathwatch.server")

REFUSALS_PER_SECOND = 20
"""Refused and failed calls written; of more, only the number is: who knocks often must not fill the disk."""


class AuditLog:
    """Appends to a file that may be moved away at any time (logrotate), or to the log. On the event loop."""

    def __init__(self, path: Path | None) -> None:
        """Raises OSError where the file cannot be appended to."""
        self._log = logging.getLogger("pathwatch.server.audit")
        self._handler: logging.Handler | None = None
        if path is not None:
            self._log = logging.Logger("audit", logging.INFO)
            self._handler = _Handler(path, encoding="utf-8")
            self._handler.setFormatter(logging.Formatter("%(message)s"))
            self._log.addHandler(self._handler)
        self._second = 0
        self._written = 0
        self._suppressed = 0

    def record(
        self, *, peer: str, token: str | None, method: str, run: str | None, outcome: str, refused: bool
    ) -> None:
        """Write one line: `outcome` is the gRPC status, `token` the name of one, never the secret.

        Calls that were `refused`, or failed, are written so many a second.
        """
        entry: dict[str, object] = {
            "peer": peer,
            "token": token,
            "method": method,
            "run": run,
            "outcome": outcome,
        }
        if refused and not self._has_room():
            self._suppressed += 1
            return
        if self._suppressed:
            entry["suppressed"], self._suppressed = self._suppressed, 0
        if self._handler is not None:
            entry = {"time": datetime.now(UTC).isoformat(timespec="milliseconds"), **entry}
            self._log.info("%s", json.dumps(entry, ensure_ascii=True))
        else:
            self._log.info("audit", extra=entry)

    def close(self) -> None:
        """Let go of the file."""
        if self._handler is not None:
            self._handler.close()

    def _has_room(self) -> bool:
        second = int(time.monotonic())
        if second != self._second:
            self._second, self._written = second, 0
        self._written += 1
        return self._written <= REFUSALS_PER_SECOND


class _Handler(WatchedFileHandler):
    def _open(self) -> TextIOWrapper:
        return open(
            self.baseFilename,
            "a",
            encoding="utf-8",
            opener=lambda path, flags: os.open(path, flags, 0o600),
        )

    def emit(self, record: logging.LogRecord) -> None:
        """Calls go on where the line cannot be written, and the log says so."""
        try:
            super().emit(record)
        except OSError as error:
            log.error("cannot open the audit log %s: %s; %s", self.baseFilename, error, record.getMessage())

    def handleError(self, record: logging.LogRecord) -> None:
        """As `emit` says."""
        log.error("cannot write the audit log %s: %s", self.baseFilename, record.getMessage())
