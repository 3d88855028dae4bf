"""Writes as arguments of redis_write.lua."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from pathwatch.server.store.redis_keys import KINDS
from pathwatch.server.store.redis_rows import remains, run_text, signal_value, step_text, window_text
from pathwatch.server.store.rows import (
    BeginAttempt,
    DeleteRun,
    ForgetSession,
    PutBatch,
    PutCheckpoint,
    PutGeometry,
    PutPartialRound,
    PutRank,
    PutRound,
    PutRun,
    PutSession,
    PutSignal,
    Rewind,
    WindowRow,
    Write,
)

SCRIPT = Path(__file__).with_name("redis_write.lua").read_text()
"""It goes along with each commit: six kilobytes, and there is no cache of scripts that Redis might lose."""
MOST_BYTES = 448 << 20
"""Of one value: Redis takes 512 MiB (proto-max-bulk-len)."""
MOST_BYTES_OF_COMMIT = 960 << 20
"""Of one commit: Redis takes a gigabyte (client-query-buffer-limit)."""
PIECE_BYTES = 256 << 20
"""In which what a round held is kept, that may be larger than one value."""
_MOST_STEP = 1 << 53
"""Redis sorts by numbers of this many bits, and so do scripts."""
_MOST_NUMBER = 1 << 63

Argument = bytes | str | int


def arguments(writes: Sequence[Write], commit_number: int) -> list[Argument]:
    """Of all writes of one commit of one run. ValueError or TypeError where one can never be stored."""
    found: list[Argument] = []
    for number, write in enumerate(writes):
        found.extend(_write(write, commit_number, number))
    size = 0
    for position, value in enumerate(found):
        if isinstance(value, str):
            found[position] = value = value.encode()
        elif isinstance(value, int):
            _check(value, _MOST_NUMBER)
            continue
        elif not isinstance(value, bytes):
            raise TypeError(f"{type(value).__name__} where bytes were wanted")
        if len(value) > MOST_BYTES:
            raise ValueError(f"a value of {len(value)} bytes; Redis takes {MOST_BYTES}")
        size += len(value)
    if size > MOST_BYTES_OF_COMMIT:
        raise ValueError(f"{size} bytes at once; Redis takes {MOST_BYTES_OF_COMMIT}")
    return found


def _write(write: Write, commit_number: int, number: int) -> Iterator[Argument]:
    match write:
        case PutRun(row=run):
            for value in (run.attempt, run.first_step, run.step, run.closed_step, run.world_size):
                _check(value, _MOST_NUMBER)
            yield from ("run", run_text(run), run.config)
        case PutRank(row=rank):
            yield from _put("ranks", (rank.attempt, rank.rank), _numbers(rank.world_size, rank.watermark))
        case PutSession(row=session):
            # Where it was written, for the order in which sessions are read.
            told = _numbers(commit_number, number, session.last_sequence)
            yield from _put("sessions", (session.attempt, session.rank, session.session), told)
        case ForgetSession():
            field = f"{write.attempt}:{write.rank}:{write.session}"
            yield from ("remove", _place("sessions"), field)
        case PutBatch(row=batch):
            _check(batch.attempt, _MOST_STEP)
            yield "batch"
            yield f"{commit_number}:{number}:{batch.attempt}:{len(batch.batch)}"
            yield from (_step(batch.step), batch.batch)
        case PutGeometry(row=geometry):
            yield from _put("geometries", (geometry.attempt, _step(geometry.step)), geometry.geometry)
        case PutPartialRound(row=partial):
            missing = _numbers(*partial.missing_ranks)
            yield from _put("partial_rounds", (partial.attempt, _step(partial.step)), missing)
        case PutRound():
            yield from _round(write)
        case PutSignal(row=signal):
            yield from ("signal", _step(signal.revision), _step(signal.step), signal_value(signal))
        case PutCheckpoint(checkpoint=checkpoint):
            yield from _put("checkpoints", (checkpoint.attempt, _step(checkpoint.step)), checkpoint.tag)
        case BeginAttempt():
            yield from ("attempt", _step(write.attempt), _step(write.closed_step))
        case Rewind():
            first = _step(write.first_step)
            yield from ("rewind", _step(write.attempt), first, step_text(max(0, first)))
            yield _step(write.first_window_step)
        case DeleteRun():
            yield "delete"


def _round(write: PutRound) -> Iterator[Argument]:
    for window in write.windows:
        yield from _window(window)
    if write.observations:
        count = -(-len(write.observations) // PIECE_BYTES)
        yield from ("keep", _step(write.step), f"{write.attempt}:{write.step}:{count}")
        for begin in range(0, len(write.observations), PIECE_BYTES):
            yield write.observations[begin : begin + PIECE_BYTES]
    yield from ("judged", _step(write.attempt), _step(write.step))


def _window(row: WindowRow) -> Iterator[Argument]:
    if row.step < 0 or "\0" in row.group:
        raise ValueError(f"a window of group {row.group!r} at step {row.step}")
    _check(row.attempt, _MOST_STEP)
    _check(row.first_step, _MOST_NUMBER)
    yield from ("window", step_text(_step(row.step)), row.group, window_text(row))
    yield from (json.dumps(row.layer_path_distance), remains(row))


def _put(kind: str, field: Sequence[object], value: Argument) -> Iterator[Argument]:
    yield from ("put", _place(kind), ":".join(map(str, field)), value)


def _place(kind: str) -> int:
    """The number of a key among those of a script."""
    return KINDS.index(kind) + 1


def _step(step: int) -> int:
    _check(step, _MOST_STEP)
    return step


def _numbers(*values: int) -> str:
    for value in values:
        _check(value, _MOST_NUMBER)
    return " ".join(map(str, values))


def _check(value: int, most: int) -> None:
    if not -most <= value < most:
        raise ValueError(f"{value} is beyond {most}")
