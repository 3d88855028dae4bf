"""Stream mode: observes training's own forward passes."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from contextlib import ExitStack, nullcontext
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pathwatch.integrations.capture import (
    Reading,
    Recording,
    Router,
    RouterRecorder,
    TokenLosses,
    keeping_losses,
    matching_losses,
    reduce_reading,
    uncompiled,
)
from pathwatch.integrations.observing.forward_inputs import ForwardInputs
from pathwatch.integrations.observing.guard import Guard
from pathwatch.integrations.observing.host_reading import unpack
from pathwatch.integrations.observing.job import Job
from pathwatch.integrations.observing.layout import Layout
from pathwatch.integrations.observing.losing import Losing
from pathwatch.integrations.observing.module_calls import Call, ModuleCalls
from pathwatch.integrations.observing.outbox import Floats, Outbox, send_reading
from pathwatch.integrations.observing.outputs import logits_of
from pathwatch.integrations.observing.sender import Sender
from pathwatch.integrations.observing.stream import Stream, TrainingBatch
from pathwatch.integrations.observing.token_parts import readable


class BatchReader:
    """Observes the training forward passes of every `interval`-th optimizer step.

    A pass is training's if the module is in training mode and gradients are on. Its batch is the next that
    the job described, else what its inputs say.
    """

    def __init__(
        self,
        job: Job,
        layout: Layout,
        recorder: RouterRecorder,
        outbox: Outbox,
        sender: Callable[[], Sender],
        guard: Guard,
        mode: Stream,
        find: Callable[[], list[Router]],
    ) -> None:
        """`find` looks for the module's routers again, should they have been replaced.

        Raises:
            ValueError: batches cannot describe themselves in this layout.
        """
        if mode.groups is not None and layout.layers is not None:
            raise ValueError(
                "Stream(groups=...) reads the inputs of the whole model, and only the first stage of a "
                "pipeline has them: describe batches by watch.batch(...) on every rank"
            )
        if mode.groups is not None and mode.sample_ids is None and layout.token_parts > 1:
            raise ValueError(
                "the tokens of a sample are split over ranks, so that no rank can tell samples by their "
                "tokens: give Stream(sample_ids=...)"
            )
        self._job = job
        self._layout = layout
        self._recorder = recorder
        self._outbox = outbox
        self._sender = sender
        self._guard = guard
        self._mode = mode
        self._inputs = None if mode.groups is None else ForwardInputs(job.module, mode, job.device)
        self._eagerly = uncompiled if mode.uncompiled else nullcontext[None]
        self._described: deque[TrainingBatch | None] = deque()
        self._passes = 0
        self._due_step: int | None = None
        self._losing = Losing(recorder, job.module, find)
        self._calls = ModuleCalls(job.module, self._called, mode.own_keywords)
        self.step_begins(job.step)

    @property
    def lost(self) -> int:
        """Readings that could not be made."""
        return self._losing.lost

    @property
    def wants(self) -> bool:
        """Whether forward passes are observed now, so that describing a batch is of use."""
        return self._due_step is not None and not (self._losing.gave_up or self._guard.failed)

    def describe(self, make: Callable[[], TrainingBatch]) -> None:
        """What `make` gives is the batch of a training forward pass to come, after those described before it.

        It is only called if now is a step to observe. What it raises costs the reading of that pass.
        """
        if self.wants:
            batch: TrainingBatch | None = None
            with self._losing(self._job.step):
                batch = make()
            self._described.append(batch)

    def step_begins(self, step: int) -> None:
        """`step` optimizer steps are done; what was described for an earlier one and not run is forgotten."""
        self._calls.place()
        if step == self._due_step:
            return
        if self._due_step is not None and self.wants:
            self._look_back(self._due_step)
        self._described.clear()
        self._passes = 0
        self._due_step = step if self._mode.observes(step) else None
        self._calls.open = self.wants

    def went_back(self, step: int) -> None:
        """The job goes on from an earlier step: what was described is not what comes."""
        self._due_step = None
        self.step_begins(step)

    def close(self) -> None:
        """Leave the module as it was."""
        self._calls.close()

    def _look_back(self, step: int) -> None:
        if self._described:
            self._losing.note(
                "unused",
                f"{len(self._described)} batches were described to watch.batch at step {step} and not "
                "trained on in it; describe each right before its forward pass",
            )
        if self._inputs is not None and not self._passes:
            self._losing.note(
                "unseen",
                f"no training forward pass of the watched module was seen in step {step}: call the module "
                "itself, not its forward method, nor from within a function given to torch.compile",
            )

    def _called(self, call: Call, args: tuple[Any, ...], kwargs: dict[str, Any], own: dict[str, Any]) -> Any:
        if torch.compiler.is_compiling() or not self.wants:
            return call(*args, **kwargs)
        if not (self._job.module.training and torch.is_grad_enabled()):
            return call(*args, **kwargs)
        step = self._job.step
        self._passes += 1
        batch: TrainingBatch | None = None
        with self._losing(step):
            if self._described:
                batch = readable(self._described.popleft(), self._layout)
            elif self._inputs is not None:
                batch = readable(self._inputs.describe(args, kwargs, own), self._layout)
        if batch is None:
            return call(*args, **kwargs)
        recording: Recording | None = None
        with ExitStack() as open_meanwhile:
            with self._losing(step):
                B, _, S = batch.selection.real_BMS.shape
                open_meanwhile.enter_context(self._eagerly())
                losses = open_meanwhile.enter_context(keeping_losses(B, S))
                recording = open_meanwhile.enter_context(self._recorder.recording(batch.selection))
            output = call(*args, **kwargs)
        if recording is None:
            return output
        with self._losing(step), torch.no_grad():
            reading = self._reading(batch, recording, losses, output)
            sender = self._sender()
            self._outbox.add(reading.packed_NX, lambda flat: self._send(sender, step, batch, reading, flat))
        return output

    def _reading(
        self, batch: TrainingBatch, recording: Recording, losses: list[TokenLosses], output: object
    ) -> Reading:
        B, _, S = batch.selection.real_BMS.shape
        labels_BS, logits_BSV = batch.selection.labels_BS, None
        # Only the last stage of a pipeline gives logits; what the others give may look like some.
        if labels_BS is None or not self._layout.losses:
            losses = []
        elif not losses:
            logits_BSV = logits_of(output, (B, S))
        return reduce_reading(
            recording,
            logits_BSV,
            losses_BS=matching_losses(losses, labels_BS) if losses and labels_BS is not None else None,
            sample_ids_BM=batch.sample_ids.reshape(B, -1) if batch.ids_on_device else None,
        )

    def _send(
        self, sender: Sender, step: int, batch: TrainingBatch, reading: Reading, packed_NX: Floats
    ) -> None:
        with self._losing(step):
            arrays = unpack(reading, packed_NX)
            surplus = int(arrays.surplus_N.max())
            if surplus:
                told = len(batch.groups) // len(batch.selection.real_BMS)
                raise ValueError(
                    f"a row held {surplus} packed samples more than were told: "
                    f"Stream(samples_per_row={told + surplus}), "
                    "or groups and ids for every sample of every row"
                )
            if arrays.losses_N is not None and not np.isfinite(arrays.losses_N).all():
                raise ValueError(
                    "no loss that the model computed had the labels that were told, or losses are not finite"
                )
            ids_N = batch.sample_ids.numpy() if arrays.sample_ids_N is None else arrays.sample_ids_N
            send_reading(
                sender,
                step=step,
                reading=reading,
                packed_NX=packed_NX,
                rows_by_group=_rows_by_group(batch),
                sample_ids_N=ids_N,
                visits_N=None if batch.visits is None else batch.visits.numpy(),
            )
            self._losing.worked()


def _rows_by_group(batch: TrainingBatch) -> Mapping[str, NDArray[np.int64]]:
    names = np.array(["" if name is None else name for name in batch.groups])
    return {name: np.flatnonzero(names == name) for name in dict.fromkeys(batch.groups) if name is not None}
