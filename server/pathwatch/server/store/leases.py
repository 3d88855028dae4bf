"""Whose a run is, where several servers share what is stored."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Held:
    """Another server has the run."""

    owner: str
    """HOST:PORT at which it is reached; empty = not known."""
    seconds: float
    """How long at least, unless it lets go before."""


class Leases(Protocol):
    """The runs that are this server's, until it lets go of them or does not renew them in time.

    `take` and `release` are called by the thread that writes, `renew` by another, `held` and `epoch` by any.
    """

    @property
    def own(self) -> str:
        """HOST:PORT at which this server is reached: who it is to others."""
        ...

    @property
    def seconds(self) -> float:
        """How long a lease lasts from its last renewal."""
        ...

    @property
    def held(self) -> Set[str]:
        """Runs that are this server's as far as it knows."""
        ...

    def epoch(self, run: str) -> int | None:
        """How often the run was taken, by whomever, up to when this server took it; None = it is not held."""
        ...

    def take(self, run: str) -> Held | None:
        """Make the run this server's; None = it is, and at once where it is held. Raises StoreError."""
        ...

    def renew(self) -> Mapping[str, Held]:
        """Renew all; those that are lost, with who has them now: they are not held any more.

        Raises StoreError, then none is known to be lost.
        """
        ...

    def release(self, runs: Iterable[str]) -> None:
        """Let go of the runs: whoever asks next has them. Of those that are not held, nothing.

        Also of a run that turned out to be another server's when it was written (FencedError), and of one
        that was deleted. They are not held any more, whatever is raised: StoreError, then they run out.
        """
        ...
