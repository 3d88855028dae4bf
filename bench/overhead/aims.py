"""What the hook is meant to cost at most, and whether it does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from bench.overhead.inside import Inside
from bench.overhead.ratios import Ratio
from bench.overhead.results import Costs, Synchronised

Verdict: TypeAlias = Literal["met", "missed", "undecided"]

UNOBSERVED_MEDIAN = 1.005
UNOBSERVED_P99 = 1.02
AMORTIZED = 1.01
MAIN_THREAD_SECONDS = 0.001
DEFAULT = "stream every 10"


@dataclass(frozen=True, slots=True)
class Judgement:
    """One aim."""

    aim: str
    measured: str
    verdict: Verdict


def at_most(ratio: Ratio, limit: float) -> Verdict:
    """Undecided while the limit lies within the interval."""
    if ratio.high <= limit:
        return "met"
    return "missed" if ratio.low > limit else "undecided"


def below(ratio: Ratio, other: Ratio) -> Verdict:
    """Undecided while the intervals overlap."""
    if ratio.high < other.low:
        return "met"
    return "missed" if ratio.low > other.high else "undecided"


def judge(
    costs: Mapping[str, Costs], inside: Mapping[str, Inside], waits: Mapping[str, Synchronised]
) -> list[Judgement]:
    """Every aim for which there are numbers."""
    judgements = []
    ours = costs.get(DEFAULT)
    if ours is not None:
        assert ours.unobserved_median is not None and ours.unobserved_p99 is not None  # noqa: S101, PT018
        for name, ratio, limit in (
            ("unobserved steps, median", ours.unobserved_median, UNOBSERVED_MEDIAN),
            ("unobserved steps, p99", ours.unobserved_p99, UNOBSERVED_P99),
            ("amortised", ours.amortized, AMORTIZED),
        ):
            judgements.append(
                Judgement(f"{DEFAULT}: {name} at most {limit}", _told(ratio), at_most(ratio, limit))
            )
    for every in (1, 10):
        mine, theirs = costs.get(f"stream every {every}"), costs.get(f"moewatch every {every}")
        if mine is not None and theirs is not None:
            judgements.append(
                Judgement(
                    f"stream every {every}: amortised below moewatch every {every}",
                    f"{_told(mine.amortized)} and {_told(theirs.amortized)}",
                    below(mine.amortized, theirs.amortized),
                )
            )
    for name, numbers in inside.items():
        if name.startswith("stream"):
            judgements.append(
                Judgement(
                    f"{name}: main thread below {MAIN_THREAD_SECONDS * 1e3:.0f} ms a step",
                    f"{numbers.amortized_seconds * 1e3:.3f} ms amortised, "
                    f"{numbers.longest_seconds * 1e3:.1f} ms at most",
                    "met" if numbers.amortized_seconds < MAIN_THREAD_SECONDS else "missed",
                )
            )
    for name, waited in waits.items():
        if name.startswith(("stream", "probe")):
            judgements.append(
                Judgement(
                    f"{name} mode: no operation on unobserved steps, no wait for the device on any",
                    f"{waited.unobserved_launched} operations, {waited.blocking:g} waits",
                    "met" if waited.unobserved_launched == waited.blocking == 0 else "missed",
                )
            )
    return judgements


def _told(ratio: Ratio) -> str:
    return f"{ratio.value:.4f} [{ratio.low:.4f}, {ratio.high:.4f}]"
