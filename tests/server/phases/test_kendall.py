import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import kendalltau

from pathwatch.server.phases.kendall import kendall_trend


def agrees_with_scipy(values):
    trend = kendall_trend(np.array(values, np.float64))
    theirs = kendalltau(np.arange(len(values)), values)
    assert np.sign(trend.balance) == np.sign(theirs.statistic)
    assert trend.p_value == pytest.approx(theirs.pvalue, rel=1e-9)


@given(st.integers(2, 60).flatmap(lambda n: st.permutations(range(n))))
def test_of_different_values(order):
    agrees_with_scipy([float(value) for value in order])


@given(
    st.lists(st.sampled_from([-1.5, 0.0, 0.25, 3.0]), min_size=2, max_size=50).filter(
        lambda v: len(set(v)) > 1
    )
)
def test_of_values_some_of_which_are_equal(values):
    agrees_with_scipy(values)


def test_equal_values_have_no_trend():
    trend = kendall_trend(np.ones(12))
    assert (trend.balance, trend.p_value) == (0, 1.0)


def test_a_fall_without_exception_is_as_rare_as_one_order_of_all():
    trend = kendall_trend(np.array([4.0, 3.0, 2.0, 1.0]))
    assert trend.balance == -6
    assert trend.p_value == pytest.approx(2 / 24)


def test_orders_are_counted_out_once_for_each_length():
    """A signal judges many groups by windows of one length: the second is no work to speak of."""
    values, calls = np.random.default_rng(0).permutation(33), 0

    def count(_frame, event, _argument):
        nonlocal calls
        calls += event == "c_call"

    kendall_trend(values)
    sys.setprofile(count)
    try:
        kendall_trend(values[::-1])
    finally:
        sys.setprofile(None)
    assert calls < 100
