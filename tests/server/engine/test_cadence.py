"""When a run counts as silent."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pathwatch.server.engine.cadence import Cadence

GRACE = 60.0


def at(*times: float) -> Cadence:
    """Data of a new step at each of these times."""
    cadence = Cadence()
    for step, now in enumerate(times):
        cadence.saw(step, now)
    return cadence


@given(st.lists(st.floats(0, 1e6), max_size=30).map(sorted))
def test_never_before_the_grace_time(times: list[float]) -> None:
    assert at(*times).patience(GRACE) >= GRACE


def test_before_a_second_step_there_is_no_pace() -> None:
    assert at(0.0).patience(GRACE) == GRACE


def test_one_outage_does_not_make_it_patient_for_a_day() -> None:
    steady = [100.0 * i for i in range(8)]
    after_outage = [*steady, 86_400.0, 86_500.0]
    assert at(*after_outage).patience(GRACE) == 300.0


def test_a_pace_that_changes_is_followed() -> None:
    fast = [10.0 * i for i in range(20)]
    slow = [fast[-1] + 1000.0 * i for i in range(1, 12)]
    assert at(*fast, *slow).patience(GRACE) == 3000.0


@pytest.mark.parametrize("again", [0, 1])
def test_more_data_of_a_known_step_is_no_new_step(again: int) -> None:
    cadence = at(0.0, 1000.0)
    cadence.saw(again, 1001.0)
    assert cadence.patience(GRACE) == 3000.0
