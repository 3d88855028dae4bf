"""What a training script holds: follows the job's steps, answers when to save and when to stop."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from torch import Tensor

from pathwatch.client.logs import QuietLogger
from pathwatch.integrations.observing.agreement import Agreement
from pathwatch.integrations.observing.attaching import observer_of
from pathwatch.integrations.observing.checkpoint_keeper import CheckpointKeeper
from pathwatch.integrations.observing.decisions import Decisions
from pathwatch.integrations.observing.guard import Guard
from pathwatch.integrations.observing.history import History
from pathwatch.integrations.observing.job import Job
from pathwatch.integrations.observing.observer import Observer
from pathwatch.integrations.observing.own_keywords import without_keywords
from pathwatch.integrations.observing.reactions import Reactions
from pathwatch.integrations.observing.settings import Settings
from pathwatch.integrations.observing.sidecar import Sidecar
from pathwatch.integrations.observing.stream import describe
from pathwatch.v1 import signal_pb2

_logger = QuietLogger("pathwatch.integrations")

_ARRIVES_WITHIN = 2.0


class Watch:
    """Observes a training job until closed; made by the `attach` of a framework.

    `should_checkpoint` and `should_stop` give the same answer at the same step on every rank. Nothing here
    raises for reasons of its own: what fails is logged once, and the run goes on unobserved.
    """

    def __init__(self, job: Job, settings: Settings) -> None:
        """Collective.

        Raises:
            ValueError: with `settings.strict`: no routers in the model of some rank, or a layout that cannot
                be read.
        """
        self._job = job
        self._settings = settings
        self._guard = Guard()
        self._agreement = Agreement(joined=settings.enabled)
        self._decisions = Decisions(self._agreement, settings.check_interval)
        sidecar = Sidecar(settings.server, settings.credentials, settings.run)
        self._history = History(settings, self._agreement, sidecar)
        self._keeper = CheckpointKeeper(settings.checkpoints, self._history.checkpoints, sidecar)
        self._reactions = Reactions(self._keeper)
        self._unregistered: list[tuple[int, str]] = []
        self._step = job.step
        self._begun = False
        self._closed = False
        self._on_close: list[Callable[[], None]] = []
        self._stopped: Observer | None = None
        self._observer = (
            observer_of(job, settings, self._agreement, self._guard) if settings.enabled else None
        )
        if settings.stream is not None:
            # Also when nothing is observed: the model does not know them.
            self.on_close(without_keywords(job.module, settings.stream.own_keywords))

    def begin(self) -> None:
        """Training is about to begin, or to go on from a checkpoint. Only the first call does something.

        Collective. Whoever follows the job's steps calls it before the first training forward pass.
        """
        if self._begun:
            return
        self._begun = True
        with self._guard("beginning to observe"):
            self._step = self._job.step
            if self._observer is not None:
                self._observer.begin(self._history.begin())
                for step, tag in self._unregistered:
                    self._observer.register_checkpoint(step, tag)
                self._register_again(self._observer)
                self._observer.observe(self._step)

    def after_step(self) -> None:
        """The job has done an optimizer step (one of gradient accumulation is none). Collective."""
        with self._guard("following a step"):
            step = self._job.step
            if self._observer is None:
                self._step = step
                return
            self.begin()
            if step < self._step:
                self._go_back(self._observer, step - 1)
            if step == self._step:
                return
            self._step = step
            signal = self.signal
            self._reactions.look(signal)
            if self._decisions.after_step(step, signal, failed=self._guard.failed):
                self._observer.observe(step)
            else:
                self._give_up()

    def should_checkpoint(self) -> bool:
        """True when the service asks for a checkpoint, or stops the run here: save, then `checkpoint_saved`.

        Once asked at a step, a request is answered; it waits for a script that does not ask after every step.
        """
        return self._decisions.should_checkpoint(self._step) or self.should_stop()

    def should_stop(self) -> bool:
        """True from the step on at which the service stops the run."""
        return self._decisions.should_stop(self._step)

    @property
    def signal(self) -> signal_pb2.Signal | None:
        """Newest signal of the service; only rank 0 follows it, elsewhere None."""
        return None if self._observer is None else self._observer.signal

    def checkpoint_saved(self, tag: str | None = None, path: str | Path | None = None) -> None:
        """Make a checkpoint of the present step known, to be ranked; telling it twice does no harm.

        Args:
            tag: by which the job finds it again; None = global_step<step>.
            path: its folder, so that it can be linked, and deleted where that is asked for.
        """
        if self._observer is None:
            return
        with self._guard("registering a checkpoint"):
            step = self._step if self._begun else self._job.step
            news = self._history.checkpoints.add(step, tag, None if path is None else Path(path))
            if self._agreement.rank != 0:
                return
            if news is not None and self._begun:
                self._observer.register_checkpoint(step, news)
            elif news is not None:
                self._unregistered.append((step, news))
            self._reactions.arrange()

    def checkpoint_answered(self) -> None:
        """The checkpoint that `should_checkpoint` asked for is saved. On all ranks alike."""
        self._decisions.answered()

    def best_checkpoint(self, group: str | None = None) -> str | None:
        """Tag of the best checkpoint so far, overall or for a group; None = there is none, or not known.

        Collective, before `close`: the same on every rank. Waits 2 s at most for what was read and saved to
        reach the service, then rank 0 asks it, for 2 s at most.
        """
        tag: str | None = None
        with self._guard("sending what was read"):
            if self._observer is not None:
                self._observer.flush(_ARRIVES_WITHIN)
        self._agreement.any(False)  # all ranks' part has arrived
        with self._guard("asking for the best checkpoint"):
            if self._settings.enabled and self._agreement.rank == 0:
                tag = self._keeper.best(group, self.signal)
        return self._agreement.first_text(tag)

    def state_dict(self, tag: str | None = None, path: str | Path | None = None) -> dict[str, Any]:
        """What a checkpoint should hold: plain Python values and tensors. Collective.

        Args:
            tag: of the checkpoint that is going to hold it, as for `checkpoint_saved`; None = not known yet.
            path: its folder.
        """
        state: dict[str, Any] = {}
        if self._observer is not None:
            with self._guard("collecting what a checkpoint should hold"):
                step = self._step if self._begun else self._job.step
                # What needs all ranks first: no rank is to miss it.
                probe = {} if self._observer.probe is None else self._observer.probe.state_dict()
                state = self._history.state_dict(step, tag, None if path is None else Path(path))
                state["probe"] = probe
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The job has loaded a checkpoint that holds this state; an empty one says nothing.

        Before training begins: this job is the attempt after the one that saved it. Later: the job went back.
        Collective, once the job's step is the checkpoint's.
        """
        if self._observer is None:
            return
        with self._guard("taking over the state of a checkpoint"):
            known = bool(state) and self._history.load_state_dict(state)
            if self._begun:
                self._go_back(self._observer, self._job.step)
            if self._observer.probe is not None:
                self._observer.probe.load_state_dict(state.get("probe", {}) if known else {})

    def visited(self, groups: str | Sequence[str | None], sample_ids: Tensor | Sequence[int]) -> None:
        """Probe mode with `visits=True`: this rank trains on these samples in this step.

        Args:
            groups: data group of every sample, or one for all; None = in none.
            sample_ids: in host memory: reading them off the device would make it wait.
        """
        probe = None if self._observer is None else self._observer.probe
        if probe is not None and probe.visits is not None:
            # The first reading is of the state before this batch.
            self.begin()
            with self._guard("counting visits"):
                probe.visits.add(groups, sample_ids)

    def batch(
        self,
        *,
        groups: str | Sequence[str | None],
        sample_ids: Tensor | Sequence[int],
        shape: tuple[int, int],
        labels: Tensor | None = None,
        attention_mask: Tensor | None = None,
        segment_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        visits: Tensor | Sequence[int] | None = None,
    ) -> None:
        """Stream mode: describe the batch of a training forward pass of this rank, before it.

        Several may be described before the passes run, in their order. Descriptions of steps that are not
        observed cost nothing; one that does not fit is lost with a warning.

        Args:
            groups: data group of every sample, or one for all; None where a packed row holds fewer samples.
            sample_ids: stable id of every sample within its group; in host memory, as `groups` and `visits`.
            shape: rows and tokens of the batch, (B, S).
            labels: [B, S] what is to be predicted, -100 where nothing; needed for losses.
            attention_mask: [B, S] 0 = padding.
            segment_ids: [B, S] packed sequences: 1 … M numbers the samples of a row, 0 = padding.
            position_ids: [B, S] packed sequences, instead of segment ids: each sample's begin at 0.
            visits: how often each sample was trained on before; None = not known.
        """
        mode = self._settings.stream
        reader = None if self._observer is None else self._observer.batches
        if reader is None or mode is None:
            return
        with self._guard("describing a batch"):
            reader.describe(
                lambda: describe(
                    mode,
                    groups=groups,
                    sample_ids=sample_ids,
                    shape=shape,
                    labels=labels,
                    attention_mask=attention_mask,
                    segment_ids=segment_ids,
                    position_ids=position_ids,
                    visits=visits,
                    device=self._job.device,
                )
            )

    def on_signal(self, doing: str, react: Callable[[signal_pb2.Signal], None]) -> None:
        """On the rank that follows signals: have `react` called with every new one, in another thread.

        `doing` says in the log what failed, should it raise.
        """
        self._reactions.listen(doing, react)

    def on_close(self, undo: Callable[[], None]) -> None:
        """Have `undo` called when the watch is closed."""
        self._on_close.append(undo)

    def close(self, timeout: float = 4.0) -> None:
        """Send what is left within `timeout` seconds, and leave the job as it was. Not collective."""
        if self._closed:
            return
        self._closed = True
        deadline = time.monotonic() + timeout
        # Each by itself: what fails must not keep the rest from being put back, or other ranks waiting.
        for undo in reversed(self._on_close):
            with self._guard("leaving the job as it was"):
                undo()
        with self._guard("closing"):
            if self._stopped is not None:
                self._stopped.close(timeout)
            if self._observer is not None:
                self._reactions.look(self.signal)
                self._observer.close(timeout)
                if self._agreement.rank == 0:
                    self._reactions.arrange()
        with self._guard("closing"):
            self._reactions.close(max(0.0, deadline - time.monotonic()))
        with self._guard("closing"):
            self._agreement.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _go_back(self, observer: Observer, step: int) -> None:
        """The job goes on from an earlier `step`."""
        self._step = step
        self._decisions.go_back()
        observer.begin(self._history.go_back(step))
        self._register_again(observer)

    def _register_again(self, observer: Observer) -> None:
        """The checkpoint that the job goes on from is this attempt's, too: the older one's is superseded."""
        start = self._history.checkpoints.at(self._step)
        if start is not None and self._history.attempt > 0 and self._agreement.rank == 0:
            observer.register_checkpoint(start.step, start.tag)

    def _give_up(self) -> None:
        """Some rank cannot observe, or is gone: all stop at this step, so that none waits for another."""
        if not (self._guard.failed or self._agreement.lost):
            _logger.error(
                "pathwatch failed on another rank; this one observes no more either, training goes on"
            )
        if self._observer is not None:
            with self._guard("giving up"):
                self._observer.stop()
        # What it has read is still sent, and what is left of it when the watch is closed.
        self._stopped, self._observer = self._observer, None
