"""Checkpoints that the job has saved, and which of them may go."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoints:
    """What is done with saved checkpoints. All of it by rank 0, in folders it sees."""

    links: bool = True
    """Keep links `best` and `best-<group>` beside the checkpoints, to those the service prefers."""
    keep: int | None = None
    """None: delete nothing. Else delete checkpoints of this run once they are neither among the `keep` newest
    nor among the `keep` that the service prefers, overall or for some group."""

    def __post_init__(self) -> None:
        if self.keep is not None and self.keep < 1:
            raise ValueError(f"checkpoints: keep must be at least 1, got {self.keep}")


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedCheckpoint:
    """One that the job has said it saved."""

    step: int
    tag: str
    path: str | None = None
    """Its folder, absolute; None = not told."""
    deleted: bool = False
    """It was deleted for want of use, or overwritten by a later one."""


class SavedCheckpoints:
    """The checkpoints on the present line of training, by step."""

    def __init__(self) -> None:
        self._by_step: dict[int, SavedCheckpoint] = {}

    def __iter__(self) -> Iterator[SavedCheckpoint]:
        """By step, ascending."""
        return iter(sorted(self._by_step.values(), key=lambda saved: saved.step))

    def add(self, step: int, tag: str | None, path: Path | None) -> str | None:
        """Note a checkpoint; None as tag = global_step<step>.

        Returns:
            Its tag when that is news, None when the checkpoint is known: a name or a path once told stays
            where none is told again.
        """
        known = self._by_step.get(step)
        if known is not None and known.deleted:
            known = None
        name = tag or (known.tag if known else f"global_step{step}")
        where = str(path.absolute()) if path else (known.path if known else None)
        for other in self:
            if where is not None and other.path == where and other.step != step:
                self.mark_deleted(other)
        self._by_step[step] = SavedCheckpoint(step=step, tag=name, path=where)
        return None if known is not None and known.tag == name else name

    def at(self, step: int) -> SavedCheckpoint | None:
        """The one of a step."""
        return self._by_step.get(step)

    def mark_deleted(self, saved: SavedCheckpoint) -> None:
        """It is no longer there."""
        self._by_step[saved.step] = replace(saved, deleted=True)

    def rewind(self, step: int) -> None:
        """The job goes on from `step`: what was saved later is no longer its past."""
        self._by_step = {at: saved for at, saved in self._by_step.items() if at <= step}

    def state_dict(self) -> list[dict[str, Any]]:
        """For `load_state_dict`."""
        return [asdict(saved) for saved in self]

    def load_state_dict(self, state: Sequence[dict[str, Any]]) -> None:
        """Replace what is noted by what was."""
        self._by_step = {entry["step"]: SavedCheckpoint(**entry) for entry in state}


def superfluous(
    saved: Sequence[SavedCheckpoint], rankings: Sequence[Sequence[int]], keep: int
) -> list[SavedCheckpoint]:
    """Checkpoints that nobody will come back to.

    Args:
        saved: present ones, by step, ascending.
        rankings: steps of the registered checkpoints, best first, overall and for each group.
        keep: how many to keep of the newest, and of the best of every ranking: the next best are what the
            service may choose once it learns more.
    """
    present = {checkpoint.step for checkpoint in saved}
    kept = {checkpoint.step for checkpoint in saved[-keep:]}
    for ranking in rankings:
        kept.update([step for step in ranking if step in present][:keep])
    # One that the service has not heard of yet has not had its chance.
    known = {step for ranking in rankings for step in ranking}
    return [checkpoint for checkpoint in saved if checkpoint.step in known - kept]
