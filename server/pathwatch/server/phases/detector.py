"""The default detector: groups are judged by how far their routing draws together after memorization.

Method: docs/science.md. See `sharing` for routing, `guard` for unseen loss,
`memorized` for the start of the clock, `ranking` for checkpoints.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from pathwatch.server.metrics.window import WindowArrays
from pathwatch.server.phases import evidence
from pathwatch.server.phases.group import GroupTrack
from pathwatch.server.phases.ranking import combine, ranked
from pathwatch.server.phases.verdict import Checkpoint, Evidence, GroupVerdict, RankedCheckpoint


class PathwayDropDetector:
    """Implements `verdict.Detector`."""

    def __init__(self) -> None:
        self._groups: dict[str, GroupTrack] = {}
        self._step = -1

    def measure(self, window: WindowArrays) -> Evidence:
        """What to remember of a window. Pure; may run on any thread."""
        return evidence.measure(window)

    def update(self, step: int, round_: Mapping[str, Evidence]) -> Mapping[str, GroupVerdict]:
        """Take in a round; verdicts of all groups ever seen, those missing from the round unchanged.

        Raises ValueError when `step` does not rise.
        """
        if step <= self._step:
            raise ValueError(f"round at step {step} after one at step {self._step}: steps must rise")
        self._step = step
        for group in sorted(round_):
            self._groups.setdefault(group, GroupTrack()).take(step, evidence.read(round_[group]))
        drops = {group: track.drop for group, track in self._groups.items()}
        for group in sorted(round_):
            others = max((drop for other, drop in drops.items() if other != group), default=0.0)
            self._groups[group].conclude(step, others)
        return {group: track.verdict for group, track in self._groups.items() if track.verdict is not None}

    def rank(self, checkpoints: Sequence[Checkpoint], group: str | None) -> Sequence[RankedCheckpoint]:
        """Checkpoints up to the newest round, best first, for a group or (None) overall.

        Empty for a group never seen, and before the first round.
        """
        known = [checkpoint for checkpoint in checkpoints if checkpoint.step <= self._step]
        tracks = [track for name, track in self._groups.items() if group in (None, name)]
        if not known or not tracks:
            return []
        steps_C = np.array([checkpoint.step for checkpoint in known], dtype=np.int64)
        return ranked(known, combine([track.scores(steps_C) for track in tracks]))
