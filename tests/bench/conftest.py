"""Made-up runs with scores known in advance."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
# bench/ is no part of the distribution; its modules are found from the root of the repository.
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from bench.signal.measuring import METRICS, MeasuredRun  # noqa: E402


@pytest.fixture
def make_run() -> Callable[..., MeasuredRun]:
    """A run from its scores by group, [T] each; steps 10, 20, …; everything not given is flat."""

    def make(
        scores: Mapping[str, Sequence[float]],
        *,
        accuracy: bool = True,
        losses: Mapping[str, Sequence[float]] | None = None,
        metrics: Mapping[str, Sequence[float]] | None = None,
        name: str = "made-up",
    ) -> MeasuredRun:
        groups = tuple(scores)
        points = len(scores[groups[0]])
        flat_TG = np.ones((points, len(groups)))
        return MeasuredRun(
            name=name,
            accuracy=accuracy,
            groups=groups,
            steps_T=np.arange(1, points + 1) * 10,
            planned_steps=points * 10,
            rounds=[{group: {"point": np.array(point)} for group in groups} for point in range(points)],
            losses_TG=flat_TG
            if losses is None
            else np.array([losses[group] for group in groups], dtype=float).T,
            memorized_TG=flat_TG,
            metrics={
                metric: np.tile(
                    np.array((metrics or {}).get(metric, flat_TG[:, 0]), dtype=float)[:, None], len(groups)
                )
                for metric in METRICS
            },
            scores_TG=np.array([scores[group] for group in groups], dtype=float).T,
        )

    return make
