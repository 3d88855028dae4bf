"""Probe mode: re-reads this process's share of the probe."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pathwatch.integrations.capture import Reading, RouterRecorder, reduce_reading, uncompiled, undisturbed
from pathwatch.integrations.deferred import DeferredSampler
from pathwatch.integrations.observing.agreement import Agreement
from pathwatch.integrations.observing.guard import Guard
from pathwatch.integrations.observing.job import Job
from pathwatch.integrations.observing.layout import Layout
from pathwatch.integrations.observing.outbox import Floats, Outbox, send_reading
from pathwatch.integrations.observing.outputs import logits_of
from pathwatch.integrations.observing.probe import Probe
from pathwatch.integrations.observing.probe_batches import ProbeBatch, shard
from pathwatch.integrations.observing.sender import Sender
from pathwatch.integrations.observing.token_parts import own_tokens
from pathwatch.integrations.observing.visits import VisitCounter


class ProbeReader:
    """Re-reads this rank's share of the probe in evaluation mode."""

    def __init__(
        self, job: Job, layout: Layout, recorder: RouterRecorder, probe: Probe, agreement: Agreement
    ) -> None:
        self._job = job
        self._recorder = recorder
        self._probe = probe
        if layout.layers is not None and probe.forward is not None:
            raise ValueError(
                "Probe(forward=...) cannot run a pipeline, of which a process holds one stage: leave it out"
            )
        self._batches = [
            own_tokens(batch, layout, job.module, probe.batch_size)
            for batch in shard(probe, layout.data_rank, layout.data_ranks, job.device)
        ]
        self._begun = False
        sample_ids = {name: group.sample_ids for name, group in probe.groups.items()}
        self._scheduled = (
            {name: probe.visits.visits(ids) for name, ids in sample_ids.items()}
            if isinstance(probe.visits, DeferredSampler)
            else None
        )
        self.visits = (
            VisitCounter(sample_ids, agreement, untrained=job.step == 0, counts=layout.first_of_replica)
            if probe.visits is True
            else None
        )

    def begin(self) -> None:
        """An attempt begins: the first, or one that went back to an earlier step.

        What was counted since that step is known only from a state, loaded before or after.
        """
        if self._begun and self.visits is not None:
            self.visits.forget()
        self._begun = True

    def state_dict(self) -> dict[str, Any]:
        """What a job that goes on from here needs to know. Collective."""
        return {} if self.visits is None else self.visits.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from the state of the step that the job is at."""
        if self.visits is not None:
            self.visits.load_state_dict(state)

    def read(self, step: int, sender: Sender, outbox: Outbox, guard: Guard) -> None:
        """Observe the probe at `step`. Collective."""
        visits = self._visits(step)
        with guard(f"reading the probe at step {step}"), undisturbed(self._job.module):
            readings: list[tuple[ProbeBatch, Reading]] = []
            problem: Exception | None = None
            for batch in self._batches:
                # One that fails here runs the passes left all the same: other ranks may wait for it in them.
                try:
                    readings.append((batch, self._run(batch)))
                except Exception as error:
                    problem = problem or error
            if problem is not None:
                raise problem
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

    def _visits(self, step: int) -> dict[str, Tensor] | None:
        """Visits [N] of each group's samples; None = not known. Collective where they are counted."""
        if self._scheduled is not None:
            return {name: scheduled.at(step) for name, scheduled in self._scheduled.items()}
        return None if self.visits is None else self.visits.total()

    def _run(self, batch: ProbeBatch) -> Reading:
        try:
            inputs = batch.inputs_on(self._job.device)
            selection = batch.selection_on(self._job.device)
            with uncompiled(), self._recorder.recording(selection) as recording:
                forward = self._probe.forward
                logits = (
                    forward(self._job.module, inputs) if forward else logits_of(self._job.forward(inputs))
                )
            return reduce_reading(recording, logits)
        except torch.OutOfMemoryError as error:
            rows, length = batch.shape
            raise RuntimeError(
                f"out of memory re-reading {rows} probe samples of {length} tokens at once: "
                f"give Probe(batch_size=...) a number below {rows}"
            ) from error
