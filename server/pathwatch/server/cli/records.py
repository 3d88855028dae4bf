"""Results of an analysis as JSON: dataclasses, arrays and undefined values in plain terms."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass

import numpy as np

_SHAPE = re.compile(r"_[A-Z]+$")


def plain(value: object) -> object:
    """What `json.dumps` takes: a dataclass becomes an object without the shape letters of its fields
    (`steps_T` → `steps`), an array or sequence a list; NaN and infinity, which JSON does not have, None.
    Raises `TypeError` on anything else."""
    if is_dataclass(value) and not isinstance(value, type):
        return {_SHAPE.sub("", field.name): plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, Mapping):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, Sequence):
        return [plain(entry) for entry in value]
    raise TypeError(f"{type(value).__name__} has no plain form")
