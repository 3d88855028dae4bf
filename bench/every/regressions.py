"""What has become slower or larger than it was when the figures were recorded."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from bench.figures import Figure, Unit

TOLERATED = 0.2
"""How much worse than recorded a figure may be."""
COMPARED = (Unit.RATIO, Unit.MEGABYTES)
"""Seconds depend on the machine, and exponents are told by their aims."""
ATTEMPTS = 3


def regressions(figures: Iterable[Figure], recorded: Sequence[Figure]) -> dict[str, float]:
    """By name, by which part figures are worse than recorded, where that is more than tolerated.

    A figure that was recorded and is not measured any more is infinitely worse.
    """
    now = {figure.name: figure for figure in figures}
    worse = {
        old.name: now[old.name].worse_than(old.value) if old.name in now else float("inf")
        for old in recorded
        if old.unit in COMPARED
    }
    return {name: part for name, part in worse.items() if part > TOLERATED}


def confirmed(
    measure: Callable[[], Sequence[Figure]], recorded: Sequence[Figure]
) -> tuple[list[Figure], dict[str, float]]:
    """The best of each figure over up to three measurements, and what is still worse than recorded.

    Noise makes a figure worse now and then; a regression is there every time.
    """
    best: dict[str, Figure] = {}
    found: dict[str, float] = {}
    for _ in range(ATTEMPTS):
        for figure in measure():
            before = best.get(figure.name)
            if before is None or figure.worse_than(before.value) < 0:
                best[figure.name] = figure
        found = regressions(best.values(), recorded)
        if not found:
            break
    return list(best.values()), found
