"""Whom the file system lets at a file with secrets."""

from __future__ import annotations

import logging
import stat
from pathlib import Path

log = logging.getLogger("pathwatch.server")


def warn_if_open(path: Path) -> None:
    """Log a warning where other users of the machine can read the file, or change it. Raises OSError."""
    mode = path.stat().st_mode
    if mode & (stat.S_IWGRP | stat.S_IWOTH):
        log.warning("%s can be changed by other users: chmod go-w %s", path, path)
    if mode & stat.S_IROTH:
        log.warning("%s can be read by all users of this machine: chmod o-r %s", path, path)
