"""The windows of a round that has closed, put together when they are asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from pathwatch.server.metrics.window import WindowArrays
from pathwatch.server.sketch.window_sketch import WindowSketch


class ClosedWindows(Mapping[str, WindowArrays]):
    """By group. For any thread: nothing changes their sketches any more.

    Each is made anew whenever it is asked for: who needs it computes with it and lets go of it, and who
    closes the rounds of all runs waits for no copy.
    """

    def __init__(
        self, sketches: Mapping[str, WindowSketch], *, first_step: int, step: int, ranks_missing: bool
    ) -> None:
        """`sketches` hold a sample that came whole each."""
        self._sketches = sketches
        self._first_step = first_step
        self._step = step
        self._ranks_missing = ranks_missing

    @property
    def nbytes(self) -> int:
        """Bytes of what they are made of."""
        return sum(sketch.nbytes for sketch in self._sketches.values())

    def __getitem__(self, group: str) -> WindowArrays:
        window = self._sketches[group].arrays(
            group=group, first_step=self._first_step, step=self._step, ranks_missing=self._ranks_missing
        )
        assert window is not None  # noqa: S101  # the sketch holds a sample that came whole
        return window

    def __iter__(self) -> Iterator[str]:
        return iter(self._sketches)

    def __len__(self) -> int:
        return len(self._sketches)
