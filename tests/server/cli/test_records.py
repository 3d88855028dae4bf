"""Results of an analysis become plain JSON."""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray

from pathwatch.server.cli.records import plain


@dataclass(frozen=True)
class Inner:
    share: float | None
    cohort_name: str


@dataclass(frozen=True)
class Outer:
    values_TG: NDArray[np.float64]
    inner_M: tuple[Inner, ...]
    by_name: dict[str, NDArray[np.int64]]
    K: int = 4


def test_shape_letters_go_and_undefined_values_become_null() -> None:
    outer = Outer(
        values_TG=np.array([[1.5, np.nan], [np.inf, 2.0]]),
        inner_M=(Inner(None, "t*=250"), Inner(float("nan"), "all")),
        by_name={"counts": np.arange(2)},
    )
    assert json.loads(json.dumps(plain(outer), allow_nan=False)) == {
        "values": [[1.5, None], [None, 2.0]],
        "inner": [{"share": None, "cohort_name": "t*=250"}, {"share": None, "cohort_name": "all"}],
        "by_name": {"counts": [0, 1]},
        "K": 4,
    }


def test_numbers_of_numpy_are_numbers() -> None:
    assert plain((np.int64(3), np.float32(0.5), np.bool_(True))) == [3, 0.5, True]


def test_what_has_no_json_form_is_refused() -> None:
    with pytest.raises(TypeError, match="object has no plain form"):
        plain([object()])
