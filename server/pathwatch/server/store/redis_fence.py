"""What holds the writes of a run to its lease."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class Fence:
    """A run is written unless somebody else has taken its lease since it had this epoch."""

    epoch: str
    """NUMBER-TOKEN: the number grows with each taking, the token tells two takers of one number apart."""
    owner: str
    """HOST:PORT of who has taken it. Where Redis has lost the lease, it is put back with this owner,"""
    milliseconds: int
    """and lasts so long."""


Fences: TypeAlias = Callable[[str], Fence | None]
"""Gives that of a run; None = the run is not this server's."""
