"""Every bound of the service, in one object."""

from __future__ import annotations

import enum
import re
from collections.abc import Iterable, Mapping
from dataclasses import Field, dataclass, field, fields, replace

MEBIBYTE = 1 << 20
GIBIBYTE = 1 << 30

_SIZE = re.compile(r"(\d+)(?:([KMG])i?B?)?", re.IGNORECASE)
_MOST = 2**53 - 1
"""Largest value of a bound: databases, clocks and floats still count so far."""
_GRPC_MOST = {"message_bytes": (1 << 30) - 1} | dict.fromkeys(
    ("connections", "streams", "watchers", "calls", "health_calls"), 1 << 28
)
"""Largest value of what gRPC is told: twice the first and all of the others together have to fit 32 bits."""
_FACTORS = {"": 1, "K": 1 << 10, "M": MEBIBYTE, "G": GIBIBYTE}


class Past(enum.Enum):
    """What happens past a bound; never silently, and to nobody else."""

    CALL = "the call gets RESOURCE_EXHAUSTED with a retry delay"
    MESSAGE = "the message is rejected with RESOURCE_EXHAUSTED, the stream goes on"
    STREAM = (
        "the stream ends with RESOURCE_EXHAUSTED and a retry delay; what was not acknowledged is sent again"
    )
    WAITS = "the stream is not read on until there is room"
    ACKS = "acknowledgements wait, which slows the senders"
    CONNECTION = "the connection is closed at once; gRPC tries again later"
    TIME = "the call ends with DEADLINE_EXCEEDED"
    INVALID = "the call or message is refused with INVALID_ARGUMENT: no waiting helps"
    OLDEST = "the one not used for longest is forgotten"
    FOLDED = "further groups share the series of one named `other` (docs/metrics.md)"


@dataclass(frozen=True, slots=True)
class Meaning:
    """What a bound is about."""

    unit: str
    what: str
    past: Past


