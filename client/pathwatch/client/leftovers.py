"""What ended lives of this rank left in the spool folder: which of it can still be delivered."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pathwatch.client.backlog import Segment
from pathwatch.client.buffer import SendBuffer
from pathwatch.client.logs import QuietLogger
from pathwatch.client.session import Identity, Session
from pathwatch.client.spool_folder import SpoolFile, SpoolFolder, survey
from pathwatch.client.spool_life import Life

_logger = QuietLogger("pathwatch.client")

SILENT = 30.0
"""Seconds for which files of another machine are watched: a process that runs changes them in that time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sorted:
    """What was found."""

    adopted: Sequence[Session]
    """To be delivered, in this order, before anything of this life."""
    outdated: Sequence[Segment]
    """Of no use any more: the server takes nothing of older attempts, or of another world size."""
    unreadable: Sequence[Path]
    """They do not say whose they are."""


def sort_leftovers(
    folder: SpoolFolder, identity: Identity, is_open: Callable[[str], bool], wait: Callable[[float], None]
) -> Sorted:
    """Look for what was left. Raises OSError.

    `is_open`: whether a session of this process is in use. `wait`: waits so many seconds. Files of lives that
    go on, of later attempts and of other ranks and runs are left alone.
    """
    found, unreadable = folder.found()
    files = sorted(found, key=lambda file: (file.born, file.identity.session, file.index))
    files = [file for file in files if file.identity.attempt <= identity.attempt]
    sessions = [list(group) for _, group in itertools.groupby(files, lambda file: file.identity.session)]
    ended = _ended(sessions, is_open, wait)
    adopted, outdated = [], []
    for session in ended:
        newest_step = -1
        for file in session:
            survey(file.segment, newest_step)
            newest_step = file.segment.newest_step
        segments = [file.segment for file in session]
        whose = session[0].identity
        if (whose.attempt, whose.world_size) == (identity.attempt, identity.world_size):
            adopted.append(Session(whose, SendBuffer(0, leftovers=segments)))
        else:
            outdated.extend(segments)
    return Sorted(adopted=adopted, outdated=outdated, unreadable=unreadable)


def _ended(
    sessions: Sequence[list[SpoolFile]], is_open: Callable[[str], bool], wait: Callable[[float], None]
) -> list[list[SpoolFile]]:
    """Those whose process has ended, in their order."""
    here = Life.current()
    over = [
        not is_open(files[0].identity.session) if files[0].life == here else files[0].life.is_over()
        for files in sessions
    ]
    doubtful = [files for files, known in zip(sessions, over, strict=True) if known is None]
    before = {file.path: _touched(file.path) for files in doubtful for file in files}
    if doubtful:
        wait(SILENT)
    silent = [files for files in doubtful if all(_touched(file.path) == before[file.path] for file in files)]
    for files, known in zip(sessions, over, strict=True):
        if known is False or (known is None and files not in silent):
            life = files[0].life
            _logger.warning(
                "pathwatch: left %d spool files of rank %d alone, their process %d on %s still runs",
                len(files),
                files[0].identity.rank,
                life.pid,
                life.host,
            )
    return [files for files, known in zip(sessions, over, strict=True) if known or files in silent]


def _touched(path: Path) -> tuple[int, int] | None:
    """When the file was last changed, and its size; opened, so that a network file system asks its server."""
    try:
        with path.open("rb") as file:
            file.seek(0, 2)
            return path.stat().st_mtime_ns, file.tell()
    except FileNotFoundError:
        return None
