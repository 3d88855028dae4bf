"""One run inside the writer thread: takes messages, closes rounds, hands out work, keeps the signal."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from pathwatch.server.engine.attempt import AttemptProgress, check_next_attempt
from pathwatch.server.engine.cadence import Cadence
from pathwatch.server.engine.checks import check_step, check_text
from pathwatch.server.engine.dropped import DroppedCounts
from pathwatch.server.engine.geometries import Geometries, geometry_bytes
from pathwatch.server.engine.health import RESULTS, RunHealth
from pathwatch.server.engine.judge import Judgement
from pathwatch.server.engine.judging import Job, JudgingQueue
from pathwatch.server.engine.outbox import settle
from pathwatch.server.engine.refusal import NEVER, Code, LimitError, OverloadError, RefusedError
from pathwatch.server.engine.rounds import JudgedRound
from pathwatch.server.engine.run_config import sketch_settings
from pathwatch.server.engine.sampling import Sampling
from pathwatch.server.engine.shared import Shared
from pathwatch.server.engine.signals import standing_still
from pathwatch.server.engine.standing import Standing
from pathwatch.server.engine.stream_set import StreamSet
from pathwatch.server.engine.streams import (
    Advice,
    Batch,
    Message,
    Plan,
    RankStream,
    Rejected,
    RouterGeometry,
    Watermark,
    Withheld,
)
from pathwatch.server.engine.tensors import invalid
from pathwatch.server.engine.view import RunView, view_of
from pathwatch.server.failpoints import reach
from pathwatch.server.metrics.window import Geometry
from pathwatch.server.phases.verdict import Checkpoint
from pathwatch.server.sketch.admission import Admission
from pathwatch.server.sketch.run_sketch import Round, RunSketch, SketchError
from pathwatch.server.store.rows import (
    BatchRow,
    BeginAttempt,
    GeometryRow,
    PartialRoundRow,
    PutBatch,
    PutCheckpoint,
    PutGeometry,
    PutPartialRound,
    PutRound,
    PutRun,
    Rewind,
    RunRow,
    WindowRow,
)
from pathwatch.v1 import run_pb2

MAX_SEQUENCE = 2**63 - 1
"""Largest sequence the store holds; nobody gets there by counting."""


class LiveRun:
    """State of one run. Used by the writer thread only."""

    def __init__(self, row: RunRow, shared: Shared) -> None:
        self.config = run_pb2.RunConfig.FromString(row.config)
        self.attempt = _progress(row.name, row.attempt, shared)
        self.sketch = RunSketch(
            sketch_settings(row.name, self.config), attempt=row.attempt, closed_step=row.closed_step
        )
        self.geometries = Geometries()
        self.checkpoints: dict[tuple[int, int], Checkpoint] = {}
        self.standing = Standing(row.name, row.created_at)
        self.judging = JudgingQueue(
            row.name,
            self.config,
            shared.store,
            shared.clock,
            on_judged=self._judged,
            on_rebuilt=self._rebuilt,
            on_broken=self._broken,
        )
        self.inherited_revision = 0
        """Of the newest signal that another server has given, and told of; 0 = there is none."""
        self._row = row
        self._shared = shared
        self._row_changed = False
        self._seen_at: float | None = None
        """When data last came, where the row does not say so yet: a commit may hold hundreds of messages."""
        self._cadence = Cadence()
        self._streams = StreamSet()
        self._sampling = _sampling(self.config)
        self._observations = dict.fromkeys(RESULTS, 0)
        self._dropped_counts = DroppedCounts(sessions_per_rank=shared.limits.sessions_per_rank)
        self._missing_ranks: tuple[int, ...] = ()
        self._partial_rounds = 0
        self._registrations = 0
        self._finishing: list[Future[run_pb2.Run]] | None = None
        self.dropped: RefusedError | None = None
        """Why nothing of the run counts any more that is not committed; None = it does."""

    @classmethod
    def create(cls, row: RunRow, shared: Shared) -> LiveRun:
        """A new run, stored with the next commit."""
        run = cls(row, shared)
        run._row_changed = True
        shared.outbox.writes.append(run.standing.signal_write())
        return run

    @property
    def row(self) -> RunRow:
        """The run's durable row, as it is to be."""
        return self._row

    @property
    def is_over(self) -> bool:
        """Whether nothing comes any more, and nobody waits for anything."""
        return self._row.finished and self.judging.is_idle

    # Streams and their messages.

    def hello(self, stream: RankStream) -> None:
        """A rank opens a stream. Raises RefusedError where the stream must not go on."""
        self._check_open()
        if stream.attempt < self._row.attempt:
            raise self._stale_attempt(stream.attempt)
        limits = self._shared.limits
        if stream.world_size > limits.ranks_per_run:
            raise LimitError(
                "ranks_per_run",
                f"is {stream.world_size}; a run has at most {limits.ranks_per_run} ranks that send",
                "hello.world_size",
            )
        check_text("hello.session", stream.session, limits.name_length)
        if not stream.session:
            raise invalid("hello.session", "is empty; name the life of the client process")
        if stream.attempt > self._row.attempt:
            _progress(self._row.name, stream.attempt, self._shared).join(stream)
            self.start_attempt(stream.attempt)
        self.attempt.join(stream)
        self.sketch.join(stream.rank, stream.world_size)
        self._streams.add(stream)
        if self._sampling is not None:
            self._sampling.greet(stream)
        self._dropped_counts.resume(stream)
        stream.admit = self.admission
        self._update(world_size=stream.world_size)

    def admission(self, group: str, step: int, sample_ids_N: NDArray[np.int64]) -> Admission | None:
        """What a window may still want of these samples; None = all. For any thread.

        It holds for messages of the streams that are open: whatever makes a window forget ends them.
        """
        return self.sketch.admission(group, step, sample_ids_N)

    def leave(self, stream: RankStream) -> None:
        """A stream is gone."""
        self._streams.remove(stream)

    def ingest(self, message: Message) -> None:
        """Apply one message of a stream: taken, refused, or known already."""
        stream, stats = message.stream, self._shared.stats
        if stream.ended:
            return
        stream.size += message.size
        stats.bytes += message.size
        self._streams.owe(stream)
        if isinstance(message.payload, Withheld):
            self._take_withheld(stream, message.payload)
            return
        if not 1 <= message.sequence <= MAX_SEQUENCE:
            self._observations["rejected"] += message.observations
            stream.rejected.append(Rejected(sequence=message.sequence, refusal=_unnumbered(message)))
            return
        # Also of a message that is known: the count may have been told before a restart.
        if isinstance(message.payload, Watermark):
            self._observations["dropped"] += self._dropped_counts.rise(stream, message.payload.dropped)
        if self.attempt.is_duplicate(stream, message.sequence):
            self._observations["duplicate"] += message.observations
            stream.accepted += message.observations
        else:
            try:
                self._apply(message)
            except OverloadError as refusal:
                stats.count_limit(refusal)
                stream.end(refusal)
                return
            except RefusedError as refusal:
                stats.count_limit(refusal)
                self._observations["rejected"] += message.observations
                stream.rejected.append(Rejected(sequence=message.sequence, refusal=refusal))
            self.attempt.applied(stream, message.sequence)
        stream.acked = max(stream.acked, message.sequence)

    def _take_withheld(self, stream: RankStream, withheld: Withheld) -> None:
        self._saw(withheld.step)
        if self._sampling is not None:
            self._sampling.report(stream, withheld, self._shared.clock.steady())

    def _apply(self, message: Message) -> None:
        match message.payload:
            case RefusedError() as refusal:
                raise refusal
            case Batch() as batch:
                self._apply_batch(message.stream, batch)
            case Watermark(step=step):
                self.attempt.advance(message.stream.rank, step)
                self.sketch.watermark(message.stream.rank, step, self._shared.clock.steady())
                if self._sampling is not None:
                    self._sampling.passed(message.stream.rank, step)
                self._saw(step)
            case RouterGeometry(geometry=geometry, serialized=serialized):
                self.attempt.check_step(message.stream.rank, geometry.step, "geometry.step")
                self._check_room(geometry_bytes(geometry))
                self._add_geometry(geometry, serialized)

    def _add_geometry(self, geometry: Geometry, serialized: bytes) -> None:
        # Rounds that closed without it are judged without it, whether or not they were judged already.
        closed_step = self.sketch.closed_step if self._has_closed else -1
        step = max(geometry.step, closed_step + 1)
        if self.geometries.add(self._row.attempt, step, geometry, serialized):
            row = GeometryRow(run=self._row.name, attempt=self._row.attempt, step=step, geometry=serialized)
            self._shared.outbox.writes.append(PutGeometry(row=row))

    @property
    def _has_closed(self) -> bool:
        """Whether this attempt has closed a round."""
        return 0 <= self._row.first_step <= self.sketch.closed_step

    def _apply_batch(self, stream: RankStream, batch: Batch) -> None:
        block = batch.block
        self.attempt.check_step(stream.rank, block.step, "batch.step")
        groups = self._row.groups
        if block.group not in groups and len(groups) >= self._shared.limits.groups_per_run:
            raise LimitError(
                "groups_per_run",
                f"{block.group!r} would be group {len(groups) + 1}; a run has at most "
                f"{self._shared.limits.groups_per_run}",
                "batch.group",
            )
        self._check_windows(block.step)
        self._check_room(self.sketch.growth(block))
        begins = self._row.first_step < 0
        # Another rank was faster to connect, with a later step.
        began_later = block.step < self._row.first_step and not self._has_closed
        try:
            if begins or began_later:  # a message that is refused must not have superseded anything
                self.sketch.check(block)
            if begins:
                self._begin_at(block.step)
            elif began_later:
                self._supersede_from(block.step)
                self.sketch.reopen(block.step)
            result = self.sketch.add(block, self._shared.clock.steady())
        except SketchError as error:
            raise invalid(error.field, error.message, error.sample_id) from error
        counts = self._observations
        counts["accepted"] += result.accepted
        counts["late"] += result.late
        counts["beyond"] += result.beyond
        stream.accepted += result.accepted + result.beyond
        stream.late += result.late
        if result.accepted:
            self._shared.outbox.writes.append(
                PutBatch(
                    row=BatchRow(
                        run=self._row.name, attempt=block.attempt, step=block.step, batch=batch.serialized
                    )
                )
            )
        if block.group not in groups:
            self._update(groups=(*groups, block.group))
        self._saw(block.step)
        self._advise(stream, block.group)

    def _check_windows(self, step: int) -> None:
        most = self._shared.limits.open_windows_per_run
        if self.sketch.open_windows < most or not self.sketch.opens_window(step):
            return
        # Watermarks may have come just before: a job that catches up sends hundreds of windows at once.
        self.close_ready()
        if (held := self.sketch.open_windows) >= most:
            raise OverloadError(
                "open_windows_per_run",
                f"step {step} would open window {held + 1}; at most {most} are open at a time: "
                "send watermarks, and wait for ranks that are behind",
                "batch.step",
            )

    def _check_room(self, more: int) -> None:
        self._shared.kept.check_growth(self._row.name, self._kept_bytes(), more)

    def _kept_bytes(self) -> int:
        return self.sketch.nbytes + self.judging.waiting_bytes + self.geometries.nbytes

    def _advise(self, stream: RankStream, group: str) -> None:
        if self.config.mode != run_pb2.OBSERVATION_MODE_STREAM:
            return  # a probe's windows end with the step: there is nothing left to spare
        advice = self.sketch.advice(group)
        if advice is not None:
            until_step, threshold = advice
            stream.advise(Advice(group=group, until_step=until_step, threshold=threshold))

    def _saw(self, step: int) -> None:
        self._cadence.saw(step, self._shared.clock.steady())
        self._seen_at = self._shared.clock.wall()
        if step > self._row.step:
            self._update(step=step)

    # Attempts.

    def start_attempt(self, number: int) -> None:
        """A restarted or rewound job: older attempts send no more."""
        self._check_open()
        check_next_attempt(number, self._row.attempt)
        self.close_ready()  # what is complete stays, also where the new attempt comes in the same batch
        stale = self._stale_attempt(self._row.attempt, number)
        self._streams.end_all(stale)
        self._shared.outbox.writes.append(
            BeginAttempt(run=self._row.name, attempt=number, closed_step=self.sketch.closed_step)
        )
        self.attempt = _progress(self._row.name, number, self._shared)
        self._dropped_counts = DroppedCounts(sessions_per_rank=self._shared.limits.sessions_per_rank)
        self._cadence = Cadence()
        self._sampling = _sampling(self.config)
        self._update(attempt=number, first_step=-1, world_size=0)
        self._restart_sketch(self.sketch.closed_step)
        reach("attempt.begun")

    def _begin_at(self, step: int) -> None:
        """The attempt's first observation."""
        self._supersede_from(step)
        if self._row.attempt > 0:
            self._update(step=max(step, *self.attempt.watermarks.values()))
            self._restart_sketch(min(self.sketch.closed_step, step - 1))

    def _supersede_from(self, step: int) -> None:
        """The attempt goes over what older attempts did from `step` on."""
        self._update(first_step=step)
        if self._row.attempt == 0:
            return
        self._shared.outbox.writes.append(
            Rewind(
                run=self._row.name,
                attempt=self._row.attempt,
                first_step=step,
                first_window_step=self.sketch.window_of(step)[0],
            )
        )
        self.judging.rewind(self._superseded)
        self.checkpoints = {
            key: checkpoint
            for key, checkpoint in self.checkpoints.items()
            if not self._superseded(checkpoint)
        }
        self.geometries.rewind(self._row.attempt, step)
        self._update(closed_step=min(self._row.closed_step, step - 1))
        reach("attempt.rewound")

    def _restart_sketch(self, closed_step: int) -> None:
        self.sketch = RunSketch(
            sketch_settings(self._row.name, self.config), attempt=self._row.attempt, closed_step=closed_step
        )
        for rank, watermark in self.attempt.watermarks.items():
            self.sketch.join(rank, self.attempt.world_size)
            self.sketch.watermark(rank, watermark, self._shared.clock.steady())

    def _superseded(self, item: Round | Checkpoint) -> bool:
        """Whether a newer attempt has gone over the step of a round or checkpoint again."""
        return item.attempt < self._row.attempt and 0 <= self._row.first_step <= item.step

    def _stale_attempt(self, stale: int, current: int | None = None) -> RefusedError:
        current = self._row.attempt if current is None else current
        return RefusedError(
            Code.FAILED_PRECONDITION,
            f"attempt {stale} of run {self._row.name!r} is over; the current one is {current}",
            "hello.attempt",
        )

    # Calls about the run.

    def register(self, checkpoint: Checkpoint) -> None:
        """Make a checkpoint known. Raises RefusedError."""
        check_step("checkpoint.step", checkpoint.step)
        if checkpoint.attempt > self._row.attempt:
            raise RefusedError(
                Code.FAILED_PRECONDITION,
                f"attempt {checkpoint.attempt} has not started; the current one is {self._row.attempt}",
                "checkpoint.attempt",
            )
        if self._superseded(checkpoint):
            raise RefusedError(
                Code.FAILED_PRECONDITION,
                f"attempt {self._row.attempt} went on from step {self._row.first_step}; "
                f"step {checkpoint.step} of attempt {checkpoint.attempt} is superseded",
                "checkpoint.step",
            )
        key, limits = (checkpoint.attempt, checkpoint.step), self._shared.limits
        check_text("checkpoint.tag", checkpoint.tag, limits.tag_length)
        if key not in self.checkpoints and len(self.checkpoints) >= limits.checkpoints_per_run:
            raise LimitError(
                "checkpoints_per_run",
                f"run {self._row.name!r} has {len(self.checkpoints)} checkpoints, as many as are kept",
                retry_seconds=NEVER,
            )
        self.checkpoints[key] = checkpoint
        self._registrations += 1
        self._shared.outbox.writes.append(PutCheckpoint(run=self._row.name, checkpoint=checkpoint))
        reach("checkpoint.registered")

    def finish(self, future: Future[run_pb2.Run]) -> None:
        """Close what is open; the future gets the run when all of it is judged."""
        if self.judging.broken and not self._row.finished:
            raise RefusedError(Code.FAILED_PRECONDITION, self.judging.broken)
        if self._row.finished:
            self._answer_finished(future)
        elif self._finishing is not None:
            self._finishing.append(future)
        else:
            self._finishing = [future]
            self._streams.end_all(self._finished_refusal())
            self._closed(self.sketch.close_all(self._shared.clock.steady()))
            reach("finish.begun")

    def _check_open(self) -> None:
        if self._row.finished or self._finishing is not None:
            raise self._finished_refusal()

    def _finished_refusal(self) -> RefusedError:
        return RefusedError(
            Code.FAILED_PRECONDITION, f"run {self._row.name!r} is finished; it takes no more data"
        )

    def _answer_finished(self, future: Future[run_pb2.Run]) -> None:
        self._shared.outbox.effects.append(lambda: settle(future, self.dropped or self.view().run))

    def drop(self, refusal: RefusedError) -> None:
        """The run is deleted or given up: end its streams, answer who waits."""
        self.dropped = refusal
        self._streams.end_all(refusal)
        self.judging.drop(refusal)
        for future in self._finishing or []:
            settle(future, refusal)

    # Rounds and what is said after them.

    def close_ready(self) -> None:
        """Queue the rounds that are complete or whose grace time is over; the store may be read again."""
        self.judging.look_again()
        if not self._row.finished:
            self._closed(self.sketch.close_ready(self._shared.clock.steady()))
            if self._sampling is not None:
                self._sampling.closed(self.sketch.take_closed_limits())

    def _closed(self, rounds: Sequence[Round]) -> None:
        for round_ in rounds:
            if round_.missing_ranks:
                row = PartialRoundRow(
                    run=self._row.name,
                    attempt=round_.attempt,
                    step=round_.step,
                    missing_ranks=round_.missing_ranks,
                )
                self._shared.outbox.writes.append(PutPartialRound(row=row))
        self.judging.add_rounds(rounds)

    def next_deadline(self) -> float | None:
        """When `close_ready` has more for want of a rank, or of the store, on the steady clock."""
        again = self.judging.retry_at
        if self._row.finished:
            return again
        asking = None if self._sampling is None or not self._answers else self._sampling.next_deadline()
        found = (self.sketch.next_deadline(), asking, again)
        return min((at for at in found if at is not None), default=None)

    def next_job(self) -> Job | None:
        """Work for the compute pool. Call it only when everything decided so far is committed."""
        # In the store's order: neither the first of equals nor a sum's last bit may change with a restart.
        by_step = sorted(self.checkpoints.values(), key=lambda point: (point.step, point.attempt))
        return self.judging.next_job(self.geometries, by_step)

    def work_ahead(self) -> Callable[[], None] | None:
        """Something to do before the next round closes, for a thread that has nothing else to do."""
        limits = self._shared.limits
        if 2 * self._kept_bytes() > min(limits.window_bytes_per_run, limits.window_bytes // 2):
            return None  # what it copies would take the room of observations
        return self.judging.work_ahead(self.sketch, self.standing.windows, self.geometries, self._row.attempt)

    def job_failed(self, error: Exception) -> None:
        """The last job raised: a plug-in is missing, the store is away, or it is a fault of the service."""
        self.judging.failed(error)

    def _rebuilt(self, judgement: Judgement, windows: list[WindowRow]) -> None:
        """A rewind has taken effect: say what the rounds that are left say."""
        self._update(closed_step=judgement.step)
        self.standing.restore(self.standing.signal, windows)
        self._say(judgement, keep_stop=False)
        reach("attempt.rebuilt")

    def _broken(self, reason: str) -> None:
        """Nothing can be judged any more: where groups stand is not known, and the run goes on."""
        self._say(standing_still(self.standing.signal, reason))

    def _judged(self, judged: JudgedRound, closed_at: float) -> None:
        round_ = judged.round
        self._shared.outbox.writes.append(
            PutRound(
                run=self._row.name,
                attempt=round_.attempt,
                step=round_.step,
                windows=judged.windows,
                observations=judged.observations,
            )
        )
        self.geometries.forget_before(round_.attempt, round_.step)
        self._update(closed_step=round_.step)
        self.standing.take_windows(judged.windows)
        self._missing_ranks = round_.missing_ranks
        self._partial_rounds += bool(round_.missing_ranks)
        self._say(judged.judgement)
        reach("round.judged")
        clock, histogram = self._shared.clock, self._shared.stats.window_close
        self._shared.outbox.effects.append(lambda: histogram.observe(clock.steady() - closed_at))

    def _say(self, judgement: Judgement, *, keep_stop: bool = True) -> None:
        self.standing.take_judgement(
            judgement,
            newest_step=self._row.step,
            stop_margin_steps=self.config.stop_margin_steps,
            now=self._shared.clock.wall(),
            keep_stop=keep_stop,
        )
        self._shared.outbox.writes.append(self.standing.signal_write())

    # What goes out.

    def flush(self) -> None:
        """Put everything that changed since the last time into the outbox."""
        self._finish_when_judged()
        if self._row.finished:
            self.judging.release()
        self._shared.kept.set(self._row.name, self._kept_bytes())
        writes = self._shared.outbox.writes
        writes.extend(self.attempt.take_writes())
        if self._seen_at is not None:
            self._update(updated_at=self._seen_at)
            self._seen_at = None
        if self._row_changed:
            writes.append(PutRun(row=self._row))
            self._row_changed = False
        if self._answers:
            if self._sampling is not None:
                self._answer_withheld(self._sampling)
            self._streams.put_acks(self._shared.outbox)

    @property
    def _answers(self) -> bool:
        """Whether judging keeps up: else senders wait for their answers."""
        return self.judging.waiting_rounds <= self._shared.limits.unjudged_rounds

    def _answer_withheld(self, sampling: Sampling) -> None:
        for stream in sampling.answer(self.sketch, self._shared.clock.steady()):
            self._streams.owe(stream)
        for stream in self._streams.owing:
            sampling.tell(stream)

    def view(self) -> RunView:
        """The run as readers are to see it."""
        patience = self._cadence.patience(self.config.grace_seconds)
        health = RunHealth(
            observations=dict(self._observations),
            connected_ranks=len(self._streams),
            missing_ranks=self._missing_ranks,
            partial_rounds=self._partial_rounds,
            unjudged_rounds=self.judging.waiting_rounds,
        )
        return view_of(
            self._row,
            self.config,
            self.standing,
            checkpoints=len(self.checkpoints),
            registrations=self._registrations,
            inherited_revision=self.inherited_revision,
            patience=patience,
            health=health,
        )

    def _finish_when_judged(self) -> None:
        if self._finishing is None or self._row.finished or self.judging.has_rounds:
            return
        if self.judging.broken:
            # What is not judged yet is judged after a restart; the run can be finished then.
            for future in self._finishing:
                settle(future, RefusedError(Code.FAILED_PRECONDITION, self.judging.broken))
            self._finishing = None
            return
        self._update(finished=True)
        self.geometries = Geometries()
        for future in self._finishing:
            self._answer_finished(future)
        self._finishing = []
        reach("finish.judged")

    def _update(self, **changes: object) -> None:
        self._row = replace(self._row, **changes)  # type: ignore[arg-type]  # names are checked by replace
        self._row_changed = True


def _sampling(config: run_pb2.RunConfig) -> Sampling | None:
    if config.mode != run_pb2.OBSERVATION_MODE_STREAM:
        return None  # a probe's window ends with its step, and holds no more samples than are kept
    plan = Plan(window_steps=config.window_steps, capacity=config.capacity)
    return Sampling(plan, grace_seconds=config.grace_seconds)


def _unnumbered(message: Message) -> RefusedError:
    payload = message.payload
    if isinstance(payload, RefusedError) and payload.field.startswith("withheld."):
        return payload  # reports are not numbered
    return invalid("sequence", f"is {message.sequence}; messages after the hello count from 1, one by one")


def _progress(run: str, attempt: int, shared: Shared) -> AttemptProgress:
    return AttemptProgress(run, attempt, sessions_per_rank=shared.limits.sessions_per_rank)
