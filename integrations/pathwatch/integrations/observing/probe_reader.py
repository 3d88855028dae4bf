"""Probe mode: re-reads this process's share of the probe."""

from __future__ import annotations

import numpy as np
import torch

from pathwatch.integrations.capture import Reading, RouterRecorder, reduce_reading, undisturbed
from pathwatch.integrations.observing.agreement import Agreement
from pathwatch.integrations.observing.guard import Guard
from pathwatch.integrations.observing.job import Job
from pathwatch.integrations.observing.layout import Layout
from pathwatch.integrations.observing.outbox import Floats, Outbox, send_reading
from pathwatch.integrations.observing.outputs import logits_of
from pathwatch.integrations.observing.probe import Probe, ProbeBatch, shard
from pathwatch.integrations.observing.sender import Sender
from pathwatch.integrations.observing.visits import VisitCounter


class ProbeReader:
    """Re-reads this rank's share of the probe in evaluation mode."""

    def __init__(
        self, job: Job, layout: Layout, recorder: RouterRecorder, probe: Probe, agreement: Agreement
    ) -> None:
        self._job = job
        self._recorder = recorder
        self._probe = probe
        self._agreement = agreement
        self._batches = shard(probe, layout.data_rank, layout.data_ranks, job.device)
        # A resumed job does not know what it was trained on before.
        counts = probe.visits and job.step == 0
        self.visits = (
            VisitCounter({name: g.sample_ids for name, g in probe.groups.items()}) if counts else None
        )

    def read(self, step: int, sender: Sender, outbox: Outbox, guard: Guard) -> None:
        """Observe the probe at `step`. Collective."""
        visits = None if self.visits is None else self.visits.split(self._agreement.total(self.visits.flat()))
        with guard(f"reading the probe at step {step}"), undisturbed(self._job.module):
            readings = [(batch, self._run(batch)) for batch in self._batches]
            widths = [reading.packed_NX.numel() for _, reading in readings]

            def send(flat: Floats) -> None:
                parts = np.split(flat, np.cumsum(widths)[:-1])
                for (batch, reading), part in zip(readings, parts, strict=True):
                    kept = len(batch.positions)
                    send_reading(
                        sender,
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
                forward(self._job.module, batch.inputs)
                if forward
                else logits_of(self._job.forward(batch.inputs))
            )
        return reduce_reading(recording, logits)
