"""What is read of the store in Redis."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

from pathwatch.server.phases.verdict import Checkpoint
from pathwatch.server.store.answers import History, ThinnedHistory
from pathwatch.server.store.interface import DamagedError
from pathwatch.server.store.redis_connection import RedisConnection
from pathwatch.server.store.redis_keys import RUNS, key
from pathwatch.server.store.redis_rows import (
    split_remains,
    step_text,
    to_run,
    to_signal,
    to_window,
)
from pathwatch.server.store.rows import (
    BatchRow,
    GeometryRow,
    ObservationsRow,
    PartialRoundRow,
    RankRow,
    RunRow,
    SessionRow,
    SignalRow,
    WindowRow,
)

_BYTES_AT_ONCE = 8 << 20
"""Of batches, read together."""
_WINDOWS_AT_ONCE = 200

_HISTORY, _THINNED, _NEWEST = (
    Path(__file__).with_name(f"redis_{name}.lua").read_text() for name in ("history", "thinned", "newest")
)
_PAGE = """
local fields = redis.call('ZRANGEBYLEX', KEYS[1], ARGV[1], '+', 'LIMIT', 0, ARGV[2])
local answer = {fields, {}, {}, {}}
for i, field in ipairs(fields) do
  for k = 2, 4 do answer[k][i] = redis.call('HGET', KEYS[k], field) end
end
return answer
"""
_OBSERVATION = """
local member = redis.call('ZRANGEBYSCORE', KEYS[1], '(' .. ARGV[1], '+inf', 'LIMIT', 0, 1)[1]
if not member then return false end
local answer = {member}
for piece = 1, tonumber(string.match(member, '%d+$')) do
  answer[piece + 1] = redis.call('HGET', KEYS[2], member .. ':' .. piece)
