"""What the disk alone lets through: the same bytes, appended and synced."""

from __future__ import annotations

import os
import time
from pathlib import Path


def append_and_sync(folder: Path, *, size: int, seconds: float) -> float:
    """Bytes per second of appending `size` bytes and waiting for them to be on disk, over and over."""
    data = os.urandom(size)
    path = folder / "appended"
    with path.open("wb", buffering=0) as file:
        start, written = time.monotonic(), 0
        while (took := time.monotonic() - start) < seconds:
            written += file.write(data)
            os.fdatasync(file.fileno())
    path.unlink()
    return written / took
