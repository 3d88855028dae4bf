"""The report, in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import median

from bench.scale.capacity import BUSY, JOBS, KEPT_ROUNDS, needs, ranks_per_core, ranks_per_gigabyte
from bench.scale.costs import RunCosts
from bench.scale.rank_costs import RankCosts
from bench.scale.relaying import Relayed
from bench.scale.sender import GROUPS, RANKS
from bench.scale.spreading import RUNS, Spread, Turn
from bench.scale.takeover import Takeovers


def run_table(runs: Sequence[RunCosts]) -> str:
    """What runs cost, a column per model."""
    header = ["a run with rounds of 8 groups × 512 samples", *map(_model, runs)]
    rows = [
        ["a round as it is sent, float16", *(_size(run.round_bytes) for run in runs)],
        ["memory of a shard without runs", *(_size(run.bare_bytes) for run in runs)],
        ["…, a run that nothing was sent to, beyond that", *(_size(run.idle_bytes) for run in runs)],
        ["…, a run whose round is open", *(_size(run.open_bytes) for run in runs)],
        ["…, a run whose first round was judged", *(_size(run.judged_bytes) for run in runs)],
        ["CPU of a shard: to take a round in", *(_seconds(run.take_seconds) for run in runs)],
        ["…, per MB", *(_seconds(run.take_seconds / (run.round_bytes / 1e6)) for run in runs)],
        ["CPU of a shard: to close and judge it", *(_seconds(run.close_seconds) for run in runs)],
        ["…, per window, of 8", *(_seconds(run.close_seconds / 8) for run in runs)],
        ["CPU of Redis for a round", *(_seconds(run.redis_seconds) for run in runs)],
        ["in Redis: a run that nothing was sent to", *(_size(run.redis_idle_bytes) for run in runs)],
        ["…, while its round is open", *(_size(run.redis_open_bytes) for run in runs)],
        ["…, for each judged round, for good", *(_size(run.redis_judged_bytes) for run in runs)],
        ["measured with so many runs together", *(str(run.runs) for run in runs)],
    ]
    return _table(header, rows)


def rank_table(ranks: Sequence[RankCosts]) -> str:
    """What ranks cost that only say how far they are, a column per fleet."""
    header = [
        "ranks that send watermarks only",
        *(f"{of.ranks:,} over {of.connections:,} connections" for of in ranks),
    ]
    rows = [
        ["memory of a shard, a stream", *(_size(of.stream_bytes) for of in ranks)],
        ["CPU of a shard, a watermark", *(_seconds(of.watermark_seconds) for of in ranks)],
        ["CPU of Redis, a watermark", *(_seconds(of.redis_watermark_seconds) for of in ranks)],
        ["in Redis, a rank", *(_size(of.redis_bytes) for of in ranks)],
        ["a watermark of each rank every", *(f"{of.every_seconds:g} s" for of in ranks)],
        ["… of which pace was kept", *(f"{of.pace:.0%}" for of in ranks)],
        [
            f"so with a watermark a second, a core {BUSY:.0%} busy serves",
            *(f"{_two_digits(ranks_per_core(of))} ranks" for of in ranks),
        ],
        ["and a GB of memory holds", *(f"{_two_digits(ranks_per_gigabyte(of))} ranks" for of in ranks)],
    ]
    return _table(header, rows)


def capacity_table(runs: Sequence[RunCosts], rank: RankCosts) -> str:
    """How many runs fit, a line per kind of job and size of model."""
    header = ["job", "size", "ranks, a watermark every", "cores of a shard", f"runs a core, {BUSY:.0%} busy"]
    header += [
        "memory of a shard",
        "runs a GB",
        f"in Redis with {KEPT_ROUNDS:,} rounds",
        "runs a GB of Redis",
    ]
    header += [f"runs a Redis, {BUSY:.0%} busy"]
    rows = []
    for job in JOBS:
        for run in runs:
            need = needs(job, run, rank)
            rows.append(
                [
                    job.name,
                    run.model,
                    f"{job.ranks:,}, {job.watermark_seconds:g} s",
                    f"{need.cores:.3f}",
                    _two_digits(need.runs_per_core),
                    _size(need.memory_bytes),
                    _two_digits(need.runs_per_gigabyte),
                    _size(need.redis_bytes),
                    _two_digits(need.runs_per_redis_gigabyte),
                    _two_digits(need.runs_per_redis_core),
                ]
            )
    return _table(header, rows)


def spread_table(spread: Spread) -> str:
    """One shard and two, a line per way."""
    header = [f"{spread.rounds} rounds of {RUNS} runs, {_size(spread.round_bytes)} each"]
    header += ["seconds", "faster than one confined shard", "CPU, s: shards", "Redis", "sender"]
    rows = [
        _way("one shard, confined to one core", spread.one, spread.one),
        _way("two shards, each confined to a core of its own", spread.two, spread.one),
        _way("one shard, both cores", spread.one_free, spread.one),
        [
            "no server: one process closes such rounds, or two on a core each",
            "",
            _range(spread.computing_ratios),
            "",
            "",
            "",
        ],
    ]
    return _table(header, rows)


def takeover_table(lengths: Iterable[Takeovers]) -> str:
    """A line per length of lease."""
    header = ["lease", "killed", "from the kill to the first new acknowledgement: median", "least", "longest"]
    header += ["longest, less the lease"]
    rows = [
        [
            f"{of.lease_seconds:g} s",
            f"{len(of.seconds)} times",
            *(f"{seconds:.1f} s" for seconds in (median(of.seconds), min(of.seconds), max(of.seconds))),
            f"{max(of.seconds) - of.lease_seconds:+.1f} s",
        ]
        for of in lengths
    ]
    return _table(header, rows)


def relay_table(found: Relayed) -> str:
    """Straight to a shard and through a relay, a column each."""
    ways = (found.direct, found.relayed)
    megabytes = found.sent_bytes / 1e6
    header = [f"{RANKS} ranks send {_size(found.sent_bytes)}, {found.windows} windows of {GROUPS} groups"]
    header += ["straight to a shard", "through a relay"]
    rows = [
        ["routing weights, MB/s", *(f"{megabytes / way.seconds:.0f}" for way in ways)],
        ["bytes that reach the shard", "100%", f"{found.forwarded_bytes / found.received_bytes:.1%}"],
        [
            "CPU of the shard per MB that ranks send, windows closed and judged",
            *(_seconds(way.shard_cpu / megabytes) for way in ways),
        ],
        ["CPU of the relay per MB", "", _seconds(found.relayed.relay_cpu / megabytes)],
        ["connections to the shard", *(str(way.connections) for way in ways)],
    ]
    return _table(header, rows)


def _way(name: str, turns: Sequence[Turn], one: Sequence[Turn]) -> list[str]:
    ratios = [beside.seconds / turn.seconds for turn, beside in zip(turns, one, strict=True)]
    middle = sorted(turns, key=lambda turn: turn.seconds)[len(turns) // 2]
    return [
        name,
        f"{middle.seconds:.1f}",
        _range(ratios),
        f"{middle.shard_cpu:.1f}",
        f"{middle.redis_cpu:.1f}",
        f"{middle.sender_cpu:.1f}",
    ]


def _range(ratios: Sequence[float]) -> str:
    """The middle one, with the least and the largest where they say more."""
    middle, least, most = (f"{of(ratios):.2f}" for of in (median, min, max))
    return middle if least == most else f"{middle} ({least} to {most})"


def _model(run: RunCosts) -> str:
    return f"{run.model}: {run.layers} layers × {run.experts} experts"


def _size(nbytes: float) -> str:
    """Three digits, in the unit that it has some of; nothing below zero, which is what noise may come to."""
    if nbytes <= 0:
        return "too little to tell"
    unit, name = next(
        (unit for unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "KB")) if nbytes >= unit[0]), (1, "B")
    )
    return f"{nbytes / unit:.3g} {name}"


def _seconds(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 0.1 else f"{1000 * seconds:.2g} ms"


def _two_digits(value: float) -> str:
    """Rounded down: it is what fits."""
    if value < 10:
        return f"{int(value * 10) / 10:g}"
    unit = 10 ** (len(str(int(value))) - 2)
    return f"{int(value) // unit * unit:,}"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] + ["---:"] * (len(header) - 1), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
