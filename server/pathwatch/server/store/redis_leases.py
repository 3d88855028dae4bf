"""Leases of runs in Redis, by its own clock: each a hash beside the run's data, so that a script that writes
the run can look at it."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Iterable, Mapping, Set
from pathlib import Path
from typing import Any

from pathwatch.server.config.redis import RedisAddress, RedisOptions
from pathwatch.server.store.leases import Held
from pathwatch.server.store.redis_connection import Call, RedisConnection
from pathwatch.server.store.redis_fence import Fence
from pathwatch.server.store.redis_keys import key

REFUSAL_SECONDS = 1.0
"""How long Redis is not asked again for a run that another server has."""
_MOST_REFUSALS = 10_000
_SCRIPT = Path(__file__).with_name("redis_lease.lua").read_text()


class RedisLeases:
    """`Leases` of servers that share a Redis."""

    def __init__(self, address: RedisAddress, options: RedisOptions, *, own: str, seconds: float) -> None:
        """`own` is HOST:PORT at which this server is reached. Raises StoreError."""
        self._connection = RedisConnection(address, options)
        self._replicas = options.wait_replicas
        self._own, self._seconds = own, seconds
        self._changing = threading.Lock()
        self._epochs: Mapping[str, str] = {}
        """Of the runs held; another mapping with each change, so that whoever has one may read on."""
        self._refusals: dict[str, tuple[float, Held]] = {}
        """When it was said, and what; those said first come first."""

    @property
    def own(self) -> str:
        return self._own

    @property
    def seconds(self) -> float:
        return self._seconds

    @property
    def held(self) -> Set[str]:
        return self._epochs.keys()

    def fence(self, run: str) -> Fence | None:
        """To which the run's writes are held; None = it is not this server's. From any thread."""
        epoch = self._epochs.get(run)
        return None if epoch is None else Fence(epoch, self._own, self._milliseconds)

    def epoch(self, run: str) -> int | None:
        epoch = self._epochs.get(run)
        return None if epoch is None else int(epoch.partition("-")[0])

    def take(self, run: str) -> Held | None:
        if run in self._epochs:
            return None
        if refusal := self._refused(run):
            return refusal
        calls = {run: self._call(run, "take", secrets.token_hex(8))}
        ((reply,),) = self._connection.send(calls, self._replicas).values()
        answer = self._checked(reply)
        if answer[0] == b"OTHER":
            return self._refuse(run, _held(answer))
        with self._changing:
            self._epochs = {**self._epochs, run: answer[1].decode()}
        return None

    def renew(self) -> Mapping[str, Held]:
        asked = self._epochs
        calls = {run: self._call(run, "renew", epoch) for run, epoch in asked.items()}
        replies = self._connection.send(calls, 0)
        answers = {run: reply for run, (reply,) in replies.items() if not isinstance(reply, Exception)}
        lost = {run: _held(answer) for run, answer in answers.items() if answer[0] == b"OTHER"}
        with self._changing:
            # What was let go of meanwhile, or taken anew, is not what was asked for.
            lost = {run: held for run, held in lost.items() if self._epochs.get(run) == asked[run]}
            self._epochs = {run: epoch for run, epoch in self._epochs.items() if run not in lost}
        if not lost:
            for (reply,) in replies.values():
                self._checked(reply)
        return lost

    def release(self, runs: Iterable[str]) -> None:
        with self._changing:
            going = {run: self._epochs[run] for run in runs if run in self._epochs}
            self._epochs = {run: epoch for run, epoch in self._epochs.items() if run not in going}
        calls = {run: self._call(run, "release", epoch) for run, epoch in going.items()}
        for (reply,) in self._connection.send(calls, 0).values():
            self._checked(reply)

    def close(self) -> None:
        """Let go of all connections; what is held runs out."""
        self._connection.close()

    @property
    def _milliseconds(self) -> int:
        return round(1000 * self._seconds)

    def _call(self, run: str, what: str, epoch: str) -> list[Call]:
        names = (key(run, "lease"), key(run, "run"))
        return [("EVAL", _SCRIPT, len(names), *names, what, self._own, epoch, self._milliseconds)]

    def _checked(self, reply: Any) -> Any:
        """Raises StoreError for an error that is a reply."""
        if isinstance(reply, Exception):
            raise self._connection.failure("write to", reply) from reply
        return reply

    def _refused(self, run: str) -> Held | None:
        """What was said of the run a moment ago."""
        if run not in self._refusals:
            return None
        said_at, held = self._refusals[run]
        age = time.monotonic() - said_at
        if age < min(held.seconds, REFUSAL_SECONDS):
            return Held(held.owner, held.seconds - age)
        del self._refusals[run]
        return None

    def _refuse(self, run: str, held: Held) -> Held:
        self._refusals[run] = time.monotonic(), held
        if len(self._refusals) > _MOST_REFUSALS:
            del self._refusals[next(iter(self._refusals))]
        return held


def _held(answer: Any) -> Held:
    """By an answer OTHER of the script."""
    return Held(answer[1].decode(), answer[2] / 1000)
