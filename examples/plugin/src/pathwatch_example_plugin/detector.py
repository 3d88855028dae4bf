"""A detector as small as one can be: it knows only whether the training loss is low."""

from collections.abc import Mapping, Sequence

import numpy as np

from pathwatch.server.metrics.window import WindowArrays
from pathwatch.server.phases.verdict import Checkpoint, Evidence, GroupVerdict, Phase, RankedCheckpoint

MEMORIZED_LOSS = 0.5


class LossThresholdDetector:
    """MEMORIZED while a group's mean loss is under 0.5 nats, else LEARNING; checkpoints newest first."""

    def __init__(self) -> None:
        self._verdicts: dict[str, GroupVerdict] = {}

    def measure(self, window: WindowArrays) -> Evidence:
        return {"loss": np.asarray(np.nanmean(window.losses_N))}

    def update(self, step: int, round_: Mapping[str, Evidence]) -> Mapping[str, GroupVerdict]:
        for group, evidence in round_.items():
            loss = float(evidence["loss"])
            phase = Phase.MEMORIZED if loss < MEMORIZED_LOSS else Phase.LEARNING
            before = self._verdicts.get(group)
            self._verdicts[group] = GroupVerdict(
                phase=phase,
                since_step=before.since_step if before and before.phase is phase else step,
                reason=f"training loss {loss:.3f}, limit {MEMORIZED_LOSS}",
                numbers={"train_loss": loss},
            )
        return dict(self._verdicts)

    def rank(self, checkpoints: Sequence[Checkpoint], group: str | None) -> Sequence[RankedCheckpoint]:
        newest_first = sorted(checkpoints, key=lambda c: -c.step)
        return [RankedCheckpoint(checkpoint=c, score=-c.step, reason="newest first") for c in newest_first]
