import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pathwatch.server.phases.clock import MAX_BINS, Bins


@given(points=st.integers(0, 3000), width=st.integers(1, 5))
def test_bins_are_means_of_equal_stretches_in_bounded_memory(points, width):
    bins = Bins(width)
    for point in range(points):
        bins.add(point, np.array([float(point)]))
    assert len(bins) <= MAX_BINS
    if points >= width:
        size = int(bins.steps[0]) + 1
        assert size % width == 0
        assert (bins.steps == np.arange(1, len(bins) + 1) * size - 1).all()
        np.testing.assert_allclose(bins.means[:, 0], np.arange(len(bins)) * size + (size - 1) / 2)
        assert points - len(bins) * size < 2 * size, "at most the open bin is missing"


def test_add_says_when_a_bin_is_complete():
    bins = Bins(3)
    assert [bins.add(step, np.zeros(1)) for step in range(6)] == [False, False, True, False, False, True]


def test_entries_can_be_dropped_in_the_middle_of_a_bin():
    bins = Bins(2)
    for step in range(3):
        bins.add(step, np.array([1.0, 2.0, 3.0]) * step)
    bins.keep(np.array([0, 2]))
    assert bins.add(3, np.array([3.0, 9.0]))
    np.testing.assert_allclose(bins.means, [[0.5, 1.5], [2.5, 7.5]])
