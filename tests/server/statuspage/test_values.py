"""Values as JSON can say them."""

from __future__ import annotations

import datetime
import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pathwatch.server.statuspage.values import number, numbers, time_text, to_json

documents = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(documents)
def test_json_is_what_the_standard_library_reads(document: Any) -> None:
    text = to_json(document)
    assert json.loads(text) == document
    assert text == json.dumps(document, ensure_ascii=False, separators=(",", ":"))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_no_number(value: float) -> None:
    assert number(value) is None
    assert numbers({"b": 1.0, "a": value}) == {"a": None, "b": 1.0}
    for document in (value, [value], {"a": [[1.0, value]]}):
        with pytest.raises(ValueError, match="not JSON compliant"):
            to_json(document)


@given(st.integers(0, 4_000_000_000_000))
def test_times(milliseconds: int) -> None:
    moment = datetime.datetime.fromisoformat(time_text(milliseconds / 1000))
    assert abs(moment.timestamp() - milliseconds / 1000) <= 0.0011
    assert moment.utcoffset() == datetime.timedelta(0)
    assert len(time_text(milliseconds / 1000)) == 24
