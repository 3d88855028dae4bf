"""Which router geometry holds at a step."""

from __future__ import annotations

from dataclasses import dataclass

from pathwatch.server.metrics.window import Geometry


@dataclass(frozen=True, slots=True)
class _Entry:
    geometry: Geometry
    serialized: bytes


def geometry_bytes(geometry: Geometry) -> int:
    """Bytes that a geometry takes."""
    return geometry.gram_self_LKK.nbytes + geometry.gram_next_LKK.nbytes


class Geometries:
    """The geometries of a run that some round may still need, by attempt and first step they hold at.

    They hold within their attempt: which older ones are still there after a rewind would depend on how far
    judging had come.
    """

    def __init__(self) -> None:
        self._entries: dict[tuple[int, int], _Entry] = {}

    @property
    def nbytes(self) -> int:
        """Bytes they take."""
        return sum(geometry_bytes(entry.geometry) for entry in self._entries.values())

    def add(self, attempt: int, step: int, geometry: Geometry, serialized: bytes) -> bool:
        """Take in a geometry that holds from `step` on; False where another one stands.

        Of two for one step that read last stands, of two read at one step the smaller by bytes: whichever
        came first.
        """
        key, entry = (attempt, step), _Entry(geometry, serialized)
        if (other := self._entries.get(key)) and _precedence(other) <= _precedence(entry):
            return False
        self._entries[key] = entry
        return True

    def at(self, attempt: int, step: int) -> Geometry | None:
        """The newest geometry of an attempt that holds at `step`."""
        key = self._holding(attempt, step)
        return None if key is None else self._entries[key].geometry

    def forget_before(self, attempt: int, step: int) -> None:
        """Drop what no round after that at `step` of `attempt` needs."""
        current = self._holding(attempt, step) or (attempt, -1)
        for key in [key for key in self._entries if key < current]:
            del self._entries[key]

    def rewind(self, attempt: int, first_step: int) -> None:
        """Drop what older attempts read from `first_step` on."""
        for key in [key for key in self._entries if key[0] < attempt and key[1] >= first_step]:
            del self._entries[key]

    def _holding(self, attempt: int, step: int) -> tuple[int, int] | None:
        return max((key for key in self._entries if key[0] == attempt and key[1] <= step), default=None)


def _precedence(entry: _Entry) -> tuple[int, bytes]:
    return -entry.geometry.step, entry.serialized
