"""What holds the writes of a run to its lease."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from pathwatch.server.store.interface import FencedError


@dataclass(frozen=True, slots=True)
class Fence:
    """A run is written unless somebody else has taken its lease since it had this epoch.

    Where Redis has lost the lease, a write puts it back, if nobody else has written the run since.
    """

    epoch: str
    """NUMBER-TOKEN: the number grows with each taking, the token tells two takers of one number apart."""
    owner: str
    """HOST:PORT of who has taken it."""
    milliseconds: int
    """How long it lasts when it is put back."""


Fences: TypeAlias = Callable[[str], Fence | None]
"""Gives that of a run; None = the run is not this server's."""


def fencing(run: str, fences: Fences | None) -> tuple[str, str, int]:
    """What redis_write.lua is told of the lease: epoch, owner, milliseconds; without `fences`, of none.

    Raises FencedError where the run is not this server's.
    """
    if fences is None:
        return "", "", 0
    if fence := fences(run):
        return fence.epoch, fence.owner, fence.milliseconds
    raise FencedError(f"run {run!r} is not this server's now: nothing of it is written")
