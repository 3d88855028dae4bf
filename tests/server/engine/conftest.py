"""An engine on a real store, with clocks and a disk that a test can hold."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pathwatch.client.tensors import to_tensor
from pathwatch.server.config import Limits
from pathwatch.server.engine.clock import Clock
from pathwatch.server.engine.decode import Topology, decode_batch, decode_geometry
from pathwatch.server.engine.engine import Engine
from pathwatch.server.engine.refusal import RefusedError
from pathwatch.server.engine.stored_batch import stored_batch
from pathwatch.server.engine.streams import (
    Ack,
    Batch,
    End,
    Message,
    RankStream,
    RouterGeometry,
    Watermark,
)
from pathwatch.server.engine.view import RunView
from pathwatch.server.store.interface import StoreError
from pathwatch.server.store.leases import Leases
from pathwatch.server.store.rows import Write
from pathwatch.server.store.sqlite import SqliteStore
from pathwatch.v1 import routing_pb2, run_pb2

LAYERS, EXPERTS = 2, 4


class FailingStore(SqliteStore):
    """A disk that is full while `full` is set."""

    full = False

    def commit(self, writes: Sequence[Write]) -> None:
        if self.full:
            raise StoreError("cannot write: database or disk is full")
        super().commit(writes)


@dataclass
class Rank:
    """A rank's stream, spoken by hand."""

    engine: Engine
    stream: RankStream
    events: list[Ack | End]
    sequence: int = 0

    def send(self, payload: Batch | RouterGeometry | Watermark | RefusedError, sequence: int = 0) -> int:
        """Sends as the next message, or again under an older sequence."""
        if not sequence:
            self.sequence += 1
        observations = payload.block.observations if isinstance(payload, Batch) else 0
        message = Message(
            stream=self.stream,
            sequence=sequence or self.sequence,
            payload=payload,
            size=100,
            observations=observations,
        )
        self.engine.ingest(message)
        return message.sequence

    def observe(self, message: routing_pb2.ObservationBatch, sequence: int = 0) -> int:
        topology = Topology(layers=LAYERS, experts=EXPERTS, limits=Limits())
        block = decode_batch(message, self.stream.attempt, topology, self.stream.admit)
        return self.send(Batch(block=block, serialized=stored_batch(message, block)), sequence)

    def geometry(self, step: int) -> int:
        rows = np.random.default_rng(step).normal(size=(LAYERS, EXPERTS, 8)).astype(np.float32)
        message = routing_pb2.ExpertGeometry(
            step=step,
            gram_self=to_tensor(rows @ rows.swapaxes(1, 2)),
            gram_next=to_tensor(rows[:-1] @ rows[1:].swapaxes(1, 2)),
        )
        topology = Topology(layers=LAYERS, experts=EXPERTS, limits=Limits())
        decoded = decode_geometry(message, topology)
        return self.send(RouterGeometry(geometry=decoded, serialized=message.SerializeToString()))

    def watermark(self, step: int, sequence: int = 0, *, dropped: int = 0) -> int:
        return self.send(Watermark(step=step, dropped=dropped), sequence)

    @property
    def acked(self) -> int:
        return max((event.sequence for event in self.events if isinstance(event, Ack)), default=0)

    @property
    def rejected(self) -> list[RefusedError]:
        acks = [event for event in self.events if isinstance(event, Ack)]
        return [rejected.refusal for ack in acks for rejected in ack.rejected]

    @property
    def ended(self) -> RefusedError | None:
        return next((event.refusal for event in self.events if isinstance(event, End)), None)

    @property
    def last_ack(self) -> Ack:
        return [event for event in self.events if isinstance(event, Ack)][-1]


@dataclass
class Bench:
    """An engine that can be stopped and started again."""

    folder: Path
    limits: Limits = field(default_factory=Limits)
    wall: float = 1_700_000_000.0
    steady: float = 0.0
    open_store: Callable[[Path], Any] = FailingStore
    leases: Leases | None = None
    store: Any = field(init=False)
    engine: Engine = field(init=False)

    def start(self) -> None:
        self.store = self.open_store(self.folder)
        clock = Clock(wall=lambda: self.wall, steady=lambda: self.steady)
        self.engine = Engine(self.store, limits=self.limits, clock=clock, leases=self.leases)
        self.engine.start()

    def stop(self) -> None:
        self.engine.stop()
        self.store.close()

    def restart(self) -> None:
        self.stop()
        self.start()

    def create(self, name: str = "run", *, attempt: int = 0, **config: object) -> run_pb2.Run:
        fields: dict[str, object] = {"topology": run_pb2.Topology(layers=LAYERS, experts=EXPERTS)} | config
        run, _ = self.engine.create_run(name, run_pb2.RunConfig(**fields), attempt).result(30)  # type: ignore[arg-type]
        return run

    def join(
        self,
        rank: int = 0,
        world_size: int = 1,
        *,
        attempt: int = 0,
        session: str = "life",
        run: str = "run",
        told_dropped: int = 0,
    ) -> Rank:
        events: list[Ack | End] = []
        stream = RankStream(
            run=run,
            attempt=attempt,
            rank=rank,
            world_size=world_size,
            session=session,
            deliver=events.append,
            told_dropped=told_dropped,
        )
        self.engine.hello(stream).result(30)
        return Rank(self.engine, stream, events)

    def view(self, run: str = "run") -> RunView:
        return self.engine.views[run]

    def at_rest(self) -> bool:
        """Whether nothing is computed or waits to be, so that both threads are there for what comes."""
        return self.engine._pool._under_way == 0

    def pass_time(self, seconds: float) -> None:
        """Moves both clocks and makes the engine look at them."""
        self.wall += seconds
        self.steady += seconds
        self.engine.rank_checkpoints("nobody", None, 0).exception(30)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path / "data")
    bench.start()
    yield bench
    bench.store.full = False
    bench.stop()


@pytest.fixture
def make_bench(tmp_path: Path) -> Iterator[Callable[..., Bench]]:
    """Further engines, each with a folder of its own."""
    made: list[Bench] = []

    def make(**options: object) -> Bench:
        bench = Bench(tmp_path / f"data-{len(made)}", **options)  # type: ignore[arg-type]
        bench.start()
        made.append(bench)
        return bench

    yield make
    for bench in made:
        bench.stop()
