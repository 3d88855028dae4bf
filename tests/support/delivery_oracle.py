"""What a run must come to, from what was delivered to the server and when: the definitions in plain Python.

Windows are lists of pieces; they close by the rule of docs/operations.md and are judged in order at the end,
by the metrics and a judge of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from sample_pieces import Piece, window

from pathwatch.server.engine.judge import Judge, Judgement, sample_losses
from pathwatch.server.metrics.summary import MetricSettings, group_metrics
from pathwatch.server.metrics.window import Geometry, WindowArrays
from pathwatch.server.phases.verdict import Checkpoint, Phase
from pathwatch.v1 import run_pb2, signal_pb2

Fate = Literal["taken", "late", "refused"]


@dataclass
class Open:
    """A window that takes data."""

    steps: tuple[int, int]
    pieces: list[Piece] = field(default_factory=list)
    passed_at: float | None = None


@dataclass(frozen=True)
class Closed:
    """A window that was closed."""

    attempt: int
    steps: tuple[int, int]
    pieces: Sequence[Piece]
    missing: tuple[int, ...]


@dataclass(frozen=True)
class HeldFrom:
    """A geometry of an attempt, and the first step whose window it counts for."""

    attempt: int
    step: int
    serialized: bytes
    geometry: Geometry


class Oracle:
    """Told of every message that the server has taken for good, in the order it did."""

    def __init__(self, run: str, config: run_pb2.RunConfig) -> None:
        """`config` with everything filled in."""
        self._run = run
        self._config = config
        self._now = 0.0
        self.attempt = 0
        self._world_size = 0
        self._watermarks: dict[int, int] = {}
        self._first_step: int | None = None
        self._closed_step: int | None = None
        """Of this attempt."""
        self._open: dict[int, Open] = {}
        self._closed: list[Closed] = []
        self._geometries: list[HeldFrom] = []
        self._checkpoints: dict[tuple[int, int], Checkpoint] = {}

    # What happens.

    def hello(self, rank: int, world_size: int, attempt: int) -> None:
        if attempt > self.attempt:
            self.attempt = attempt
            self._watermarks, self._open = {}, {}
            self._first_step = self._closed_step = None
        self._world_size = world_size
        self._watermarks.setdefault(rank, -1)
        self._close_ready()

    def observe(self, rank: int, pieces: Sequence[Piece]) -> Fate:
        step = pieces[0].key[1]
        if step <= self._watermarks[rank]:
            return "refused"
        if self._first_step is None or (self._closed_step is None and step < self._first_step):
            self._begin_at(step)
        steps = self._steps(step)
        if self._closed_step is not None and steps[1] <= self._closed_step:
            return "late"
        self._open.setdefault(steps[1], Open(steps)).pieces.extend(pieces)
        self._close_ready()
        return "taken"

    def watermark(self, rank: int, step: int) -> Fate:
        if step < self._watermarks[rank]:
            return "refused"
        self._watermarks[rank] = step
        self._close_ready()
        return "taken"

    def geometry(self, rank: int, geometry: Geometry, serialized: bytes) -> Fate:
        if geometry.step <= self._watermarks[rank]:
            return "refused"
        late = self._closed_step is not None and geometry.step <= self._closed_step
        step = (self._closed_step or 0) + 1 if late else geometry.step
        self._geometries.append(HeldFrom(self.attempt, step, serialized, geometry))
        return "late" if late else "taken"

    def checkpoint(self, checkpoint: Checkpoint) -> Fate:
        if checkpoint.attempt > self.attempt or self._superseded(checkpoint.attempt, checkpoint.step):
            return "refused"
        self._checkpoints[checkpoint.attempt, checkpoint.step] = checkpoint
        return "taken"

    def pass_time(self, seconds: float) -> None:
        self._now += seconds
        self._close_ready()

    def crash(self) -> None:
        """The grace time of open windows starts again."""
        for one in self._open.values():
            one.passed_at = None
        self._close_ready()

    def finish(self) -> None:
        """Windows that reach beyond the end are complete where all ranks have come to the end."""
        reached = [piece.key[1] for one in self._open.values() for piece in one.pieces]
        end = max([*self._watermarks.values(), *reached], default=-1)
        for last in sorted(self._open):
            self._close(last, self._behind(min(last, end)))

    # What follows from it.

    def _steps(self, step: int) -> tuple[int, int]:
        if self._config.mode == run_pb2.OBSERVATION_MODE_PROBE:
            return step, step
        size = self._config.window_steps
        return step // size * size, step // size * size + size - 1

    def _behind(self, step: int) -> tuple[int, ...]:
        return tuple(rank for rank in range(self._world_size) if self._watermarks.get(rank, -1) < step)

    def _superseded(self, attempt: int, step: int) -> bool:
        return attempt < self.attempt and self._first_step is not None and step >= self._first_step

    def _begin_at(self, step: int) -> None:
        self._first_step = step
        self._closed = [one for one in self._closed if not self._superseded(one.attempt, one.steps[1])]
        self._checkpoints = {key: one for key, one in self._checkpoints.items() if not self._superseded(*key)}

    def _close_ready(self) -> None:
        for last in sorted(self._open):
            one = self._open[last]
            if one.passed_at is None and max(self._watermarks.values()) >= last:
                one.passed_at = self._now
        for last in sorted(self._open):
            passed_at = self._open[last].passed_at
            overdue = passed_at is not None and self._now >= passed_at + self._config.grace_seconds
            if self._behind(last) and not overdue:
                return
            self._close(last, self._behind(last))

    def _close(self, last: int, missing: tuple[int, ...]) -> None:
        one = self._open.pop(last)
        self._closed.append(Closed(self.attempt, one.steps, one.pieces, missing))
        self._closed_step = last

    # What must be said.

    @property
    def rounds(self) -> list[Closed]:
        """Closed and not superseded, in order."""
        return sorted(self._closed, key=lambda one: one.steps)

    def judged(self) -> tuple[list[tuple[Any, ...]], list[Judgement], Judge]:
        """Windows as `said` gives them, the judgement after each round, and the judge at the end."""
        judge = Judge(self._config)
        windows: list[tuple[Any, ...]] = []
        judgements = []
        settings = MetricSettings(thresholds=tuple(self._config.thresholds), ridge=self._config.ridge)
        for one in self.rounds:
            arrays = self._arrays(one)
            metrics = group_metrics(arrays, self._geometry_of(one), settings)
            step, checkpoints = one.steps[1], self.checkpoints
            if one.missing or not arrays:
                ranks = ", ".join(map(str, one.missing))
                reason = f"Data of rank {ranks} is missing at step {step}."
                if not one.missing:
                    reason = f"No sample came whole at step {step}."
                judgement = judge.pass_over(step, arrays, reason, checkpoints)
                if not arrays:
                    windows += [
                        (one.attempt, *one.steps, group, True, False, Phase.UNKNOWN, {"window_samples": 0.0})
                        for group in judgement.verdicts
                    ]
            else:
                losses = {group: sample_losses(values) for group, values in arrays.items()}
                measured = {group: judge.measure(window) for group, window in arrays.items()}
                judgement = judge.take(step, measured, losses, checkpoints)
            judgements.append(judgement)
            for group, values in arrays.items():
                ratio = judgement.memorized_ratio.get(group)
                own = dict(metrics[group].values)
                windows.append(
                    (
                        one.attempt,
                        *one.steps,
                        group,
                        values.partial,
                        not one.missing,
                        judgement.verdicts[group].phase,
                        own if ratio is None else own | {"memorized_ratio": ratio},
                    )
                )
        return windows, judgements, judge

    def _arrays(self, one: Closed) -> dict[str, WindowArrays]:
        found = {}
        for group in sorted({piece.key[0] for piece in one.pieces}):
            arrays, _ = window(self._run, group, one.steps, one.pieces, ranks_missing=bool(one.missing))
            if arrays is not None:
                found[group] = arrays
        return found

    def _geometry_of(self, one: Closed) -> Geometry | None:
        held = [
            item for item in self._geometries if item.attempt == one.attempt and item.step <= one.steps[1]
        ]
        if not held:
            return None
        newest = max((item.step, item.geometry.step) for item in held)
        alike = [item for item in held if (item.step, item.geometry.step) == newest]
        return min(alike, key=lambda item: item.serialized).geometry

    @property
    def checkpoints(self) -> tuple[Checkpoint, ...]:
        """By step."""
        return tuple(self._checkpoints[key] for key in sorted(self._checkpoints, key=lambda key: key[::-1]))


def said(rows: Iterable[Any]) -> list[tuple[Any, ...]]:
    """Stored windows in the oracle's form."""
    return [
        (
            row.attempt,
            row.first_step,
            row.step,
            row.group,
            row.partial,
            row.judged,
            row.phase,
            dict(row.metrics),
        )
        for row in rows
    ]


def signal_said(signal: signal_pb2.Signal) -> tuple[Any, ...]:
    """A signal without its number, the time it was given, and what depends on when it was given."""
    groups = [
        (status.group, status.phase, status.since_step, status.reason, dict(status.evidence))
        for status in signal.groups
    ]
    return signal.step, signal.action, signal.reason, groups


def judgement_said(judgement: Judgement) -> tuple[Any, ...]:
    """A judgement as `signal_said` gives its signal."""
    groups = [
        (group, verdict.phase, verdict.since_step, verdict.reason, dict(verdict.numbers))
        for group, verdict in sorted(judgement.verdicts.items())
    ]
    return judgement.step, judgement.decision.action, judgement.decision.reason, groups
