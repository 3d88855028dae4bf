"""From the service's answer to series and spans."""

from __future__ import annotations

import numpy as np
import pytest

from pathwatch.server.report.data import NothingToReportError, RunHistory, run_history
from pathwatch.v1 import run_pb2, signal_pb2


def test_series_are_by_group_and_step(history: RunHistory) -> None:
    math, text = history.groups
    assert (math.group, text.group) == ("math", "text & more")
    np.testing.assert_array_equal(math.steps_T, np.arange(0, 1000, 50))
    np.testing.assert_allclose(math.metrics["target_affinity"], 0.8 - np.arange(0, 1000, 50) / 2000)
    assert text.metric("target_affinity") is None


def test_a_metric_undefined_in_some_windows_is_nan_there(response: signal_pb2.GetMetricsResponse) -> None:
    del response.windows[2].metrics["target_affinity"]
    affinity = run_history(run_pb2.Run(name="pair"), response).groups[0].metrics["target_affinity"]
    assert np.flatnonzero(np.isnan(affinity)).tolist() == [1]


def test_spans_tell_phases_in_order(history: RunHistory) -> None:
    spans = [(span.phase, span.first_step, span.last_step, span.reason) for span in history.groups[0].spans]
    assert spans == [
        ("LEARNING", 0, 50, "math since 0"),
        ("MEMORIZED", 100, 350, "math since 100"),
        ("GENERALIZING", 400, 750, "math since 400"),
        ("GENERALIZED", 800, 950, "math since 800"),
    ]
    assert history.groups[0].first("GENERALIZED", "GENERALIZING") == 400
    assert history.groups[1].first("GENERALIZED", "GENERALIZING") is None


def test_the_newest_signal_counts(history: RunHistory) -> None:
    assert (history.action, history.best_checkpoint_step) == ("STOP", 800)
    assert history.stop is not None
    assert (history.stop.step, history.stop.stop_at_step) == (900, 950)
    assert [group.best_checkpoint_step for group in history.groups] == [850, None]
    assert [(change.step, change.action) for change in history.changes] == [
        (0, "CONTINUE"),
        (400, "CHECKPOINT"),
        (900, "STOP"),
    ]


def test_requests_leave_out_what_asks_for_nothing(response: signal_pb2.GetMetricsResponse) -> None:
    response.signals.add(run="pair", step=950, action=signal_pb2.ACTION_CONTINUE, reason="waiting again")
    requests = run_history(run_pb2.Run(name="pair"), response).requests
    assert [(request.step, request.action) for request in requests] == [
        (400, "CHECKPOINT"),
        (900, "STOP"),
        (950, "CONTINUE"),
    ]


def test_a_run_without_windows_has_nothing_to_report() -> None:
    with pytest.raises(NothingToReportError, match="'new' has no judged window yet"):
        run_history(run_pb2.Run(name="new"), signal_pb2.GetMetricsResponse())
