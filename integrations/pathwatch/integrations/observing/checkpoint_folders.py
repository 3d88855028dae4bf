"""Checkpoints on disk: links to the chosen ones, deletion of what is not needed."""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path
from urllib.parse import quote

BEST = "best"


def link_name(group: str | None) -> str:
    """`best`, or `best-<group>` with what is not safe in a file name as %XX."""
    return BEST if group is None else f"{BEST}-{quote(group, safe='')}"


def link(checkpoint: Path, name: str) -> None:
    """Have `name` beside the checkpoint point to it: a relative symlink, put in place atomically.

    Where there are no symlinks it is a text file that holds the checkpoint's name.

    Raises:
        FileExistsError: something that is no link has that name.
        OSError: the folder cannot be written.
    """
    place = checkpoint.parent / name
    if place.is_symlink():
        if os.readlink(place) == checkpoint.name:
            return
    elif place.is_dir() or (place.exists() and _pointed_at(place) is None):
        raise FileExistsError(
            f"{place} is no link of ours; rename it to have the best checkpoint linked there"
        )
    temporary = checkpoint.parent / f".{name}.new"
    with contextlib.suppress(FileNotFoundError):
        temporary.unlink()
    try:
        temporary.symlink_to(checkpoint.name)
    except (OSError, NotImplementedError):
        temporary.write_text(checkpoint.name + "\n")
    os.replace(temporary, place)


def deletable(checkpoint: Path) -> bool:
    """Whether it is a folder to which neither a link of ours nor DeepSpeed's `latest` points."""
    if checkpoint.is_symlink() or not checkpoint.is_dir():
        return False
    # A tag may contain slashes; `latest` lies in the folder that was given to save_checkpoint.
    notes = [note for parent in checkpoint.parents[:3] for note in parent.glob("latest*")]
    return checkpoint.resolve() not in {
        _pointed_at(note) for note in (*notes, *checkpoint.parent.glob(f"{BEST}*"))
    }


def delete(checkpoint: Path) -> None:
    """Delete a folder; it is gone under its name at once, so that no half of it is taken for a checkpoint."""
    doomed = checkpoint.with_name(f".{checkpoint.name}.deleting")
    os.replace(checkpoint, doomed)
    shutil.rmtree(doomed)


def _pointed_at(note: Path) -> Path | None:
    """What a link, or a text file with a name in it, points to; None = nothing that is there."""
    if note.is_symlink():
        return note.resolve()
    try:
        target = note.parent / note.read_text().strip()
        return target.resolve() if target != note.parent and target.is_dir() else None
    except (OSError, ValueError):
        return None
