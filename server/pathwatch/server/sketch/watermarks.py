"""How far each rank of a run has come."""

from __future__ import annotations

from pathwatch.server.sketch.errors import SketchError


class RankWatermarks:
    """Last complete step of every rank in the current attempt; −1 before the first."""

    def __init__(self) -> None:
        self.world_size = 0
        self._step_of: dict[int, int] = {}

    def join(self, rank: int, world_size: int) -> None:
        """A rank says how many there are; the newest word counts."""
        if not 0 <= rank < world_size:
            raise SketchError(
                "hello.rank", f"rank {rank} is outside 0 … {world_size - 1} (world_size {world_size})"
            )
        self.world_size = world_size

    def advance(self, rank: int, step: int) -> None:
        """A rank has sent everything up to `step`; going back changes nothing."""
        if not 0 <= rank < self.world_size:
            raise SketchError(
                "hello.rank", f"rank {rank} has not joined; {self.world_size} ranks are expected"
            )
        self._step_of[rank] = max(step, self._step_of.get(rank, -1))

    @property
    def newest(self) -> int:
        """Step of the rank that is ahead of all."""
        return max(self._step_of.values(), default=-1)

    def behind(self, step: int) -> tuple[int, ...]:
        """Ranks, ascending, that have not passed `step`."""
        return tuple(rank for rank in range(self.world_size) if self._step_of.get(rank, -1) < step)

    def all_passed(self, step: int) -> bool:
        """Whether there are ranks and all have passed `step`."""
        return self.world_size > 0 and not self.behind(step)
