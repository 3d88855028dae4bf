"""Values as JSON can say them."""

from __future__ import annotations

import datetime
import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pathwatch.server.statuspage.values import number, numbers, time_text, to_json

documents = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(documents)
def test_json_is_what_the_standard_library_reads(document: Any) -> None:
    text = to_json(document)
    assert json.loads(text) == document
    assert b" " not in text or " " in repr(document)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, np.float64("nan")])
def test_what_is_no_number(value: float) -> None:
    assert number(value) is None
    assert numbers({"b": 1.0, "a": value}) == {"a": None, "b": 1.0}
    assert to_json([value]) == b"[null]"
    assert to_json({"a": [[1.0, value], []]}) == b'{"a":[[1.0,null],[]]}'


def test_numbers_of_numpy_are_numbers_and_nothing_else_is() -> None:
    assert to_json({"a": np.float64(0.1), "b": [np.float32(0.5)]}) == b'{"a":0.1,"b":[0.5]}'
    with pytest.raises(TypeError):
        to_json({"a": object()})


@given(st.integers(0, 4_000_000_000_000))
def test_times(milliseconds: int) -> None:
    moment = datetime.datetime.fromisoformat(time_text(milliseconds / 1000))
    assert abs(moment.timestamp() - milliseconds / 1000) <= 0.0011
    assert moment.utcoffset() == datetime.timedelta(0)
    assert len(time_text(milliseconds / 1000)) == 24
