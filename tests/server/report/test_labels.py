"""Judging checkpoints by labels."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pathwatch.server.report.data import RunHistory
from pathwatch.server.report.labels import (
    LabelsError,
    compare,
    load_labels,
    loss_patience_step,
    moving_average,
)

LabelsFile = Callable[..., Path]


@given(
    st.lists(st.one_of(st.floats(-1e6, 1e6), st.just(float("nan"))), min_size=1, max_size=30),
    st.sampled_from([1, 3, 5, 7]),
)
def test_the_moving_average_is_the_mean_of_what_is_near(values: list[float], points: int) -> None:
    averages = moving_average(np.array(values), points)
    for index, average in enumerate(averages):
        near = [
            value
            for other, value in enumerate(values)
            if abs(other - index) <= points // 2 and not np.isnan(value)
        ]
        np.testing.assert_allclose(average, sum(near) / len(near) if near else np.nan, atol=1e-6)


def test_patience_stops_ten_points_after_the_best_average() -> None:
    steps = np.arange(0, 4000, 100)
    losses = np.concatenate([np.linspace(4, 1, 10), np.full(30, 1.5)])
    # The average over five points is smallest where it first holds 1.167 (the last of the fall): index 9 + 0.
    averages = [np.mean(losses[max(0, i - 4) : i + 1]) for i in range(len(losses))]
    assert loss_patience_step(steps, losses) == steps[int(np.argmin(averages)) + 10]


def test_patience_never_stops_while_the_loss_falls() -> None:
    steps = np.arange(0, 4000, 100)
    assert loss_patience_step(steps, np.linspace(4, 0, 40)) == 3900


def test_checkpoints_are_compared_by_smoothed_accuracy(history: RunHistory, labels_file: LabelsFile) -> None:
    accuracy = np.zeros((20, 1), np.float32)
    accuracy[5:15] = 0.5
    accuracy[8] = 1.0  # a lucky point
    comparison = compare(history.groups[0], load_labels(labels_file(test_acc=accuracy)))
    assert comparison is not None
    assert comparison.measure == "test accuracy"
    assert comparison.best.score == pytest.approx(0.6)  # (1 + 4 · 0.5) / 5
    assert 300 <= comparison.best.step <= 500
    assert comparison.chosen is not None
    assert (comparison.chosen.step, comparison.chosen.score) == (850, 0.0)
    assert (comparison.last.step, comparison.last.score) == (950, 0.0)


def test_of_validation_losses_the_smallest_is_best(history: RunHistory, labels_file: LabelsFile) -> None:
    losses = np.abs(np.arange(20) - 6)[:, None].astype(np.float32)
    labels = load_labels(labels_file(test_acc=None, val_loss=losses, groups=np.array(["text & more"])))
    comparison = compare(history.groups[1], labels)
    assert comparison is not None
    assert (comparison.best.step, comparison.best.score) == (300, 0.0)
    assert comparison.chosen is None
    assert compare(history.groups[0], labels) is None


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"test_acc": None}, "wanted `steps`, `groups` and `test_acc` or `val_loss`"),
        ({"steps": None}, "wanted `steps`, `groups`"),
        ({"test_acc": np.zeros((20, 3), np.float32)}, r"test_acc has shape \[20, 3\]; wanted \[20, 1\]"),
        ({"steps": np.zeros(20)}, "steps .T. integers"),
    ],
)
def test_wrong_labels_are_refused(labels_file: LabelsFile, changes: dict[str, Any], says: str) -> None:
    with pytest.raises(LabelsError, match=says):
        load_labels(labels_file(**changes))


def test_another_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "labels.npz"
    path.write_text("nothing")
    with pytest.raises(LabelsError, match=r"not a readable \.npz file"):
        load_labels(path)
    with pytest.raises(LabelsError, match="no such file"):
        load_labels(tmp_path / "nowhere.npz")
