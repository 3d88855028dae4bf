"""Servers take, renew, lose, let go of and write a run, in any order, while its lease runs out and Redis
forgets what became of it: at most one of them writes, as a model says that knows no Redis."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from itertools import count
from random import Random

import pytest
from redis_process import RedisProcess

from pathwatch.server.config import RedisOptions
from pathwatch.server.config.redis import parse_redis_url
from pathwatch.server.store import redis_leases
from pathwatch.server.store.interface import FencedError
from pathwatch.server.store.redis import RedisStore
from pathwatch.server.store.redis_keys import key
from pathwatch.server.store.redis_leases import RedisLeases
from pathwatch.server.store.rows import BatchRow, PutBatch

CALM = RedisOptions(timeout_seconds=30)
LEASE = key("run", "lease")
SERVERS = ("a:1", "b:1", "c:1")
COURSES, STEPS = 60, 40


@dataclass(frozen=True)
class Taking:
    """One that was granted; no two are the same."""

    number: int
    by: str
    nth: int


NOBODYS = Taking(0, "", 0)


@dataclass
class Model:
    newest: Taking = NOBODYS
    is_free: bool = True
    """Let go of, or run out."""
    written: list[bytes] = field(default_factory=list)
    has: dict[str, Taking] = field(default_factory=dict)
    """By server, what it takes itself to have."""
    read: dict[str, int] = field(default_factory=dict)
    """By server, how much was written when it last knew all."""

    def is_of(self, server: str) -> bool:
        """Whether what the server has is in force; where Redis has forgotten it, and nobody else has the run
        by now, it is again."""
        own = self.has.get(server)
        if own is None:
            return False
        if self.newest.number < own.number and (self.is_free or self.newest.by == server):
            self.newest, self.is_free = own, False
        return self.newest == own

    def may_write(self, server: str) -> bool:
        """So it is where somebody else seems to have the run, but nobody else has written."""
        own = self.has.get(server)
        if own is None or self.read[server] != len(self.written) or self.newest.number > own.number:
            return False
        if self.newest.number < own.number:
            self.newest, self.is_free = own, False
        return self.newest == own


class Course:
    def __init__(self, redis: RedisProcess) -> None:
        self._opened = ExitStack()
        self._client = self._opened.enter_context(redis.client())
        self._client.flushall()
        address = parse_redis_url(redis.url)
        self._leases = {
            own: self._opened.enter_context(closing(RedisLeases(address, CALM, own=own, seconds=250)))
            for own in SERVERS
        }
        self._stores = {
            own: self._opened.enter_context(closing(RedisStore(address, CALM, fence=leases.fence)))
            for own, leases in self._leases.items()
        }
        self._model = Model()
        self._numbers = count(1)
        self.remember()

    def close(self) -> None:
        self._opened.close()

    def go(self, chance: Random) -> None:
        """One step, and what must be so after each."""
        of_a_server = (self.take, self.write, self.write, self.renew, self.let_go)
        of_redis = (self.run_out, self.remember, self.forget)
        if chance.random() < 0.7:
            chance.choice(of_a_server)(chance.choice(SERVERS))
        else:
            chance.choice(of_redis)()
        assert [row.batch for row in self._stores["a:1"].batches("run")] == self._model.written
        holders = {own for own, leases in self._leases.items() if leases.held}
        assert holders == self._model.has.keys()

    def take(self, server: str) -> None:
        model = self._model
        found = self._leases[server].take("run")
        if server in model.has:
            assert found is None
        elif not model.is_free and model.newest.by != server:
            assert found is not None
            assert found.owner == model.newest.by
            assert 0 < found.seconds <= 250
        else:
            assert found is None
            taking = Taking(model.newest.number + 1, server, next(self._numbers))
            model.newest, model.is_free, model.has[server] = taking, False, taking
            self._stores[server].take_up("run")
            model.read[server] = len(model.written)

    def renew(self, server: str) -> None:
        model = self._model
        found = self._leases[server].renew()
        if model.is_of(server):
            model.is_free = False
            assert found == {}
        elif model.has.pop(server, None):
            self._stores[server].let_go("run")
            # Who has let go of it is nobody to be sent to.
            assert found["run"].owner in (model.newest.by, "")
        else:
            assert found == {}

    def write(self, server: str) -> None:
        model = self._model
        content = b"%d" % next(self._numbers)
        may = model.may_write(server)
        try:
            self._stores[server].commit([PutBatch(row=BatchRow(run="run", attempt=0, step=1, batch=content))])
        except FencedError:
            assert not may
            self.let_go(server)
            return
        assert may
        model.written.append(content)
        model.read[server] += 1

    def let_go(self, server: str) -> None:
        if self._model.is_of(server):
            self._model.is_free = True
        self._model.has.pop(server, None)
        self._leases[server].release(["run"])
        self._stores[server].let_go("run")

    def run_out(self) -> None:
        if self._client.exists(LEASE):
            self._client.hset(LEASE, "until", 1)
            self._model.is_free = True

    def remember(self) -> None:
        self._replica = self._model.newest, self._model.is_free, self._client.dump(LEASE)

    def forget(self) -> None:
        """A replica takes over that has all of the run, but of the lease what it was once."""
        self._model.newest, self._model.is_free, lease = self._replica
        self._client.delete(LEASE)
        if lease is not None:
            self._client.restore(LEASE, 0, lease)


@pytest.fixture
def course(redis_server: RedisProcess, monkeypatch: pytest.MonkeyPatch) -> Iterator[Course]:
    monkeypatch.setattr(redis_leases, "REFUSAL_SECONDS", 0.0)
    with closing(Course(redis_server)) as course:
        yield course


@pytest.mark.parametrize("seed", range(COURSES))
def test_at_most_one_server_writes_a_run(course: Course, seed: int) -> None:
    chance = Random(seed)  # noqa: S311
    for _ in range(STEPS):
        course.go(chance)