def _bound(default: int, unit: str, what: str, past: Past) -> int:
    """A field of `Limits` that says what it means."""
    bound: int = field(default=default, metadata={"meaning": Meaning(unit, what, past)})
    return bound


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Every bound of the service; `meanings` says of each its unit and what happens past it."""

    connections: int = _bound(4096, "connections", "open on the gRPC port", Past.CONNECTION)
    calls: int = _bound(
        256, "calls", "under way other than streams, watchers and health; reflection included", Past.CALL
    )
    health_calls: int = _bound(256, "calls", "of health under way, which need no token", Past.CALL)
    watchers: int = _bound(1024, "calls", "of WatchSignals open", Past.CALL)
    streams: int = _bound(2048, "calls", "of StreamRouting open, before their hello too", Past.CALL)
    streams_per_run: int = _bound(1024, "calls", "of StreamRouting open for one run", Past.CALL)
    hello_seconds: int = _bound(
        10, "seconds", "from the start of a call to its request, or of a stream to its hello", Past.TIME
    )

    runs: int = _bound(1000, "runs", "kept, finished ones included", Past.CALL)
    layers: int = _bound(256, "layers", "L of a run", Past.CALL)
    experts: int = _bound(1024, "experts", "per layer K of a run", Past.CALL)
    capacity: int = _bound(8192, "observations", "kept per window and group", Past.CALL)
    ranks_per_run: int = _bound(8192, "ranks", "that send: the world size", Past.CALL)
    groups_per_run: int = _bound(64, "groups", "of one run", Past.MESSAGE)
    name_length: int = _bound(128, "characters", "of the name of a run, group or session", Past.INVALID)
    sessions_per_rank: int = _bound(16, "sessions", "remembered of one rank in an attempt", Past.OLDEST)
    checkpoints_per_run: int = _bound(10_000, "checkpoints", "registered in one run", Past.CALL)
    tag_length: int = _bound(4096, "characters", "of a checkpoint's tag", Past.INVALID)
    answer_rows: int = _bound(200_000, "rows", "windows and signals in one answer of GetMetrics", Past.CALL)
    series_groups: int = _bound(
        32, "groups", "of one run with series of their own on /metrics, those that came first", Past.FOLDED
    )

    message_bytes: int = _bound(
        32 * MEBIBYTE,
        "bytes",
        "of one message; up to twice as much is read, so that the stream goes on, past that it ends",
        Past.MESSAGE,
    )
    samples_per_message: int = _bound(16384, "observations", "in one batch", Past.MESSAGE)
    unacked_bytes_per_stream: int = _bound(
        64 * MEBIBYTE, "bytes", "read from one stream and not acknowledged", Past.WAITS
    )
    unacked_bytes_per_run: int = _bound(
        128 * MEBIBYTE, "bytes", "read from all streams of a run and not acknowledged", Past.WAITS
    )
    unacked_bytes: int = _bound(
        512 * MEBIBYTE, "bytes", "read from all streams and not acknowledged", Past.WAITS
    )
    waiting_bytes: int = _bound(
        256 * MEBIBYTE,
        "bytes",
        "of messages that wait for room under the three bounds above; past half of it only of runs below "
        "their fair share",
        Past.STREAM,
    )
    waiting_seconds: int = _bound(30, "seconds", "that a stream waits for room that others take", Past.STREAM)

    open_windows_per_run: int = _bound(
        256, "windows", "that wait for ranks (all groups of a step count once)", Past.STREAM
    )
    unjudged_rounds: int = _bound(32, "rounds", "of a run that are closed and not judged yet", Past.ACKS)
    window_bytes_per_run: int = _bound(
        GIBIBYTE, "bytes", "kept of a run's windows until they are judged", Past.STREAM
    )
    window_bytes: int = _bound(
        2 * GIBIBYTE,
        "bytes",
        "kept of all runs' windows; past half of it only runs below their fair share grow",
        Past.STREAM,
    )

    @property
    def memory_bytes(self) -> int:
        """Most memory that the bounds let data take, in bytes: the process adds its own.

        A message in flight is held as it came, as bytes for the store, and as float32: four times its size
        where it came as float16. A window that is being judged is held once more as arrays and twice as
        float64 by the metrics.
        """
        return 4 * self.unacked_bytes + self.waiting_bytes + 2 * self.window_bytes


def meanings() -> Mapping[str, Meaning]:
    """The meaning of each bound, by name."""
    return {item.name: _meaning(item) for item in fields(Limits)}


def parse_limits(assignments: Iterable[str]) -> Limits:
    """Limits from `NAME=VALUE`s; the last of a name counts. Sizes may end in KiB, MiB or GiB.

    Raises ValueError, which says what is wrong.
    """
    values: dict[str, int] = {}
    for assignment in assignments:
        name, equals, value = (part.strip() for part in assignment.partition("="))
        if not equals:
            raise ValueError(f"limit {assignment!r} is not NAME=VALUE")
        if name not in meanings():
            raise ValueError(f"limit {name!r} is unknown; there are {', '.join(meanings())}")
        found = _SIZE.fullmatch(value)
        if found is None or (found[2] and meanings()[name].unit != "bytes"):
            raise ValueError(f"limit {name}: {value!r} is not a number of {meanings()[name].unit}")
        values[name] = int(found[1]) * _FACTORS[(found[2] or "").upper()]
    return replace(Limits(), **values)


def limit_problems(limits: Limits) -> list[str]:
    """What is wrong with the bounds, each one line."""
    problems = [
        f"limits.{item.name}: must be at least 1" for item in fields(limits) if getattr(limits, item.name) < 1
    ]
    for inner, outer in (
        ("message_bytes", "unacked_bytes_per_stream"),
        ("unacked_bytes_per_stream", "unacked_bytes_per_run"),
        ("unacked_bytes_per_run", "unacked_bytes"),
    ):
        if getattr(limits, inner) > getattr(limits, outer):
            problems.append(f"limits.{inner}: is more than {outer}, {getattr(limits, outer)}")
    for item in fields(limits):
        most = _GRPC_MOST.get(item.name, _MOST)
        if getattr(limits, item.name) > most:
            problems.append(f"limits.{item.name}: must be at most {most}")
    return problems


def _meaning(item: Field[int]) -> Meaning:
    meaning: Meaning = item.metadata["meaning"]
    return meaning
