"""Training loss, unseen loss and the gap between them."""

from __future__ import annotations

import math
import statistics

import numpy as np
import pytest

from pathwatch.server.metrics.loss import losses


def test_unseen_samples_are_kept_out_of_the_training_loss():
    found = losses(np.array([1.0, 2.0, 6.0, 8.0]), np.array([3, 1, 0, 0]))
    assert (found.train, found.unseen, found.gap) == (1.5, 7.0, 5.5)
    expected = math.sqrt(statistics.variance([6, 8]) / 2 + statistics.variance([1, 2]) / 2)
    assert found.gap_stderr == pytest.approx(expected)


def test_without_visits_only_the_training_loss_is_known():
    found = losses(np.array([1.0, 2.0]), None)
    assert (found.train, found.unseen, found.gap, found.gap_stderr) == (1.5, None, None, None)
    assert losses(np.array([1.0, 2.0]), np.array([-1, -1])) == found


def test_in_a_single_pass_training_loss_is_unseen_loss():
    found = losses(np.array([1.0, 2.0]), np.array([0, 0]))
    assert (found.train, found.unseen, found.gap) == (1.5, 1.5, None)


def test_a_sample_of_unknown_visits_trains_but_is_not_in_the_gap():
    found = losses(np.array([1.0, 5.0, 7.0]), np.array([1, -1, 0]))
    assert (found.train, found.unseen, found.gap, found.gap_stderr) == (3.0, 7.0, 6.0, None)


def test_samples_without_a_loss_are_left_out():
    found = losses(np.array([1.0, np.nan, np.nan, np.inf]), np.array([1, 1, 0, 0]))
    assert (found.train, found.unseen, found.gap) == (1.0, None, None)
    assert losses(np.array([np.nan]), None).train is None
