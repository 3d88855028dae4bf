"""The files of a spool folder. Every call may hang as long as the file system does.

A file is made by one process, exclusively, and only that one appends to it; nothing is mapped, locked or
renamed, and no file stays open between two calls. So it works on network file systems, too.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from pathwatch.client.backlog import Segment
from pathwatch.client.session import Identity
from pathwatch.client.spool_frames import (
    Damage,
    Frame,
    SpoolFormatError,
    header_bytes,
    read_frames,
    read_header,
    seed_of,
)
from pathwatch.client.spool_life import Life

_SUFFIX = ".spool"
_FIELDS = {
    **dict.fromkeys(("run", "session", "host", "boot", "namespace", "started"), str),
    **dict.fromkeys(("attempt", "rank", "world_size", "born", "index", "pid"), int),
}
"""What a header must say, and of which type."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SpoolFile:
    """A file that was found, and what its header says."""

    path: Path
    identity: Identity
    life: Life
    born: int
    """Nanoseconds since the epoch at which its session began to spool, by that host's clock."""
    index: int
    """Place among the files of its session."""
    segment: Segment


@dataclass(frozen=True, slots=True, kw_only=True)
class Read:
    """What was read of a segment."""

    frames: list[Frame]
    damages: list[tuple[Damage, int]]
    """Each with the offset behind it."""
    offset: int
    """Where to go on."""


class SpoolFolder:
    """The files of one rank of a run, and those that its earlier lives left."""

    def __init__(self, folder: Path, identity: Identity, life: Life, born: int) -> None:
        self._folder = folder
        self._identity = identity
        self._life = life
        self._born = born
        self._index = 0
        run = hashlib.sha256(identity.run.encode()).hexdigest()[:16]
        self._prefix = f"pathwatch-{run}-rank{identity.rank}-"

    def create(self) -> Segment:
        """A new file of this session, holding its header. Raises OSError."""
        self._folder.mkdir(parents=True, exist_ok=True)
        session = hashlib.sha256(self._identity.session.encode()).hexdigest()[:16]
        host = "".join(c if c.isalnum() else "_" for c in self._life.host)
        name = f"{self._prefix}{session}-{host}-{self._life.pid}-{self._index:06d}{_SUFFIX}"
        path = self._folder / name
        header = header_bytes(
            {
                "run": self._identity.run,
                "attempt": self._identity.attempt,
                "rank": self._identity.rank,
                "world_size": self._identity.world_size,
                "session": self._identity.session,
                "born": self._born,
                "index": self._index,
                **self._life.fields(),
            }
        )
        self._index += 1
        try:
            write_at_end(path, header, create=True)
        except FileExistsError:
            raise
        except OSError:
            with contextlib.suppress(OSError):
                path.unlink()
            raise
        return Segment(path=path, seed=seed_of(header), start=len(header), nbytes=len(header))

    def found(self) -> tuple[list[SpoolFile], list[Path]]:
        """Files of this rank of the run, whichever life wrote them, in no order.

        Beside them those that do not say whose they are: unreadable, damaged there, or not yet written.
        Raises OSError.
        """
        files: list[SpoolFile] = []
        unreadable: list[Path] = []
        if not self._folder.is_dir():
            return files, unreadable
        for entry in os.scandir(self._folder):
            if entry.name.startswith(self._prefix) and entry.name.endswith(_SUFFIX):
                path = Path(entry.path)
                try:
                    file = _opened(path)
                except FileNotFoundError:  # delivered by whoever wrote it
                    continue
                except (OSError, SpoolFormatError):
                    unreadable.append(path)
                    continue
                if file.identity.run == self._identity.run:
                    files.append(file)
        return files, unreadable


def write_at_end(path: Path, data: bytes, *, create: bool = False) -> None:
    """Append to a file; with `create` to a new one. Raises OSError; part of `data` may be written then."""
    flags = os.O_WRONLY | os.O_APPEND | (os.O_CREAT | os.O_EXCL if create else 0)
    descriptor = os.open(path, flags, 0o600)
    try:
        left = memoryview(data)
        while left:
            left = left[os.write(descriptor, left) :]
    finally:
        os.close(descriptor)


def make_durable(segment: Segment) -> None:
    """Return once the file survives a crash of the machine. Raises OSError."""
    descriptor = os.open(segment.path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_segment(segment: Segment, offset: int, nbytes: int) -> Read:
    """Frames from `offset` on, of `nbytes` or a little more. Raises OSError."""
    frames: list[Frame] = []
    damages: list[tuple[Damage, int]] = []
    with segment.path.open("rb") as file:
        for item, end in read_frames(file, segment.seed, offset, segment.nbytes):
            if isinstance(item, Frame):
                frames.append(item)
                nbytes -= len(item.payload)
            else:
                damages.append((item, end))
            offset = end
            if nbytes <= 0:
                break
    return Read(frames=frames, damages=damages, offset=offset)


def survey(segment: Segment, newest_step: int = -1) -> None:
    """Note what a file holds that another life wrote. Raises OSError.

    `newest_step`: largest step in the files before it.
    """
    segment.newest_step = newest_step
    with segment.path.open("rb") as file:
        whole = os.fstat(file.fileno()).st_size
        for item, end in read_frames(file, segment.seed, segment.start, whole, payloads=False):
            if isinstance(item, Frame):
                segment.note(item.kind, item.step, item.sequence, item.samples, end)
    segment.nbytes = whole


def checkpoint_frames(segment: Segment) -> list[Frame]:
    """The checkpoints in a file. Raises OSError."""
    with segment.path.open("rb") as file:
        items = read_frames(file, segment.seed, segment.start, segment.nbytes)
        return [item for item, _ in items if isinstance(item, Frame) and item.kind == "checkpoint"]


def _opened(path: Path) -> SpoolFile:
    with path.open("rb") as file:
        fields, seed, start = read_header(file)
    if wrong := [name for name, kind in _FIELDS.items() if not isinstance(fields.get(name), kind)]:
        raise SpoolFormatError(f"its header lacks {', '.join(wrong)}")
    return SpoolFile(
        path=path,
        identity=Identity(
            run=fields["run"],
            attempt=fields["attempt"],
            rank=fields["rank"],
            world_size=fields["world_size"],
            session=fields["session"],
        ),
        life=Life.of(fields),
        born=fields["born"],
        index=fields["index"],
        segment=Segment(path=path, seed=seed, start=start, nbytes=start),
    )
