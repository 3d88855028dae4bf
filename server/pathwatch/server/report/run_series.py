"""A run's history, as the service told it, as series that scores can be held against."""

from __future__ import annotations

from pathwatch.server.analysis.series import GroupSeries
from pathwatch.server.report.data import RunHistory

_SINCE_MEMORIZED = ("MEMORIZED", "GENERALIZING", "GENERALIZED", "REGRESSING")
"""Phases that a group reaches by being memorized; OVERFITTING and UNKNOWN come to others too."""


def run_series(history: RunHistory) -> tuple[GroupSeries, ...]:
    """The published metrics of each group, memorized since the service first said so."""
    return tuple(
        GroupSeries(
            group=group.group,
            steps_T=group.steps_T,
            metrics=group.metrics,
            memorized_step=group.first(*_SINCE_MEMORIZED),
        )
        for group in history.groups
    )
