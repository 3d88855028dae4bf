"""The open windows of one run: takes observations and watermarks, gives closed rounds in step order."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pathwatch.server.metrics.window import WindowArrays
from pathwatch.server.sketch.admission import Admission, admission
from pathwatch.server.sketch.closed_windows import ClosedWindows
from pathwatch.server.sketch.errors import SketchError
from pathwatch.server.sketch.hashing import sample_hash
from pathwatch.server.sketch.observations import ObservationBlock
from pathwatch.server.sketch.settings import SketchSettings, check_fit
from pathwatch.server.sketch.watermarks import RankWatermarks
from pathwatch.server.sketch.window_sketch import WindowSketch

__all__ = ["AddResult", "Round", "RunSketch", "SketchError", "SketchSettings"]


@dataclass(frozen=True, slots=True)
class AddResult:
    """What became of the observations of a block; the three add up to its size."""

    accepted: int
    """Among the bottom-k, duplicates included."""
    late: int
    """Their window had closed."""
    beyond: int
    """Not among the bottom-k."""


@dataclass(frozen=True, slots=True)
class Round:
    """The windows of all groups that end at the same step."""

    attempt: int
    first_step: int
    step: int
    """Last step covered."""
    windows: Mapping[str, WindowArrays]
    """By group, sorted; a group of which no sample came complete is missing."""
    partial: bool
    """True when ranks or fragments were missing."""
    missing_ranks: tuple[int, ...]
    """Ranks that had not passed the end of the windows, ascending."""
    states: Mapping[str, object] = field(default_factory=dict, compare=False)
    """`WindowSketch.state` of each group when it closed."""

    @property
    def nbytes(self) -> int:
        """Bytes of its arrays, or of what they are made of."""
        if isinstance(self.windows, ClosedWindows):
            return self.windows.nbytes
        return sum(window.nbytes for window in self.windows.values())


@dataclass(slots=True)
class _OpenWindow:
    first_step: int
    step: int
    passed_at: float | None = None
    """When it first held observations and a rank had passed its end; the grace time counts from here."""
    groups: dict[str, WindowSketch] = field(default_factory=dict)


class RunSketch:
    """Open windows of a run. The caller brings the time (any steady clock, seconds) and serializes the calls.

    After a restart of the service, pass the attempt and the step of the newest closed round, set the newest
    step observed, join the ranks, repeat their watermarks and add the stored blocks again: the state is the
    same.
    """

    def __init__(self, settings: SketchSettings, *, attempt: int = 0, closed_step: int = -1) -> None:
        self.closed_step = closed_step
        """Step of the newest closed round, −1 before the first; after a rewind at most the step before it."""
        self.newest_step = -1
        """Newest step observed, −1 before the first; also one of which no sample was kept."""
        self._settings = settings
        self._attempt = attempt
        self._ranks = RankWatermarks()
        self._open: dict[int, _OpenWindow] = {}  # by last step
        self._closed_any = False
        self._closed_limits: dict[str, int | None] = {}
        self.nbytes = 0
        """Bytes that the open windows take."""

    def join(self, rank: int, world_size: int) -> None:
        """A rank has introduced itself. Raises SketchError where rank and world size do not fit."""
        self._ranks.join(rank, world_size)

    def window_of(self, step: int) -> tuple[int, int]:
        """First and last step of the window that holds `step`."""
        return self._settings.window_of(step)

    def check(self, block: ObservationBlock) -> None:
        """Raise SketchError where `add` would, but store nothing."""
        self._check_fit(block)
        end = self._settings.window_of(block.step)[1]
        sketch = self._open[end].groups.get(block.group) if end in self._open else None
        hashes_N = sample_hash(self._settings.run, block.group, block.sample_ids_N)
        (sketch or self._new_window()).check(block, hashes_N)

    def add(self, block: ObservationBlock, now: float) -> AddResult:
        """Take in a block. Raises SketchError, then nothing of it is stored."""
        self._check_fit(block)
        n = block.observations
        first_step, step = self._settings.window_of(block.step)
        if step <= self.closed_step:
            return AddResult(accepted=0, late=n, beyond=0)
        if n == 0:
            return AddResult(accepted=0, late=0, beyond=0)
        window = self._open.get(step) or _OpenWindow(first_step, step)
        known = window.groups.get(block.group)
        _check_left_out(block, known)
        sketch = known or self._new_window()
        before = known.nbytes if known else 0
        accepted = (
            sketch.add(block, sample_hash(self._settings.run, block.group, block.sample_ids_N))
            if len(block.sample_ids_N)
            else 0
        )
        self.nbytes += sketch.nbytes - before
        window.groups[block.group] = sketch
        self.newest_step = max(self.newest_step, block.step)
        self._open[step] = window
        self._note_passing(window, now)
        return AddResult(accepted=accepted, late=0, beyond=n - accepted)

    def admission(self, group: str, step: int, sample_ids_N: NDArray[np.int64]) -> Admission | None:
        """Which observations `add` would not count among those beyond the bottom-k; None = maybe all.

        May be called from any thread: what it says stays true for this RunSketch whatever is added meanwhile.
        """
        window = self._open.get(self._settings.window_of(step)[1])
        sketch = window.groups.get(group) if window else None
        limit = sketch.hash_limit if sketch else None
        return admission(self._settings.run, group, sample_ids_N, limit)

    @property
    def next_step(self) -> int | None:
        """Last step of the window that closes next; None = none is open."""
        return min(self._open, default=None)

    def next_states(self) -> Mapping[str, tuple[object, int]]:
        """`WindowSketch.state` and samples kept of each group of the window that closes next."""
        groups = self._open[min(self._open)].groups if self._open else {}
        return {group: (sketch.state, sketch.size) for group, sketch in groups.items()}

    def peek(self, group: str) -> WindowArrays | None:
        """A group of the window that closes next, as if it closed now and no rank were missing."""
        window = self._open[min(self._open)]
        return window.groups[group].arrays(
            group=group, first_step=window.first_step, step=window.step, ranks_missing=False
        )

    @property
    def open_windows(self) -> int:
        """Windows that hold observations and are not closed; those of all groups of a step count once."""
        return len(self._open)

    def opens_window(self, step: int) -> bool:
        """Whether an observation of this step would open one more."""
        end = self._settings.window_of(step)[1]
        return end > self.closed_step and end not in self._open

    def growth(self, block: ObservationBlock) -> int:
        """At most how many bytes more the open windows take once `block` is added."""
        end = self._settings.window_of(block.step)[1]
        if end <= self.closed_step:
            return 0
        sketch = self._open[end].groups.get(block.group) if end in self._open else None
        return self._new_window().nbytes_with(block) if sketch is None else sketch.growth(block)

    def watermark(self, rank: int, step: int, now: float) -> None:
        """A rank has sent everything up to `step`. Raises SketchError for a rank that has not joined."""
        self._ranks.advance(rank, step)
        for window in self._open.values():
            self._note_passing(window, now)

    def close_ready(self, now: float) -> list[Round]:
        """Rounds that are complete, or whose grace time is over, in step order; each is given once."""
        rounds = []
        for step in sorted(self._open):
            window = self._open[step]
            overdue = window.passed_at is not None and now >= window.passed_at + self._settings.grace_seconds
            if not (self._ranks.all_passed(step) or overdue):
                break
            rounds.append(self._close(window, missing_ranks=self._ranks.behind(step)))
        return rounds

    def close_all(self, now: float) -> list[Round]:
        """All open rounds, in step order: the run is over.

        A window that reaches beyond the end of the run is complete when all ranks have passed the
        last step that any of them is known to have reached.
        """
        rounds = self.close_ready(now)
        end = max(self._ranks.newest, self.newest_step)
        for step in sorted(self._open):
            rounds.append(self._close(self._open[step], missing_ranks=self._ranks.behind(min(step, end))))
        return rounds

    def next_deadline(self) -> float | None:
        """Time at which close_ready has more if no watermark comes; None = it will not."""
        if not self._open:
            return None
        passed_at = self._open[min(self._open)].passed_at
        return None if passed_at is None else passed_at + self._settings.grace_seconds

    def reopen(self, first_step: int) -> None:
        """The attempt turns out to begin at `first_step`: windows that end there or later take data again.

        Raises ValueError if the attempt has closed one of them.
        """
        if self._closed_any and first_step <= self.closed_step:
            raise ValueError(f"step {self.closed_step} is closed; the attempt cannot begin at {first_step}")
        self.closed_step = min(self.closed_step, first_step - 1)

    def advice(self, group: str) -> tuple[int, int] | None:
        """(last step, hash limit) of the group's newest open window; None = send all.

        In that window samples with a hash at or above the limit change nothing.
        """
        steps = [step for step, window in self._open.items() if group in window.groups]
        limit = self._open[max(steps)].groups[group].hash_limit if steps else None
        return None if limit is None else (max(steps), limit)

    def kept(self, step: int) -> dict[str, tuple[int, int | None]]:
        """Samples kept and hash limit, by group, of the open window that ends at `step`."""
        groups = self._open[step].groups if step in self._open else {}
        return {group: (sketch.size, sketch.hash_limit) for group, sketch in groups.items()}

    def ranks_behind(self, step: int) -> tuple[int, ...]:
        """Ranks, ascending, that may still send observations of steps up to `step`."""
        return self._ranks.behind(step)

    def take_closed_limits(self) -> dict[str, int | None]:
        """Hash limit of each group's newest window that has closed since the last time."""
        limits, self._closed_limits = self._closed_limits, {}
        return limits

    def _check_fit(self, block: ObservationBlock) -> None:
        if block.attempt != self._attempt:
            raise SketchError("hello.attempt", f"attempt {block.attempt} is not current, {self._attempt} is")
        check_fit(block, self._settings)

    def _new_window(self) -> WindowSketch:
        settings = self._settings
        return WindowSketch(layers=settings.layers, experts=settings.experts, capacity=settings.capacity)

    def _note_passing(self, window: _OpenWindow, now: float) -> None:
        if window.passed_at is None and self._ranks.newest >= window.step:
            window.passed_at = now

    def _close(self, window: _OpenWindow, *, missing_ranks: tuple[int, ...]) -> Round:
        del self._open[window.step]
        self.nbytes -= sum(sketch.nbytes for sketch in window.groups.values())
        self.closed_step = window.step
        self._closed_any = True
        self._closed_limits |= {group: sketch.hash_limit for group, sketch in window.groups.items()}
        known = {group: window.groups[group].completeness() for group in sorted(window.groups)}
        windows = ClosedWindows(
            {group: window.groups[group] for group, (samples, _) in known.items() if samples},
            first_step=window.first_step,
            step=window.step,
            ranks_missing=bool(missing_ranks),
        )
        return Round(
            attempt=self._attempt,
            first_step=window.first_step,
            step=window.step,
            windows=windows,
            partial=bool(missing_ranks) or not all(samples and whole for samples, whole in known.values()),
            missing_ranks=missing_ranks,
            states={group: sketch.state for group, sketch in window.groups.items()},
        )


def _check_left_out(block: ObservationBlock, sketch: WindowSketch | None) -> None:
    """Raise ValueError where a block lacks observations that the window, as it is, might want."""
    if block.admission is None:
        return
    limit = sketch.hash_limit if sketch else None
    if limit is None or limit > block.admission.hash_limit:
        raise ValueError(
            f"observations of group {block.group!r} at step {block.step} were left out by the hash limit of "
            "another window"
        )
