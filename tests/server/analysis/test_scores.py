"""Scores meet metrics at their own steps, and each group its own scores."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pathwatch.server.analysis.scores import ScoreSeries, ScoresError, targets, values_at
from pathwatch.server.analysis.series import GroupSeries

SCORES = ScoreSeries(steps_S=np.arange(0, 50, 10), scores_S=np.linspace(0, 1, 5))


def series(group: str) -> GroupSeries:
    return GroupSeries(group=group, steps_T=np.arange(0, 50, 10), metrics={}, memorized_step=None)


@given(
    st.lists(st.integers(0, 100), min_size=1, max_size=12, unique=True).map(sorted),
    st.lists(st.integers(-5, 110), min_size=1, max_size=20),
    st.data(),
)
def test_values_are_exact_or_between_the_neighbours_and_never_beyond(
    steps: list[int], wanted: list[int], data: st.DataObject
) -> None:
    values = data.draw(
        st.lists(
            st.one_of(st.floats(-1e3, 1e3), st.just(float("nan"))), min_size=len(steps), max_size=len(steps)
        )
    )
    found = values_at(np.array(steps), np.array(values), np.array(wanted))
    known = dict(zip(steps, values, strict=True))
    for step, value in zip(wanted, found, strict=True):
        if step in known:
            np.testing.assert_equal(value, known[step])
        elif step < steps[0] or step > steps[-1]:
            assert np.isnan(value)
        else:
            before = max(one for one in steps if one < step)
            after = min(one for one in steps if one > step)
            share = (step - before) / (after - before)
            expected = known[before] * (1 - share) + known[after] * share
            np.testing.assert_allclose(value, expected, atol=1e-9)


def test_each_group_takes_its_own_scores() -> None:
    other = ScoreSeries(steps_S=SCORES.steps_S, scores_S=-SCORES.scores_S)
    found, remarks = targets([series("math"), series("code")], {("math", ""): SCORES, ("code", ""): other})
    assert [(one.series.group, one.scores is other) for one in found] == [("math", False), ("code", True)]
    assert remarks == ()


def test_scores_of_no_group_count_for_all_and_several_tests_for_each() -> None:
    found, _ = targets([series("math"), series("code")], {("", "gsm8k"): SCORES, ("", "mbpp"): SCORES})
    assert [(one.series.group, one.test) for one in found] == [
        ("math", "gsm8k"),
        ("math", "mbpp"),
        ("code", "gsm8k"),
        ("code", "mbpp"),
    ]


def test_what_finds_no_partner_is_said() -> None:
    found, remarks = targets([series("math"), series("code")], {("math", ""): SCORES, ("maths", ""): SCORES})
    assert [one.series.group for one in found] == ["math"]
    assert any("group code" in remark for remark in remarks)
    assert any("maths" in remark for remark in remarks)


def test_without_any_partner_it_is_an_error_that_names_the_groups() -> None:
    with pytest.raises(ScoresError, match="math, code"):
        targets([series("math"), series("code")], {("bible", ""): SCORES})


@pytest.mark.parametrize("column", ["test", "group"])
def test_paired_groups_take_the_scores_of_their_test(column: str) -> None:
    """Whether the scores name the tests in a column `test` or, having none, in `group`."""
    other = ScoreSeries(steps_S=SCORES.steps_S, scores_S=-SCORES.scores_S)
    by_test = {"mbpp": SCORES, "gsm8k": other, "siqa": SCORES}
    scores = {(("", test) if column == "test" else (test, "")): one for test, one in by_test.items()}
    found, remarks = targets([series("math"), series("code")], scores, {"math": "gsm8k", "code": "mbpp"})
    assert [(one.series.group, one.test, one.scores is other) for one in found] == [
        ("math", "gsm8k", True),
        ("code", "mbpp", False),
    ]
    if column == "group":
        assert remarks == ("No group of the run is paired with siqa: these scores are left out.",)


def test_a_group_without_a_test_is_left_out() -> None:
    found, remarks = targets([series("math"), series("code")], {("", "mbpp"): SCORES}, {"code": "mbpp"})
    assert [one.series.group for one in found] == ["code"]
    assert remarks == ("No scores for group math (paired with: no test): it is left out.",)
