"""What is said of a damaged database: which file, what is wrong with it, what is left to go back to."""

from __future__ import annotations

import shlex
from pathlib import Path

from pathwatch.server.store.sqlite_connection import ERRORS, describe
from pathwatch.server.store.sqlite_snapshots import Snapshots


def damage_message(path: Path, what: str) -> str:
    """One line. Reads the newest snapshots, to name a good one."""
    return f"{path} is damaged ({what}); {way_back(path.parent)}"


def way_back(folder: Path) -> str:
    """How to put the newest good snapshot of a data folder in place."""
    try:
        snapshot = Snapshots(folder).newest_good()
    except ERRORS as error:
        return (
            f"snapshots cannot be read: {describe(error)}; with the server stopped, "
            f"`pathwatch fsck {shlex.quote(str(folder))}` looks at them again"
        )
    if snapshot is None:
        return (
            "there is no good snapshot: with the server stopped, restore a copy of your own, or move the "
            "file away to begin anew"
        )
    return (
        f"the newest good snapshot is {snapshot}: with the server stopped, "
        f"`pathwatch fsck {shlex.quote(str(folder))} --restore` puts it in place and keeps the damaged file"
    )
