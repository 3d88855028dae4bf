"""Which router geometry holds at a step."""

from __future__ import annotations

from dataclasses import dataclass

from pathwatch.server.metrics.window import Geometry


@dataclass(frozen=True, slots=True)
class _Entry:
    attempt: int
    geometry: Geometry


def geometry_bytes(geometry: Geometry) -> int:
    """Bytes that a geometry takes."""
    return geometry.gram_self_LKK.nbytes + geometry.gram_next_LKK.nbytes


class Geometries:
    """The geometries of a run that some round may still need, by step."""

    def __init__(self) -> None:
        self._by_step: dict[int, _Entry] = {}

    @property
    def nbytes(self) -> int:
        """Bytes they take."""
        return sum(geometry_bytes(entry.geometry) for entry in self._by_step.values())

    def add(self, attempt: int, geometry: Geometry) -> None:
        """Take in a geometry; it holds from its step on."""
        self._by_step[geometry.step] = _Entry(attempt, geometry)

    def at(self, step: int) -> Geometry | None:
        """The newest geometry read at or before `step`."""
        steps = [known for known in self._by_step if known <= step]
        return self._by_step[max(steps)].geometry if steps else None

    def forget_before(self, step: int) -> None:
        """Drop what no round after `step` needs."""
        current = self.at(step)
        if current is not None:
            for known in [known for known in self._by_step if known < current.step]:
                del self._by_step[known]

    def rewind(self, attempt: int, first_step: int) -> None:
        """Drop what older attempts read from `first_step` on."""
        for step, entry in list(self._by_step.items()):
            if entry.attempt < attempt and step >= first_step:
                del self._by_step[step]
