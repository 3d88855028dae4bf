"""An engine of which a test holds everything in hand: both clocks, the disk, and each piece of computing."""

from __future__ import annotations

import shutil
import tempfile
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any

from sample_pieces import EXPERTS, LAYERS

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
from pathwatch.server.store.interface import StoreError
from pathwatch.server.store.rows import Write
from pathwatch.server.store.sqlite import SqliteStore
from pathwatch.v1 import routing_pb2

TIMEOUT = 30.0
TOPOLOGY = Topology(layers=LAYERS, experts=EXPERTS, limits=Limits())
Sent = routing_pb2.ObservationBatch | routing_pb2.ExpertGeometry | int
"""What a rank sends; an integer is a watermark."""

_MEMORY = Path("/dev/shm")  # noqa: S108  # a crash of this process is not what is tested here


class HeldStore(SqliteStore):
    """A disk that takes nothing while `full` is set."""

    full = False

    def commit(self, writes: Sequence[Write]) -> None:
        if self.full:
            raise StoreError("cannot write: database or disk is full")
        super().commit(writes)


class HeldPool(Executor):
    """Does nothing until told."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[Future[Any], Callable[[], Any]]] = deque()

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        self._waiting.append((future, lambda: fn(*args, **kwargs)))
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        for future, _ in self._waiting:
            future.cancel()
        self._waiting.clear()

    def run_one(self) -> bool:
        """Do the oldest piece of work in this thread; False if there is none."""
        if not self._waiting:
            return False
        future, work = self._waiting.popleft()
        try:
            future.set_result(work())
        except Exception as error:
            future.set_exception(error)
        return True


class HeldStream:
    """An open stream of a rank and what came back on it."""

    def __init__(self, engine: Engine, stream: RankStream, events: list[Ack | End]) -> None:
        self.engine = engine
        self.stream = stream
        self._events = events

    @property
    def ended(self) -> RefusedError | None:
        return next((event.refusal for event in self._events if isinstance(event, End)), None)

    @property
    def acked(self) -> int:
        return max((event.sequence for event in self._events if isinstance(event, Ack)), default=0)

    def refused(self, sequence: int) -> RefusedError | None:
        rejected = [one for event in self._events if isinstance(event, Ack) for one in event.rejected]
        return next((one.refusal for one in rejected if one.sequence == sequence), None)

    def send(self, sequence: int, sent: Sent) -> None:
        payload: Batch | RouterGeometry | Watermark
        observations = 0
        if isinstance(sent, int):
            payload = Watermark(step=sent)
        elif isinstance(sent, routing_pb2.ObservationBatch):
            block = decode_batch(sent, self.stream.attempt, TOPOLOGY, self.stream.admit)
            payload = Batch(block=block, serialized=stored_batch(sent, block))
            observations = block.observations
        else:
            payload = RouterGeometry(
                geometry=decode_geometry(sent, TOPOLOGY), serialized=sent.SerializeToString()
            )
        self.engine.ingest(
            Message(
                stream=self.stream, sequence=sequence, payload=payload, size=100, observations=observations
            )
        )


class HeldEngine:
    """Started from the beginning; `close` takes everything away."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(dir=_MEMORY if _MEMORY.is_dir() else None))
        self.wall = 1_700_000_000.0
        self.steady = 0.0
        self._start()

    def _start(self) -> None:
        self.store = HeldStore(self.folder)
        self.pool = HeldPool()
        clock = Clock(wall=lambda: self.wall, steady=lambda: self.steady)
        self.engine = Engine(self.store, limits=Limits(), clock=clock, pool=self.pool)
        self.engine.start()
        self.pool.run_one()  # the imports of the first run

    def settle(self) -> None:
        """Returns once all that was submitted is applied and committed, unless the disk is full."""
        for _ in range(2):  # the second is taken after the first one's batch was committed
            nobody = RankStream(
                run="run", attempt=-1, rank=0, world_size=1, session="-", deliver=lambda _: None
            )
            self.engine.hello(nobody).exception(TIMEOUT)

    def open(self, rank: int, world_size: int, attempt: int, session: str) -> HeldStream:
        """Raises RefusedError."""
        events: list[Ack | End] = []
        stream = RankStream(
            run="run",
            attempt=attempt,
            rank=rank,
            world_size=world_size,
            session=session,
            deliver=events.append,
        )
        self.engine.hello(stream).result(TIMEOUT)
        self.settle()
        return HeldStream(self.engine, stream, events)

    def compute(self, pieces: int | None = None) -> None:
        """Do so many pieces of computing (None = all there are), each brought in before the next."""
        while pieces is None or pieces > 0:
            if not self.pool.run_one():
                return
            self.settle()
            pieces = None if pieces is None else pieces - 1

    def crash(self) -> None:
        """Everything that is not committed is gone; start again on what is."""
        self.store.full = True  # whatever the engine still does, nothing of it gets out
        self.engine.stop()
        self.store.close()
        self._start()
        self.settle()

    def close(self) -> None:
        self.store.full = True
        self.engine.stop()
        self.store.close()
        shutil.rmtree(self.folder)
