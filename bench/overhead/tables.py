"""The report, in Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bench.overhead.aims import Judgement
from bench.overhead.client_calls import Calls
from bench.overhead.inside import Inside
from bench.overhead.ratios import Ratio
from bench.overhead.results import Costs, Synchronised

DASH = "–"


def ratio_table(costs: Mapping[str, Costs]) -> str:
    """Step time over the baseline's, a line per variant."""
    header = ["variant", "steps", "unobserved: median", "p99", "observed: median", "amortised", "mean", "CPU"]
    rows = [
        [
            name,
            str(of.steps),
            *map(_ratio, (of.unobserved_median, of.unobserved_p99, of.observed_median)),
            *map(_ratio, (of.amortized, of.mean, of.cpu)),
        ]
        for name, of in costs.items()
    ]
    return _table(header, rows)


def inside_table(inside: Mapping[str, Inside], gives: Mapping[str, str]) -> str:
    """What it takes of the main thread and of memory, and what one gets for it, a line per variant."""
    header = ["variant", "main thread, µs a step: unobserved", "observed", "amortised"]
    header += ["peak memory, MB", "held in tensors, MB", "gives"]
    return _table(header, [[name, *_inside(numbers), gives[name]] for name, numbers in inside.items()])


def waits_table(waits: Mapping[str, Synchronised]) -> str:
    """What it does to the device, a line per variant."""
    header = ["variant", "operations on unobserved steps", "on observed: copies to the host", "waits"]
    header += ["waits in the first interval"]
    rows = [
        [name, str(w.unobserved_launched), f"{w.copies:g}", f"{w.blocking:g}", str(w.once)]
        for name, w in waits.items()
    ]
    return _table(header, rows)


def calls_table(calls: Sequence[Calls]) -> str:
    """Calls of the client, a line per size and sidecar."""
    header = ["`RoutingStream.observe` of", "sidecar", "calls", "p50, µs", "p99, µs", "longest, µs"]
    header += ["p50 over `numpy.copy`'s", "p99 over `numpy.copy`'s"]
    rows = [
        [
            f"{c.nbytes >> 10} KiB",
            c.sidecar,
            str(c.calls),
            *(f"{seconds * 1e6:.0f}" for seconds in (c.p50_seconds, c.p99_seconds, c.longest_seconds)),
            f"{c.p50_seconds / c.copy_p50_seconds:.1f}",
            f"{c.p99_seconds / c.copy_p99_seconds:.1f}",
        ]
        for c in calls
    ]
    return _table(header, rows)


def aims_table(judgements: Sequence[Judgement]) -> str:
    """What was aimed at, a line each."""
    rows = [[each.aim, each.measured, each.verdict] for each in judgements]
    return _table(["aim", "measured", "verdict"], rows)


def _ratio(ratio: Ratio | None) -> str:
    return DASH if ratio is None else f"{ratio.value:.3f} [{ratio.low:.3f}, {ratio.high:.3f}]"


def _inside(numbers: Inside) -> list[str]:
    seconds = (numbers.unobserved_seconds, numbers.observed_seconds, numbers.amortized_seconds)
    times = [DASH if value is None else f"{value * 1e6:.0f}" for value in seconds]
    return [*times, f"{numbers.peak_bytes / 1e6:.1f}", f"{numbers.tensor_bytes / 1e6:.1f}"]


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] + ["---:"] * (len(header) - 1), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
