"""Scores that a user brings, and where the metrics of a run stood when they were taken."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pathwatch.server.analysis.series import GroupSeries


class ScoresError(ValueError):
    """The scores cannot be used for this run; the message is one line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreSeries:
    """One score over a run. S scored steps."""

    steps_S: NDArray[np.int64]
    """Rising strictly."""
    scores_S: NDArray[np.float64]
    """Finite."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What the metrics of one group are held against."""

    series: GroupSeries
    test: str
    """Name of the test, empty where the scores name none."""
    scores: ScoreSeries


def values_at(
    steps_T: NDArray[np.int64], values_T: NDArray[np.float64], steps_S: NDArray[np.int64]
) -> NDArray[np.float64]:
    """[S] values at other steps: exact, or on the straight line between the two neighbouring windows.

    NaN before the first window, after the last, and beside an undefined value.
    """
    found_S: NDArray[np.float64] = np.interp(steps_S, steps_T, values_T, left=np.nan, right=np.nan)
    return found_S


def targets(
    series: Iterable[GroupSeries],
    scores: Mapping[tuple[str, str], ScoreSeries],
    pairing: Mapping[str, str] | None = None,
) -> tuple[tuple[Target, ...], tuple[str, ...]]:
    """Which scores each group is held against, and remarks on what finds no partner.

    `scores` by (group, test), an empty name where the file has no such column: a score of no group counts for
    all of them. With `pairing` (group → test) a group takes the scores of its test alone; where the
    scores name no tests, their groups are the tests. Raises ScoresError if no group has a score.
    """
    by_group = {one.group: one for one in series}
    found: list[Target] = []
    remarks: list[str] = []
    for group, one in by_group.items():
        for wanted, test in _keys(group, scores, pairing):
            found.append(Target(series=one, test=test, scores=scores[wanted]))
        if not found or found[-1].series is not one:
            paired = "" if pairing is None else f" (paired with: {pairing.get(group, 'no test')})"
            remarks.append(f"No scores for group {group}{paired}: it is left out.")
    tests = set(pairing.values()) if pairing is not None else set()
    named = {name for group, test in scores for name in (group, test if pairing is not None else "")} - {""}
    unknown = sorted(named - by_group.keys() - tests)
    if unknown and pairing is None:
        remarks.append(f"The run has no group {', '.join(unknown)}: these scores are left out.")
    elif unknown:
        remarks.append(f"No group of the run is paired with {', '.join(unknown)}: these scores are left out.")
    if not found:
        raise ScoresError(f"no scores for any group of the run ({', '.join(by_group)})")
    return tuple(found), tuple(remarks)


def _keys(
    group: str, scores: Mapping[tuple[str, str], ScoreSeries], pairing: Mapping[str, str] | None
) -> list[tuple[tuple[str, str], str]]:
    """(key in the scores, name of the test) for a group."""
    if pairing is None:
        return [(key, key[1]) for key in scores if key[0] in {"", group}]
    test = pairing.get(group)
    if test is None:
        return []
    return [(key, test) for key in ((group, test), ("", test), (test, "")) if key in scores][:1]
