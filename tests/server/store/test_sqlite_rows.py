"""Columns of text, as they were written."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pathwatch.server.store.interface import StoreError
from pathwatch.server.store.sqlite_rows import from_json


@given(st.dictionaries(st.text(), st.floats()))
def test_metrics_are_read_to_the_bit(metrics: dict[str, float]) -> None:
    read = from_json(json.dumps(metrics), "a window")
    assert list(read) == list(metrics)
    assert [value.hex() for value in read.values()] == [float(value).hex() for value in metrics.values()]


def test_what_is_no_number_is_read_too() -> None:
    a, b = from_json(json.dumps({"a": math.nan, "b": -math.inf}), "a window").values()
    assert math.isnan(a)
    assert b == -math.inf


def test_damage_is_named() -> None:
    with pytest.raises(
        StoreError, match=r"^a window is damaged \(.*\); with the server stopped, `pathwatch fsck`"
    ):
        from_json('{"a": 0.5', "a window")
