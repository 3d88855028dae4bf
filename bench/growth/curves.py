"""Curves: what was measured while one quantity doubled, and the exponent it grows by."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from bench.figures import Figure, Unit

TOLERANCE = 1.15
"""What a curve of a linear algorithm may look like: caches fill, and the machine is not alone."""


def curve(
    name: str,
    values: Mapping[int, float],
    show: Callable[[float], str],
    *,
    aim: float = TOLERANCE,
) -> Figure:
    """The exponent of `values` by size, all positive: slope of the straight line through their logarithms."""
    sizes = np.log(list(values))
    slope, _ = np.polyfit(sizes, np.log(list(values.values())), 1)
    return Figure(
        name=f"growth.{name}",
        value=float(slope),
        unit=Unit.EXPONENT,
        higher_is_better=False,
        aim=aim,
        detail=", ".join(f"{size:,}: {show(value)}" for size, value in values.items()),
    )


def doubling(first: int, last: int, *, quick: bool) -> Sequence[int]:
    """Powers of two times `first`, up to `last`; every other one where time is short."""
    sizes = [first << i for i in range(64) if first << i <= last]
    return sizes[::2] if quick else sizes


def milliseconds(seconds: float) -> str:
    """To three digits."""
    return f"{1000 * seconds:.3g} ms"


def megabytes(count: float) -> str:
    """To three digits."""
    return f"{count / 1e6:.3g} MB"
