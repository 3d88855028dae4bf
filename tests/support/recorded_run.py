"""A recorded run, played to a server through the real client as far as a test wants it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

import numpy as np

from pathwatch.client import Client, RoutingStream
from pathwatch.server.cli.playback import step_batches
from pathwatch.server.traces import Trace, load_trace
from pathwatch.v1 import run_pb2

TRACES = Path(__file__).parents[1] / "data" / "traces"
PATIENCE_SECONDS = 120.0
LASTING = 3600.0
"""As `grace_seconds`: the run does not go stale while tests look at it, however long that takes them."""


def recorded(name: str) -> Trace:
    """One of tests/data/traces."""
    return load_trace(TRACES / f"{name}.npz")


def made_up(steps: int, seed: int, *, groups: Sequence[str] = ("code", "math")) -> Trace:
    """A run of little data, which takes no time to judge."""
    random = np.random.default_rng(seed)
    shape = (steps, len(groups), 16)
    fall_T = 1 / (1 + np.arange(steps))
    return Trace(
        name=f"made-up-{seed}",
        steps_T=25 * np.arange(steps, dtype=np.int64),
        groups=tuple(groups),
        losses_TGN=(random.gamma(2, 1, shape) * fall_T[:, None, None]).astype(np.float32),
        weights_TGNLK=random.dirichlet(np.ones(4), (*shape, 2)).astype(np.float32),
        meta={},
    )


class RecordedRun:
    """The one rank of a run, and the registrar of its checkpoints: a step is one of the trace's.

    A context manager: the stream is closed at the end, the run is not finished.
    """

    def __init__(
        self,
        address: str,
        name: str,
        trace: Trace,
        *,
        attempt: int = 0,
        first: int = 0,
        world_size: int = 1,
        grace_seconds: float = 0,
        per_layer: bool = False,
    ) -> None:
        """`first`: how many steps of the trace are left out. `world_size` above one: the other ranks never
        come. `grace_seconds`: 0 = the service's default."""
        self.name = name
        self._address = address
        self._trace = trace
        self._attempt = attempt
        self._next = first
        config = run_pb2.RunConfig(
            topology=run_pb2.Topology(layers=trace.layers, experts=trace.experts),
            mode=run_pb2.OBSERVATION_MODE_PROBE,
            per_layer=per_layer,
            grace_seconds=grace_seconds,
        )
        with self._client() as client:
            client.create_run(name, config, attempt=attempt)
        self._stream = RoutingStream(address, run=name, attempt=attempt, world_size=world_size)

    def __enter__(self) -> RecordedRun:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stream.close()

    @property
    def steps_left(self) -> int:
        """Of the trace."""
        return len(self._trace.steps_T) - self._next

    def send(self, count: int | None = None) -> None:
        """The next so many steps of the trace, else all that are left."""
        end = len(self._trace.steps_T) if count is None else self._next + count
        assert end <= len(self._trace.steps_T), "the trace has no such steps"
        for index in range(self._next, end):
            self._send_step(index)
        self._next = end

    def play(self, count: int | None = None) -> None:
        """Sends, and waits until what was sent is judged."""
        self.send(count)
        self.wait_judged()

    def wait_judged(self) -> None:
        """Until all that was sent is."""
        last = int(self._trace.steps_T[self._next - 1])
        deadline = time.monotonic() + PATIENCE_SECONDS
        with self._client() as client:
            while (run := client.get_run(self.name)).closed_step < last or run.attempt != self._attempt:
                assert time.monotonic() < deadline, f"{run.name} is judged up to {run.closed_step} of {last}"
                time.sleep(0.02)

    def wait_stale(self) -> None:
        """Until its signal is; as nothing more is sent it stays so."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        with self._client() as client:
            while not client.get_signal(self.name).stale:
                assert time.monotonic() < deadline, f"{self.name} does not go stale"
                time.sleep(0.02)

    def finish(self) -> None:
        """No more data will come."""
        with self._client() as client:
            client.finish_run(self.name)

    def _client(self) -> Client:
        """As patient as the rest."""
        return Client(self._address, timeout=PATIENCE_SECONDS)

    def _send_step(self, index: int) -> None:
        trace, step = self._trace, int(self._trace.steps_T[index])
        if trace.gram_self_TLKK is not None and trace.gram_next_TLKK is not None:
            self._stream.geometry(
                step=step, gram_self=trace.gram_self_TLKK[index], gram_next=trace.gram_next_TLKK[index]
            )
        for batch in step_batches(trace, index):
            self._stream.observe(
                step=step,
                group=batch.group,
                sample_ids=batch.sample_ids_N,
                weights=batch.weights_NLK,
                target_weights=batch.target_weights_NLK,
                losses=batch.losses_N,
                targets=batch.targets_N,
                visits=batch.visits_N,
            )
        self._stream.register_checkpoint(step=step, tag=f"step-{step}")
        self._stream.watermark(step)
