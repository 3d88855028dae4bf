"""The two ways of observing a DeepSpeed engine: re-reading a probe, or watching training batches go by."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pathwatch.client import RoutingStream
from pathwatch.integrations.capture import Reading, Recording, RouterRecorder, reduce_reading, undisturbed
from pathwatch.integrations.deepspeed.agreement import Agreement
from pathwatch.integrations.deepspeed.guard import Guard
from pathwatch.integrations.deepspeed.outbox import Floats, Outbox, send_reading
from pathwatch.integrations.deepspeed.probe import Probe, ProbeBatch, VisitCounter, shard
from pathwatch.integrations.deepspeed.stream import TrainingBatch

if TYPE_CHECKING:
    from deepspeed import DeepSpeedEngine


def logits_of(output: object) -> Tensor | None:
    """Logits of an output: `.logits`, a tuple's first item, or itself; None if not [B, S, V]."""
    found = getattr(output, "logits", None)
    if found is None:
        found = output[0] if isinstance(output, tuple | list) and output else output
    return found if isinstance(found, Tensor) and found.ndim == 3 else None


class ProbeReader:
    """Re-reads this rank's share of the probe in evaluation mode."""

    def __init__(
        self, engine: DeepSpeedEngine, recorder: RouterRecorder, probe: Probe, agreement: Agreement
    ) -> None:
        self._engine = engine
        self._recorder = recorder
        self._probe = probe
        self._agreement = agreement
        self._batches = shard(probe, agreement.rank, agreement.world_size, engine.device)
        # A resumed job does not know what it was trained on before.
        counts = probe.visits and engine.global_steps == 0
        self.visits = (
            VisitCounter({name: g.sample_ids for name, g in probe.groups.items()}) if counts else None
        )

    def read(self, step: int, stream: RoutingStream, outbox: Outbox, guard: Guard) -> None:
        """Observe the probe at `step`. Collective."""
        visits = None if self.visits is None else self.visits.split(self._agreement.total(self.visits.flat()))
        with guard(f"reading the probe at step {step}"), undisturbed(self._engine.module):
            readings = [(batch, self._run(batch)) for batch in self._batches]
            widths = [reading.packed_NX.numel() for _, reading in readings]

            def send(flat: Floats) -> None:
                parts = np.split(flat, np.cumsum(widths)[:-1])
                for (batch, reading), part in zip(readings, parts, strict=True):
                    kept = len(batch.positions)
                    send_reading(
                        stream,
                        step=step,
                        reading=reading,
                        packed_NX=part.reshape(reading.packed_NX.shape),
                        rows_by_group={batch.group: np.arange(kept)},
                        sample_ids_N=batch.sample_ids.numpy(),
                        visits_N=None
                        if visits is None
                        else visits[batch.group][batch.positions].numpy().astype(np.int32),
                    )

            outbox.add(torch.cat([reading.packed_NX.flatten() for _, reading in readings]), send)

    def _run(self, batch: ProbeBatch) -> Reading:
        with self._recorder.recording(batch.selection) as recording:
            forward = self._probe.forward
            logits = (
                forward(self._engine, batch.inputs) if forward else logits_of(self._engine(**batch.inputs))
            )
        return reduce_reading(recording, logits)


class BatchReader:
    """Observes training's own forward passes, of batches that the job has described."""

    def __init__(
        self,
        engine: DeepSpeedEngine,
        recorder: RouterRecorder,
        outbox: Outbox,
        stream: Callable[[], RoutingStream],
        guard: Guard,
    ) -> None:
        self._engine = engine
        self._recorder = recorder
        self._outbox = outbox
        self._stream = stream
        self._guard = guard
        self._next: TrainingBatch | None = None
        self._running: tuple[TrainingBatch, Recording] | None = None
        self._handles = [
            engine.module.register_forward_pre_hook(self._before),
            engine.module.register_forward_hook(self._after),
        ]

    def expect(self, batch: TrainingBatch) -> None:
        """The next training forward pass is of this batch."""
        self._next = batch

    def close(self) -> None:
        """Take the hooks off."""
        for handle in self._handles:
            handle.remove()

    def _before(self, module: torch.nn.Module, args: object) -> None:
        batch = self._next
        if batch is None or not module.training or self._guard.failed:
            return
        self._next = None
        self._running = (batch, self._recorder.begin(batch.selection))

    def _after(self, module: torch.nn.Module, args: object, output: object) -> None:
        self._recorder.end()
        running, self._running = self._running, None
        if running is None:
            return
        batch, recording = running
        step = self._engine.global_steps
        with self._guard(f"observing a training batch at step {step}"):
            reading = reduce_reading(recording, logits_of(output))
            stream = self._stream()
            self._outbox.add(
                reading.packed_NX,
                lambda flat: send_reading(
                    stream,
                    step=step,
                    reading=reading,
                    packed_NX=flat,
                    rows_by_group=_rows_by_group(batch.groups),
                    sample_ids_N=batch.sample_ids.numpy(),
                    visits_N=None if batch.visits is None else batch.visits.numpy(),
                ),
            )


def _rows_by_group(groups: Sequence[str | None]) -> Mapping[str, NDArray[np.int64]]:
    names = np.array(["" if name is None else name for name in groups])
    return {name: np.flatnonzero(names == name) for name in dict.fromkeys(groups) if name is not None}
