"""Servers that share a Redis, as a user starts them; each can be killed, frozen and started again."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from job import persistently
from ports import lasting_port
from redis_deployments import OneRedis
from serving import Serving

from pathwatch.v1 import run_pb2

SHARDS = 3
LEASE_SECONDS = 5.0
PATIENCE_SECONDS = 120.0


@dataclass
class Shard:
    """One of them, in its present life."""

    address: str
    """Where clients and other shards reach it: who it is."""
    listen: str
    store: str
    folder: Path
    serving: Serving | None = None

    @property
    def log(self) -> str:
        """What it has said in all its lives."""
        return (self.folder / "log").read_text()

    @property
    def process(self) -> Serving:
        """Its present life."""
        assert self.serving is not None
        return self.serving


class Shards:
    """A context manager: all run while it is open."""

    def __init__(
        self,
        folder: Path,
        redis: OneRedis,
        *options: str,
        listen: Sequence[str] = (),
        addresses: Sequence[str] = (),
        stores: Sequence[str] = (),
    ) -> None:
        """`addresses`: where each is reached, if not where it listens; `stores`: where it reaches Redis, if
        not at `redis`; `options` of all of them."""
        self._redis = redis
        self._options = ("--lease-seconds", str(LEASE_SECONDS), *options)
        places = [*listen] or [f"127.0.0.1:{lasting_port()}" for _ in range(SHARDS)]
        self.shards = [
            Shard(
                address=addresses[n] if addresses else place,
                listen=place,
                store=stores[n] if stores else redis.url,
                folder=folder / f"shard-{n}",
            )
            for n, place in enumerate(places)
        ]

    @property
    def address(self) -> str:
        """As clients are given it."""
        return ",".join(shard.address for shard in self.shards)

    def start(self, shard: Shard) -> None:
        """Start, and wait until it answers."""
        shard.folder.mkdir(exist_ok=True)
        options = ("--store", shard.store, "--shard", shard.address, *self._options)
        shard.serving = Serving(shard.folder / "data", shard.folder / "log", *options, listen=shard.listen)

    def kill(self, shard: Shard) -> float:
        """SIGKILL; when it was done, by the monotonic clock."""
        shard.process.kill()
        return time.monotonic()

    def end(self, shard: Shard) -> None:
        """SIGTERM, and wait until it has drained."""
        shard.process.stop()

    def freeze(self, shard: Shard) -> None:
        """SIGSTOP: connections stay open, nothing is answered."""
        os.kill(shard.process.process.pid, signal.SIGSTOP)

    def thaw(self, shard: Shard) -> None:
        """Undo `freeze`."""
        os.kill(shard.process.process.pid, signal.SIGCONT)

    def create(self, runs: Mapping[str, run_pb2.RunConfig]) -> None:
        """Create the runs, each at the next shard in turn, so that every shard has some."""
        for n, (run, config) in enumerate(runs.items()):
            shard = self.shards[n % len(self.shards)]
            persistently(shard.address, lambda client, run=run, config=config: client.create_run(run, config))  # type: ignore[misc]
            assert self.owner(run) is shard

    def owner(self, run: str) -> Shard | None:
        """Which has a run, by what stands in Redis."""
        lease = self._lease(run)
        return next((shard for shard in self.shards if shard.address == lease.get("owner")), None)

    def epoch(self, run: str) -> int:
        """How often the run was taken."""
        return int(self._lease(run)["epoch"].partition("-")[0])

    def until(self, run: str) -> int:
        """When its lease runs out, in milliseconds of Redis's clock."""
        return int(self._lease(run)["until"])

    def wait_taken(self, run: str, former: Shard) -> Shard:
        """Until another has the run; which."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while (owner := self.owner(run)) in (None, former):
            assert time.monotonic() < deadline, f"nobody has taken run {run}"
            time.sleep(0.02)
        assert owner is not None
        return owner

    def have_taken(self, run: str, former: Shard) -> Shard:
        """Somebody asks the others for the run until another has it; which. Before the former's lease has run
        out they say that he has it, and he answers."""
        others = ",".join(shard.address for shard in self.shards if shard is not former)
        deadline = time.monotonic() + PATIENCE_SECONDS
        while (owner := self.owner(run)) in (None, former):
            assert time.monotonic() < deadline, f"nobody has taken run {run}"
            persistently(others, lambda client: client.get_run(run))
            time.sleep(0.1)
        assert owner is not None
        return owner

    def _lease(self, run: str) -> dict[str, str]:
        client: Any = self._redis.client()
        try:
            found = client.hgetall(f"pathwatch:{{{run}}}:lease")
        finally:
            client.close()
        return {name.decode(): value.decode() for name, value in found.items()}

    def __enter__(self) -> Shards:
        try:
            with ThreadPoolExecutor(len(self.shards)) as starting:
                list(starting.map(self.start, self.shards))
        except BaseException:
            self._kill_all()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._kill_all()
        if error is not None:
            for shard in self.shards:
                print(f"--- {shard.address}\n{shard.log[-6000:]}")
            return
        for shard in self.shards:
            assert "Traceback" not in shard.log, shard.log

    def _kill_all(self) -> None:
        for shard in self.shards:
            if shard.serving is not None:
                shard.serving.kill()
