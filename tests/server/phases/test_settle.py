import numpy as np
import pytest

from pathwatch.server.phases.drop import Row, measure_drop
from pathwatch.server.phases.settle import SETTLE_BINS, Onset, settled


def judged(size_at_onset, size, *, others=0.0, falling=0.0):
    """A group whose sharing fell by `size` at onset and has been flat since (or goes on falling per bin)."""
    bins = 3 * SETTLE_BINS
    noise = 0.02 * np.random.default_rng(0).normal(size=(bins, len(Row), 33))
    means = noise.copy()
    since = np.arange(bins) - SETTLE_BINS
    fallen = np.where(since >= 0, size + falling * np.maximum(since, 0), 0.0)
    means[:, [Row.SHARING, Row.DEPTH, Row.DIMENSION]] -= fallen[:, None, None]
    means[:, Row.LOSS] = 0.02
    reference = np.zeros((len(Row), 33))
    reference[Row.LOSS] = 0.02
    steps = 10 * np.arange(bins)
    onset = Onset(step=int(steps[SETTLE_BINS]), size=size_at_onset, reference=reference)
    return settled(steps, means, onset, measure_drop(means, reference), others)


@pytest.mark.parametrize(
    ("size_at_onset", "size", "expected"),
    [(0.2, 0.45, True), (0.2, 0.35, False), (0.5, 0.65, True), (0.5, 0.55, False), (0.8, 0.85, True)],
    ids=["doubled", "not doubled", "seen late", "seen late, too small", "seen after all of it"],
)
def test_the_drop_must_have_grown_since_onset_or_be_large(size_at_onset, size, expected):
    assert judged(size_at_onset, size) is expected


def test_a_drop_that_still_grows_has_not_settled():
    assert judged(0.2, 0.6)
    assert not judged(0.2, 0.6, falling=0.02)


def test_a_drop_small_beside_the_others_is_not_confirmed():
    assert judged(0.2, 0.6, others=0.9)
    assert not judged(0.2, 0.6, others=1.5)
