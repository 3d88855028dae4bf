"""What a training script holds: observes the engine's steps, answers when to save and when to stop."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor

from pathwatch.client import RoutingStream
from pathwatch.integrations.capture import RouterRecorder, expert_gram_matrices
from pathwatch.integrations.deepspeed.agreement import Agreement, Decision
from pathwatch.integrations.deepspeed.guard import Guard
from pathwatch.integrations.deepspeed.modes import BatchReader, ProbeReader
from pathwatch.integrations.deepspeed.outbox import Floats, Outbox
from pathwatch.integrations.deepspeed.probe import Probe
from pathwatch.integrations.deepspeed.stream import Stream, describe
from pathwatch.v1 import signal_pb2

if TYPE_CHECKING:
    from deepspeed import DeepSpeedEngine

_logger = logging.getLogger("pathwatch.integrations")


class Watch:
    """Observes a DeepSpeed engine until closed; made by `attach`.

    `should_checkpoint` and `should_stop` give the same answer at the same step on every rank. Nothing here
    raises for reasons of its own: what fails is logged once, and the run goes on unobserved.
    """

    def __init__(
        self,
        engine: DeepSpeedEngine,
        recorder: RouterRecorder,
        *,
        probe: Probe | None,
        stream_mode: Stream | None,
        open_stream: Callable[[int], RoutingStream],
        attempt: int,
        check_interval: int,
    ) -> None:
        self._engine = engine
        self._recorder = recorder
        self._probe = probe
        self._stream_mode = stream_mode
        self._open_stream = open_stream
        self._attempt = attempt
        self._check_interval = check_interval
        self._guard = Guard()
        self._outbox = Outbox()
        self._agreement = Agreement()
        self._stream = open_stream(attempt)
        self._observing = True
        self._closed = False
        self._step: int = engine.global_steps
        self._agreed = Decision()
        self._wanted = Decision()
        self._round_saved: int | None = None
        self._checkpoint_wanted = False
        self._asked_at: int | None = None
        self._probe_reader = None if probe is None else ProbeReader(engine, recorder, probe, self._agreement)
        self._batch_reader = (
            None
            if stream_mode is None
            else BatchReader(engine, recorder, self._outbox, lambda: self._stream, self._guard)
        )
        self._original_step = engine.step
        engine.step = self._stepped
        self._observe(self._step)

    def should_checkpoint(self) -> bool:
        """True when the service asks for a checkpoint, or stops the run here: save, then `checkpoint_saved`.

        Once asked at a step, a request is answered; it waits for a script that does not ask after every step.
        """
        if self._checkpoint_wanted and self._asked_at is None:
            self._asked_at = self._step
        return self._asked_at == self._step or self.should_stop()

    def should_stop(self) -> bool:
        """True from the step on at which the service stops the run."""
        return 0 <= self._agreed.stop_at_step <= self._step

    @property
    def signal(self) -> signal_pb2.Signal | None:
        """Newest signal of the service; only rank 0 follows it, elsewhere None."""
        return self._stream.signal

    def checkpoint_saved(self, tag: str | None = None) -> None:
        """Make a checkpoint of the present step known, to be ranked; `tag` as in `save_checkpoint`."""
        step = self._step
        if self._agreement.rank == 0:
            name = tag or f"global_step{step}"
            self._outbox.then(lambda: self._stream.register_checkpoint(step=step, tag=name))
            self._deliver()

    def visited(self, group: str, sample_ids: Tensor | Sequence[int]) -> None:
        """Probe mode with `visits`: this rank trains on these samples of a group in this step.

        `sample_ids` in host memory: reading them off the device would make it wait.
        """
        if self._probe_reader is not None and self._probe_reader.visits is not None:
            with self._guard("counting visits"):
                self._probe_reader.visits.add(group, sample_ids)

    def batch(
        self,
        *,
        groups: str | Sequence[str | None],
        sample_ids: Tensor | Sequence[int],
        shape: tuple[int, int],
        labels: Tensor | None = None,
        attention_mask: Tensor | None = None,
        segment_ids: Tensor | None = None,
        visits: Tensor | Sequence[int] | None = None,
    ) -> None:
        """Stream mode: describe the batch of the next training forward pass of this rank.

        Args:
            groups: data group of every sample, or one for all; None where a packed row holds fewer samples.
            sample_ids: stable id of every sample within its group; in host memory, as `groups` and `visits`.
            shape: rows and tokens of the batch, (B, S).
            labels: [B, S] what is to be predicted, -100 where nothing; needed for losses.
            attention_mask: [B, S] 0 = padding.
            segment_ids: [B, S] packed sequences: 1 … M numbers the samples of a row, 0 = padding.
            visits: how often each sample was trained on before; None = not known.
        """
        reader, mode = self._batch_reader, self._stream_mode
        if reader is None or mode is None or not self._observing:
            return
        with self._guard("describing a batch"):
            reader.expect(
                describe(
                    mode,
                    groups=groups,
                    sample_ids=sample_ids,
                    shape=shape,
                    labels=labels,
                    attention_mask=attention_mask,
                    segment_ids=segment_ids,
                    visits=visits,
                    device=self._engine.device,
                )
            )

    def close(self, timeout: float = 5.0) -> None:
        """Send what is left within `timeout` seconds, and leave the engine as it was. Not collective."""
        if self._closed:
            return
        self._closed = True
        with self._guard("closing"):
            self._engine.step = self._original_step
            self._recorder.close()
            if self._batch_reader is not None:
                self._batch_reader.close()
            self._outbox.deliver(wait=True)
            self._stream.close(timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _stepped(self, *args: Any, **kwargs: Any) -> Any:
        """The engine's `step`, and what follows an optimizer step (not one of gradient accumulation)."""
        before = self._engine.global_steps
        result = self._original_step(*args, **kwargs)
        if self._engine.global_steps != before and self._observing:
            self._after_step(self._engine.global_steps)
        return result

    def _after_step(self, step: int) -> None:
        if step <= self._step:
            self._rewound(step)
        self._step = step
        if self._asked_at is not None and self._asked_at != step:
            self._checkpoint_wanted, self._asked_at = False, None
        self._agree(step)
        if self._observing:
            self._observe(step)

    def _agree(self, step: int) -> None:
        """Take in what was agreed at the last step; every `check_interval` steps begin to agree anew."""
        if self._agreement.rank == 0:
            self._note_signal()
        outcome = self._agreement.outcome()
        if outcome is not None:
            self._checkpoint_wanted |= outcome.checkpoints > self._agreed.checkpoints
            self._agreed = outcome
            if outcome.failed:
                self._give_up()
                return
        if step % self._check_interval == 0:
            wanted = self._wanted
            self._agreement.propose(Decision(wanted.stop_at_step, wanted.checkpoints, self._guard.failed))

    def _note_signal(self) -> None:
        signal = self._stream.signal
        if signal is None or signal.stale:
            return
        checkpoints = self._wanted.checkpoints
        if signal.action == signal_pb2.ACTION_CHECKPOINT and signal.step != self._round_saved:
            self._round_saved = signal.step
            checkpoints += 1
        stop = signal.action == signal_pb2.ACTION_STOP and signal.HasField("stop_at_step")
        self._wanted = Decision(signal.stop_at_step if stop else -1, checkpoints)

    def _observe(self, step: int) -> None:
        if self._probe is not None and self._probe_reader is not None:
            if step % self._probe.interval == 0:
                self._probe_reader.read(step, self._stream, self._outbox, self._guard)
                self._complete(step, geometry=True)
        elif self._stream_mode is not None and step > 0:
            # Batches of step s are those whose forward pass came after s optimizer steps.
            self._complete(step - 1, geometry=step % self._stream_mode.window_steps == 0)
        self._deliver()

    def _complete(self, step: int, *, geometry: bool) -> None:
        """Everything of this rank up to `step` is in the outbox."""
        if self._guard.failed:
            return
        with self._guard(f"finishing step {step}"):
            stream = self._stream
            if geometry and self._agreement.rank == 0:
                own_LKK, next_LKK = expert_gram_matrices(self._recorder.routers)

                def send(flat: Floats) -> None:
                    stream.geometry(
                        step=step,
                        gram_self=flat[: own_LKK.numel()].reshape(own_LKK.shape),
                        gram_next=flat[own_LKK.numel() :].reshape(next_LKK.shape),
                    )

                self._outbox.add(torch.cat([own_LKK.flatten(), next_LKK.flatten()]), send)
            self._outbox.then(lambda: stream.watermark(step))

    def _deliver(self) -> None:
        if not self._guard.failed:
            with self._guard("sending"):
                self._outbox.deliver()

    def _rewound(self, step: int) -> None:
        """The engine went back to a checkpoint: the next attempt begins."""
        with self._guard(f"rewinding to step {step}"):
            self._outbox.deliver(wait=True)
            self._stream.close(1.0)
            self._attempt += 1
            self._stream = self._open_stream(self._attempt)

    def _give_up(self) -> None:
        """Some rank cannot observe: all stop observing at this step, so that none waits for another."""
        if not self._guard.failed:
            _logger.error(
                "pathwatch failed on another rank; this one observes no more either, training goes on"
            )
        self._observing = False
        self._agreed = Decision()
