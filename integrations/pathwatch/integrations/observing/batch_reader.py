"""Stream mode: observes training's own forward passes, of batches that the job has described."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from pathwatch.integrations.capture import Recording, RouterRecorder, reduce_reading
from pathwatch.integrations.observing.guard import Guard
from pathwatch.integrations.observing.job import Job
from pathwatch.integrations.observing.layout import Layout
from pathwatch.integrations.observing.outbox import Outbox, send_reading
from pathwatch.integrations.observing.outputs import logits_of
from pathwatch.integrations.observing.sender import Sender
from pathwatch.integrations.observing.stream import TrainingBatch


class BatchReader:
    """Observes training's own forward passes, of batches that the job has described."""

    def __init__(
        self,
        job: Job,
        layout: Layout,
        recorder: RouterRecorder,
        outbox: Outbox,
        sender: Callable[[], Sender],
        guard: Guard,
    ) -> None:
        self._job = job
        self._layout = layout
        self._recorder = recorder
        self._outbox = outbox
        self._sender = sender
        self._guard = guard
        self._next: TrainingBatch | None = None
        self._running: tuple[TrainingBatch, Recording] | None = None
        self._handles = [
            job.module.register_forward_pre_hook(self._before),
            job.module.register_forward_hook(self._after),
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
        step = self._job.step
        with self._guard(f"observing a training batch at step {step}"):
            # Only the last stage of a pipeline gives logits; what the others give may look like some.
            reading = reduce_reading(recording, logits_of(output) if self._layout.losses else None)
            sender = self._sender()
            self._outbox.add(
                reading.packed_NX,
                lambda flat: send_reading(
                    sender,
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
