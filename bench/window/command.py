"""The command line of `python bench/window`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from statistics import median

from bench.command import run_bench
from bench.figures import Figure, Unit
from bench.window.closing import parts, peak_megabytes, seconds, timed
from bench.window.peer import as_numbers, mean_distance
from bench.window.windows import DEEPSEEK_V3, OLMOE, Model, geometry_of, round_of
from pathwatch.server.metrics.distance import PathDistance, path_distance
from pathwatch.server.metrics.pairs import PairBudget
from pathwatch.server.metrics.summary import MetricSettings
from pathwatch.server.metrics.window import WindowArrays

DESCRIPTION = """\
What does closing a window take, on one core? A round of 8 groups x 512 samples with random routing, as
scattered as it gets: all metrics with their standard errors, distances at four thresholds, and what the
default detector measures; with targets and routing weights of target tokens, at the size of OLMoE (16 layers
x 64 experts) and of DeepSeek-V3 (58 x 256). Also without targets, where the detector compares pathways
itself, and for groups that have come to share pathways. Seconds are CPU time, the least of some rounds;
`window.work` is the median of closing over a float64 matrix product of 2048 x 2048 right before it, which
holds on any machine.

`window.peer`: the mean distance within one OLMoE group, against all its pairs in a Python loop that calls
RapidFuzz on our strings: `sampled` as a round computes it, `exact` over all pairs; `exact.numbers` holds that
against the loop on lists of expert numbers, as pathways are written down first.
"""
EXACT = PairBudget(max_pairs=10**9)
EXACT_SAMPLES = 200
SCATTERED = 0.87
ALIKE = 0.08
"""Own part of the routing in groups that have come to share it: about half of the pathways have an equal."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print a table."""
    run_bench("window", DESCRIPTION, _measure, arguments)


def _measure(quick: bool) -> Iterator[Figure]:
    yield from _peers(5 if quick else 15)
    yield from _closing("olmoe", OLMOE, 3 if quick else 9, aim=1.0)
    yield from _closing("olmoe.untargeted", OLMOE, 2 if quick else 5, targets=False)
    yield from _closing("olmoe.alike", OLMOE, 2 if quick else 5, own=ALIKE)
    yield from _closing("v3", DEEPSEEK_V3, 1 if quick else 3, aim=5.0)
    yield from _closing("v3.untargeted", DEEPSEEK_V3, 1 if quick else 2, targets=False)


def _closing(
    name: str,
    model: Model,
    rounds: int,
    *,
    own: float = SCATTERED,
    targets: bool = True,
    aim: float | None = None,
) -> Iterator[Figure]:
    windows, geometry = round_of(model, own=own, targets=targets), geometry_of(model)
    least, ratio = timed(windows, geometry, rounds)
    shares = sorted(parts(windows, geometry).items(), key=lambda part: -part[1])
    yield Figure(
        name=f"window.close.{name}",
        value=least,
        unit=Unit.SECONDS,
        higher_is_better=False,
        aim=aim,
        detail=", ".join(f"{part} {1000 * taken:.0f} ms" for part, taken in shares),
    )
    yield Figure(
        name=f"window.work.{name}",
        value=ratio,
        unit=Unit.RATIO,
        higher_is_better=False,
        detail="closing over one 2048 x 2048 float64 matrix product",
    )
    if aim is not None:
        yield Figure(
            name=f"window.memory.{name}",
            value=peak_megabytes(windows, geometry),
            unit=Unit.MEGABYTES,
            higher_is_better=False,
            detail=f"at most, beside {_megabytes(windows):.0f} MB of windows",
        )


def _peers(rounds: int) -> Iterator[Figure]:
    window = next(iter(round_of(OLMOE, own=SCATTERED, targets=False).values()))
    (strings,) = window.routing.pathways([0.7])
    shipped = MetricSettings().pair_budget
    exact, sampled = _known(strings, EXACT), _known(strings, shipped)
    in_turns = [
        seconds(lambda: mean_distance(strings))
        / median(seconds(lambda: path_distance(strings, shipped)) for _ in range(5))
        for _ in range(rounds)
    ]
    yield Figure(
        name="window.peer.sampled",
        value=median(in_turns),
        unit=Unit.RATIO,
        higher_is_better=True,
        aim=30.0,
        detail=f"{sampled.pairs} of {exact.pairs} pairs, off by {abs(sampled.mean / exact.mean - 1):.2%}",
    )
    some = strings[:EXACT_SAMPLES]
    numbers = [as_numbers(pathway) for pathway in some]
    on_numbers, on_strings = [], []
    for _ in range(rounds):
        ours = seconds(lambda: path_distance(some, EXACT))
        on_numbers.append(seconds(lambda: mean_distance(numbers)) / ours)
        on_strings.append(seconds(lambda: mean_distance(some)) / ours)
    limit = "the peer on the same strings; either way nearly all is RapidFuzz's own kernel"
    for name, taken, aim, detail in (
        ("exact", on_strings, 1.5, limit),
        ("exact.numbers", on_numbers, None, "the peer on lists of expert numbers"),
    ):
        yield Figure(
            name=f"window.peer.{name}",
            value=median(taken),
            unit=Unit.RATIO,
            higher_is_better=True,
            aim=aim,
            detail=detail,
        )


def _known(pathways_N: Sequence[str], budget: PairBudget) -> PathDistance:
    distance = path_distance(pathways_N, budget)
    if distance is None:
        raise RuntimeError("too few samples for a path distance")
    return distance


def _megabytes(windows: Mapping[str, WindowArrays]) -> float:
    return sum(window.nbytes for window in windows.values()) / 1e6
