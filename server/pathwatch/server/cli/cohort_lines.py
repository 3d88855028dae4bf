"""The JSON lines of `pathwatch cohorts` (docs/cohorts.md)."""

from __future__ import annotations

from collections.abc import Iterator

from pathwatch.server.analysis.cohort_study import GroupStudy
from pathwatch.server.cli.records import plain


def cohort_lines(run: str, study: GroupStudy) -> Iterator[dict[str, object]]:
    """One line per kind of result of one group; of the metrics one per series."""

    def line(kind: str, **content: object) -> dict[str, object]:
        head = {"type": kind, "run": run, "group": study.group}
        return head | {name: plain(value) for name, value in content.items()}

    cohorts, counts = study.cohorts, study.counts
    yield line(
        "cohorts",
        epsilon=cohorts.epsilon,
        delta=cohorts.delta,
        samples=len(cohorts.memorized_steps_N),
        memorized_samples=cohorts.memorized_samples,
        memorized_steps=cohorts.memorized_steps_N,
        cohorts=cohorts.cohorts,
    )
    yield line("memorized", steps=counts.steps_T, new=counts.new_T, cumulative=counts.cumulative_T)
    for series in study.series:
        yield line(
            "metrics",
            cohort=series.cohort,
            steps=series.steps_S,
            samples=series.samples_S,
            metrics=series.metrics,
            layer_path_distance=series.layer_path_distance_SL,
        )
    yield line("trends", trends=study.trends)
    yield line("thresholds", agreements=study.thresholds)
    yield line("limits", steps=study.limit_steps_P, limits=study.limits)
    yield line("entropy", agreements=study.entropy)