end
return answer
"""


class RedisReader:
    """`StoreReader` on a Redis. What one call answers is of one moment, but for `windows` and `batches`: they
    come in parts, each of one moment."""

    def __init__(self, connection: RedisConnection) -> None:
        self._connection = connection

    def runs(self) -> list[RunRow]:
        found = [row for name in self.names() if (row := self.run(name))]
        return sorted(found, key=lambda row: (row.created_at, row.name))

    def names(self) -> list[str]:
        return sorted(name.decode() for name in self._connection.command("SMEMBERS", RUNS))

    def ranks(self, run: str, attempt: int) -> list[RankRow]:
        found = []
        for field, value in self._hash(run, "ranks").items():
            of, rank = _numbers(field, b":", 2)
            world_size, watermark = _numbers(value, b" ", 2)
            if of == attempt:
                row = RankRow(run=run, attempt=attempt, rank=rank, world_size=world_size, watermark=watermark)
                found.append(row)
        return sorted(found, key=lambda row: row.rank)

    def sessions(self, run: str, attempt: int) -> list[SessionRow]:
        found = []
        for field, value in self._hash(run, "sessions").items():
            of, rank, session = field.split(b":", 2)
            commit, number, last = _numbers(value, b" ", 3)
            if int(of) == attempt:
                row = SessionRow(
                    run=run, attempt=attempt, rank=int(rank), session=session.decode(), last_sequence=last
                )
                found.append((commit, number, row))
        return [row for _, _, row in sorted(found, key=lambda item: item[:2])]

    def batches(self, run: str) -> Iterator[BatchRow]:
        wanted = []
        for member, step in self._connection.command("ZRANGE", key(run, "batch_steps"), 0, -1, "WITHSCORES"):
            wanted.append((*_numbers(member, b":", 4), int(step), member))
        wanted.sort()
        at = 0
        while at < len(wanted):
            end, size = at, 0
            while end < len(wanted) and (end == at or size + wanted[end][3] <= _BYTES_AT_ONCE):
                size += wanted[end][3]
                end += 1
            ids = [item[-1] for item in wanted[at:end]]
            found = self._connection.command("HMGET", key(run, "batches"), *ids)
            for (_, _, attempt, _, step, _), batch in zip(wanted[at:end], found, strict=True):
                if batch is not None:  # judged meanwhile
                    yield BatchRow(run=run, attempt=attempt, step=step, batch=batch)
            at = end

    def geometries(self, run: str) -> list[GeometryRow]:
        return [
            GeometryRow(run=run, attempt=attempt, step=step, geometry=value)
            for attempt, step, value in self._by_step(run, "geometries")
        ]

    def partial_rounds(self, run: str) -> list[PartialRoundRow]:
        return [
            PartialRoundRow(run=run, attempt=attempt, step=step, missing_ranks=tuple(_numbers(value, b" ")))
            for attempt, step, value in self._by_step(run, "partial_rounds")
        ]

    def windows(self, run: str) -> Iterator[WindowRow]:
        names = [key(run, kind) for kind in ("windows", "rows", "layers", "remains")]
        bound: bytes | str = "-"
        while True:
            page = self._connection.script(_PAGE, names, bound, _WINDOWS_AT_ONCE)
            for known_by, row, layers, rest in zip(*page, strict=True):
                yield to_window(run, known_by, row, layers, *split_remains(run, rest))
            if len(page[0]) < _WINDOWS_AT_ONCE:
                return
            bound = b"(" + page[0][-1]

    def newest_windows(self, run: str) -> list[WindowRow]:
        names = [key(run, kind) for kind in ("timeline", "rows", "layers")]
        return _windows(run, *self._connection.script(_NEWEST, names))

    def checkpoints(self, run: str) -> list[Checkpoint]:
        points = [
            Checkpoint(step=step, tag=tag.decode(), attempt=attempt)
            for attempt, step, tag in self._by_step(run, "checkpoints")
        ]
        return sorted(points, key=lambda point: (point.step, point.attempt))

    def last_signal(self, run: str) -> SignalRow | None:
        value = self._connection.command("HGET", key(run, "run"), "signal")
        return None if value is None else to_signal(run, value)

    def signals(self, run: str, *, after_revision: int = 0, limit: int = 0) -> list[SignalRow]:
        revisions = self._connection.command(
            *("ZRANGEBYSCORE", key(run, "revisions"), f"({after_revision}", "+inf", "LIMIT", 0, limit or -1)
        )
        if not revisions:
            return []
        # None of a run that was deleted meanwhile; those that are there never change.
        found = self._connection.command("HMGET", key(run, "signals"), *revisions)
        return [to_signal(run, value) for value in found if value is not None]

    def history(
        self, run: str, *, after_step: int = -1, group: str = "", limit: int = 0, signal_limit: int = 0
    ) -> History:
        first = step_text(max(0, after_step + 1))
        low, high = (f"[{group}\0{first}", f"({group}\0".encode() + b"\xff") if group else (f"[{first}", "+")
        names = [
            key(run, kind)
            for kind in ("run", "windows", "timeline", "rows", "layers", "signals", "signal_steps")
        ]
        row, config, fields, rows, layers, signals = self._connection.script(
            *(_HISTORY, names, low, high, limit or -1, int(bool(group)), after_step, signal_limit or -1)
        )
        return History(
            windows=_windows(run, fields, rows, layers),
            signals=[to_signal(run, value) for value in signals],
            closed_step=to_run(run, row, config).closed_step if row else -1,
        )

    def thinned_history(
        self, run: str, groups: Sequence[str], *, points: int, after_step: int = -1, layers: bool = True
    ) -> ThinnedHistory | None:
        names = [key(run, kind) for kind in ("run", "timeline", "turns", "rows", "layers")]
        answer = self._connection.script(_THINNED, names, points, after_step, int(layers), *groups)
        if answer is None:
            return None
        row, config, *found = answer
        whole = to_run(run, row, config)
        windows = {
            group: _windows(run, fields, rows, of_layers)
            for group, (fields, rows, of_layers, _) in zip(groups, found, strict=True)
        }
        strides = [
            math.ceil(count / len(shown)) if shown else 1
            for shown, (*_, count) in zip(windows.values(), found, strict=True)
        ]
        return ThinnedHistory(
            windows=windows,
            stride=max(strides, default=1),
            attempt=whole.attempt,
            closed_step=whole.closed_step,
        )

    def observations(self, run: str, *, after_step: int = -1) -> Iterator[ObservationsRow]:
        names = [key(run, kind) for kind in ("observed", "observations")]
        while True:
            answer = self._connection.script(_OBSERVATION, names, after_step)
            if answer is None:
                return
            member, *pieces = answer
            attempt, after_step, count = _numbers(member, b":", 3)
            if len(pieces) != count:
                raise DamagedError(
                    f"kept observations of run {run!r} at step {after_step} are damaged in Redis"
                )
            yield ObservationsRow(run=run, attempt=attempt, step=after_step, observations=b"".join(pieces))

    def run(self, name: str) -> RunRow | None:
        row, config = self._connection.command("HMGET", key(name, "run"), "row", "config")
        return None if row is None else to_run(name, row, config)

    def _by_step(self, run: str, kind: str) -> list[tuple[int, int, bytes]]:
        """Attempts, steps and values of a hash that is known by them, sorted."""
        found = []
        for field, value in self._hash(run, kind).items():
            attempt, step = _numbers(field, b":", 2)
            found.append((attempt, step, value))
        return sorted(found)

    def _hash(self, run: str, kind: str) -> dict[bytes, bytes]:
        found: dict[bytes, bytes] = self._connection.command("HGETALL", key(run, kind))
        return found


def _windows(
    run: str, fields: Sequence[bytes], rows: Sequence[bytes], layers: Sequence[bytes]
) -> list[WindowRow]:
    """Without evidence and losses."""
    return [
        to_window(run, known_by, row, of_layers, b"", b"")
        for known_by, row, of_layers in zip(fields, rows, layers, strict=True)
    ]


def _numbers(text: bytes, separator: bytes, count: int | None = None) -> list[int]:
    """Raises DamagedError where there are not so many; None = any number."""
    try:
        found = [int(part) for part in text.split(separator) if part]
        if count is not None and len(found) != count:
            raise ValueError(f"wanted {count} numbers")
    except ValueError as error:
        raise DamagedError(f"a row in Redis is damaged ({error}: {text!r})") from error
    return found
