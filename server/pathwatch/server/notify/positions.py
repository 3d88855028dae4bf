"""How far a webhook has been told of each run, in a small file that outlives the process.

Not a table of the store: that is written by the engine alone, in transactions that ingest waits for, and a
snapshot of it that is put back would have everything since told once more.
"""

from __future__ import annotations

import json
import logging
import os
import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pathwatch.server.store.sqlite_folder import sync

log = logging.getLogger("pathwatch.server")

VERSION = 1
FOLDER = "webhooks"
SUFFIX = ".json"


@dataclass(frozen=True, slots=True)
class Position:
    """Everything up to here is settled: delivered, given up or not wanted."""

    created: int
    """When the run was created, microseconds since the epoch: another run may have its name later."""
    revision: int = 0
    """Of the last signal all of whose changes are settled."""
    changes: int = 0
    """Settled changes of the signal after that."""


class Positions:
    """Of one webhook; all but `close` is for one thread."""

    def __init__(self, data: Path, webhook: str) -> None:
        """Reads what is there. A file that cannot be used is logged, and as good as none."""
        self._path = data / FOLDER / f"{webhook}{SUFFIX}"
        self._saved: dict[str, Position] = {}
        self._saving = threading.Lock()
        self._closed = False
        self._failing = False
        self.is_new = True
        """Whether nothing is known."""
        try:
            self._saved = _parse(json.loads(self._path.read_bytes()))
            self.is_new = False
        except FileNotFoundError:
            pass
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            log.error(
                "%s cannot be used (%s): webhook %r hears of what changes from now on",
                self._path,
                type(error).__name__,
                webhook,
                extra={"webhook": webhook},
            )
        self._by_run = dict(self._saved)

    def get(self, run: str, created: int) -> Position:
        """Where a run stands; at its beginning if it is not known."""
        known = self._by_run.get(run)
        return known if known is not None and known.created == created else Position(created)

    def set(self, run: str, position: Position) -> None:
        """Settled up to here; durable with the next `save`."""
        self._by_run[run] = position

    def drop(self, run: str) -> None:
        """The run is gone."""
        self._by_run.pop(run, None)

    def save(self) -> None:
        """Make everything durable. Where the disk takes nothing, some is told again after a restart."""
        if self._by_run == self._saved and not self.is_new:
            return
        content = {"version": VERSION, "runs": {run: asdict(at) for run, at in sorted(self._by_run.items())}}
        try:
            with self._saving:
                if self._closed:
                    return
                _replace(self._path, json.dumps(content).encode())
        except OSError as error:
            if not self._failing:
                log.error("%s cannot be written, and is tried again: %s", self._path, error.strerror)
            self._failing = True
            return
        self._failing = self.is_new = False
        self._saved = dict(self._by_run)

    def close(self) -> None:
        """Save no more; a save under way is waited for. From any thread."""
        with self._saving:
            self._closed = True

    def remove(self) -> None:
        """Forget the webhook."""
        try:
            self._path.unlink(missing_ok=True)
        except OSError as error:
            log.error("%s cannot be removed: %s", self._path, error.strerror)


def known_webhooks(data: Path) -> list[str]:
    """Names of webhooks that there are files of."""
    return [path.name.removesuffix(SUFFIX) for path in (data / FOLDER).glob(f"*{SUFFIX}")]


def _parse(content: Mapping[str, Any]) -> dict[str, Position]:
    if content["version"] != VERSION:
        raise ValueError("another version")
    return {
        str(run): Position(int(at["created"]), int(at["revision"]), int(at["changes"]))
        for run, at in content["runs"].items()
    }


def _replace(path: Path, content: bytes) -> None:
    """All of it, or what was there before."""
    path.parent.mkdir(mode=0o700, exist_ok=True)
    part = path.with_suffix(".part")
    fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
    sync(path.parent)
