"""A disk that a test can fill and empty: a small file system of its own where one can be mounted, or else the
limit on the size of files of the process that writes."""

from __future__ import annotations

import errno
import resource
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol


class Disk(Protocol):
    """`folder` is on it."""

    folder: Path

    def fill(self, pid: int) -> None:
        """Leave no room for the process."""
        ...

    def free(self, pid: int) -> None:
        """Give the room back."""
        ...


class LimitedFiles:
    """No file may grow past the largest there is (EFBIG): any disk, any user."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def fill(self, pid: int) -> None:
        largest = max(file.stat().st_size for file in self.folder.rglob("*"))
        self._limit(pid, largest)

    def free(self, pid: int) -> None:
        self._limit(pid, resource.RLIM_INFINITY)

    @staticmethod
    def _limit(pid: int, size: int) -> None:
        _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, hard))


class SmallFileSystem:
    """Ballast takes what is left of a tmpfs (ENOSPC)."""

    def __init__(self, mounted: Path) -> None:
        self.folder = mounted
        self._ballast = mounted / "ballast"

    def fill(self, pid: int) -> None:
        with self._ballast.open("ab", buffering=0) as ballast:
            for size in (1 << 16, 1 << 12):
                try:
                    while True:
                        ballast.write(bytes(size))
                except OSError as error:
                    if error.errno != errno.ENOSPC:
                        raise

    def free(self, pid: int) -> None:
        self._ballast.unlink()


@contextmanager
def small_disk(folder: Path, mebibytes: int) -> Iterator[Disk]:
    """A file system of that size on `folder`; where none can be mounted, limited files in it."""
    folder.mkdir()
    size = f"size={mebibytes}m"
    mount = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", size, "pathwatch-test", folder], capture_output=True
    )
    if mount.returncode != 0:
        yield LimitedFiles(folder)
        return
    try:
        yield SmallFileSystem(folder)
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)
