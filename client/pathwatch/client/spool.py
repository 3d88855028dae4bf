"""What a user says about keeping on disk what memory cannot hold."""

from __future__ import annotations

import os
from dataclasses import dataclass

SMALLEST_SPOOL = 1 << 20


@dataclass(frozen=True, slots=True)
class Spool:
    """Where and how much a stream may keep on disk while the sidecar is away (docs/spool.md)."""

    folder: str | os.PathLike[str]
    """Made if it is not there. Any number of ranks and runs may share it. A local disk is best."""
    max_bytes: int = 4 << 30
    """At most this much is kept for one rank; beyond, whole oldest steps are dropped and counted."""

    def __post_init__(self) -> None:
        if not os.fspath(self.folder):
            raise ValueError("spool: folder is empty; name the folder to keep messages in")
        if self.max_bytes < SMALLEST_SPOOL:
            raise ValueError(f"spool: max_bytes is {self.max_bytes}, must be at least {SMALLEST_SPOOL}")
