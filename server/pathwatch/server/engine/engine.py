"""The writer thread: owns the state of all runs, makes it durable, then answers.

Commands come in a queue; the writer takes all that wait, applies them, commits once, and only then lets
anyone know: acks, answers, views for readers, watchers. Metrics and verdicts are computed on a pool.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import TypeVar

from pathwatch.server import plugins
from pathwatch.server.config import Limits
from pathwatch.server.engine.clock import Clock
from pathwatch.server.engine.live_run import LiveRun
from pathwatch.server.engine.outbox import Outbox, settle
from pathwatch.server.engine.recovery import recover
from pathwatch.server.engine.refusal import Code, RefusedError
from pathwatch.server.engine.run_config import violations, with_defaults
from pathwatch.server.engine.shared import Shared
from pathwatch.server.engine.stats import Stats
from pathwatch.server.engine.streams import Message, RankStream
from pathwatch.server.engine.view import RunView
from pathwatch.server.failpoints import reach
from pathwatch.server.phases.verdict import Checkpoint, RankedCheckpoint
from pathwatch.server.store.interface import Store, StoreError
from pathwatch.server.store.rows import DeleteRun, RunRow
from pathwatch.v1 import run_pb2

T = TypeVar("T")

log = logging.getLogger("pathwatch.server")

MAX_COMMANDS_PER_COMMIT = 1024
RETRY_SECONDS = 1.0
"""How long after a failed commit the next is tried if nothing comes."""


class Engine:
    """State of all runs. Every method may be called from any thread; answers come as futures."""

    def __init__(
        self, store: Store, *, limits: Limits, compute_threads: int = 2, clock: Clock | None = None
    ) -> None:
        self.stats = Stats()
        self._store = store
        self._limits = limits
        self._clock = clock or Clock()
        self._outbox = Outbox()
        self._shared = Shared(store, limits, self._outbox, self.stats, self._clock)
        self._commands: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._pool = ThreadPoolExecutor(compute_threads, thread_name_prefix="pathwatch-compute")
        self._runs: dict[str, LiveRun] = {}
        self._touched: set[str] = set()
        """Runs that changed since the last commit."""
        self._ready: set[str] = set()
        """Runs whose state is committed and that may have work to hand out."""
        self._failing = False
        self._views: Mapping[str, RunView] = {}
        self._listeners: tuple[Callable[[str], None], ...] = ()
        self._thread = threading.Thread(target=self._write_until_stopped, name="pathwatch-writer")

    def start(self) -> None:
        """Recover all runs from the store and begin. Raises StoreError."""
        for row in self._store.runs():
            self._runs[row.name] = recover(row, self._shared)
        self._views = {name: run.view() for name, run in self._runs.items()}
        self._touched.update(self._runs)
        self._thread.start()
        self._pool.submit(_warm_up)

    def stop(self) -> None:
        """Apply and commit what was submitted, then end; unfinished rounds are judged after a restart."""
        self._commands.put(None)
        self._thread.join()
        self._pool.shutdown(wait=True, cancel_futures=True)

    @property
    def views(self) -> Mapping[str, RunView]:
        """All runs as of the last commit, by name; never changed, replaced as a whole."""
        return self._views

    def now(self) -> float:
        """Seconds since the epoch, by the engine's clock."""
        return self._clock.wall()

    def listen(self, listener: Callable[[str], None]) -> None:
        """Have `listener` called, in the writer thread, with the name of each run that changed or went."""
        self._listeners = (*self._listeners, listener)

    # Streams.

    def hello(self, stream: RankStream) -> Future[RunView]:
        """Open a stream; the future gets the run, or a RefusedError."""
        return self._call(stream.run, lambda run: run.hello(stream))

    def ingest(self, message: Message) -> None:
        """Apply a message of an open stream; the answer comes through the stream."""
        self._commands.put(partial(self._with_run, message.stream.run, lambda run: run.ingest(message)))

    def leave(self, stream: RankStream) -> None:
        """A stream has ended."""
        self._commands.put(partial(self._with_run, stream.run, lambda run: run.leave(stream)))

    # Runs.

    def create_run(
        self, name: str, config: run_pb2.RunConfig, attempt: int
    ) -> Future[tuple[run_pb2.Run, bool]]:
        """The run, and whether it is new. Or a RefusedError."""
        future: Future[tuple[run_pb2.Run, bool]] = Future()
        create = partial(self._create, future, name, with_defaults(config), attempt)
        self._commands.put(partial(self._answering, future, create))
        return future

    def finish_run(self, name: str) -> Future[run_pb2.Run]:
        """Close and judge everything open; the future gets the finished run."""
        future: Future[run_pb2.Run] = Future()
        self._commands.put(partial(self._on_run, future, name, lambda run: run.finish(future)))
        return future

    def delete_run(self, name: str) -> Future[None]:
        """Remove a run and its data."""
        future: Future[None] = Future()
        self._commands.put(partial(self._answering, future, partial(self._delete, future, name)))
        return future

    def register_checkpoint(self, name: str, checkpoint: Checkpoint) -> Future[RunView]:
        """Make a checkpoint known."""
        return self._call(name, lambda run: run.register(checkpoint))

    def rank_checkpoints(self, name: str, group: str | None, limit: int) -> Future[list[RankedCheckpoint]]:
        """Checkpoints best first (None = overall), at most `limit` (0 = all)."""
        future: Future[list[RankedCheckpoint]] = Future()
        self._commands.put(
            partial(self._on_run, future, name, lambda run: run.judging.add_ranking(group, limit, future))
        )
        return future

    # The writer thread.

    def _call(self, name: str, action: Callable[[LiveRun], None]) -> Future[RunView]:
        future: Future[RunView] = Future()

        def act(run: LiveRun) -> None:
            action(run)
            self._outbox.effects.append(lambda: settle(future, run.view()))

        self._commands.put(partial(self._on_run, future, name, act))
        return future

    def _on_run(self, future: Future[T], name: str, action: Callable[[LiveRun], None]) -> None:
        self._answering(future, partial(self._with_run, name, action))

    def _answering(self, future: Future[T], command: Callable[[], None]) -> None:
        """Whoever waits for the command hears of its failure."""
        try:
            command()
        except RefusedError as refusal:
            settle(future, refusal)
        except Exception as error:
            log.exception("a fault of the service")
            settle(future, error)

    def _with_run(self, name: str, action: Callable[[LiveRun], None]) -> None:
        run = self._runs.get(name)
        if run is None:
            raise RefusedError(Code.NOT_FOUND, f"there is no run {name!r}; create it first")
        self._touched.add(name)
        action(run)

    def _create(
        self,
        future: Future[tuple[run_pb2.Run, bool]],
        name: str,
        config: run_pb2.RunConfig,
        attempt: int,
    ) -> None:
        created = self._create_or_find(name, config, attempt)
        self._touched.add(name)
        run = self._runs[name]
        self._outbox.effects.append(lambda: settle(future, (run.view().run, created)))

    def _create_or_find(self, name: str, config: run_pb2.RunConfig, attempt: int) -> bool:
        if run := self._runs.get(name):
            if run.config != config:
                fields = ", ".join(_differing_fields(run.config, config))
                raise RefusedError(
                    Code.ALREADY_EXISTS, f"run {name!r} exists with another configuration: {fields} differ"
                )
            if attempt > run.row.attempt:
                run.start_attempt(attempt)
            return False
        if problems := violations(name, config, self._limits):
            first = problems[0]
            more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
            raise RefusedError(Code.INVALID_ARGUMENT, first.message + more, first.field)
        if len(self._runs) >= self._limits.runs:
            raise RefusedError(
                Code.RESOURCE_EXHAUSTED, f"there are {len(self._runs)} runs, as many as are kept; delete some"
            )
        now = self._clock.wall()
        row = RunRow(
            name=name,
            config=config.SerializeToString(deterministic=True),
            finished=False,
            attempt=attempt,
            first_step=-1,
            step=-1,
            closed_step=-1,
            world_size=0,
            groups=(),
            created_at=now,
            updated_at=now,
        )
        self._runs[name] = LiveRun.create(row, self._shared)
        return True

    def _delete(self, future: Future[None], name: str) -> None:
        run = self._runs.pop(name, None)
        if run is None:
            raise RefusedError(Code.NOT_FOUND, f"there is no run {name!r}")
        run.drop()
        self._touched.add(name)
        self._outbox.writes.append(DeleteRun(run=name))
        reach("delete.begun")
        self._outbox.effects.append(lambda: settle(future, None))

    def _write_until_stopped(self) -> None:
        stopping = False
        while not stopping:
            for command in self._wait():
                if command is None:
                    stopping = True
                else:
                    self._apply(command)
            for name, run in self._runs.items():
                deadline = run.next_deadline()
                if name in self._touched or (deadline is not None and deadline <= self._clock.steady()):
                    self._touched.add(name)
                    run.close_ready()
            self._commit()
            if not stopping:
                self._hand_out_jobs()

    def _wait(self) -> list[Callable[[], None] | None]:
        """All commands that wait, at least one unless a deadline comes first."""
        commands: list[Callable[[], None] | None] = []
        try:
            commands.append(self._commands.get(timeout=self._timeout()))
            while len(commands) < MAX_COMMANDS_PER_COMMIT:
                commands.append(self._commands.get_nowait())
        except queue.Empty:
            pass
        return commands

    def _timeout(self) -> float | None:
        if self._touched and not self._failing:
            return 0.0
        deadlines = [d for run in self._runs.values() if (d := run.next_deadline()) is not None]
        waits = [max(0.0, min(deadlines) - self._clock.steady())] if deadlines else []
        if self._failing:
            waits.append(RETRY_SECONDS)
        return min(waits, default=None)

    def _apply(self, command: Callable[[], None]) -> None:
        try:
            command()
        except RefusedError:
            pass  # a message for a run that was deleted while it waited
        except Exception:
            log.exception("a fault of the service; the message or result at hand is lost")

    def _commit(self) -> None:
        """Make everything durable, then let everyone know; on failure nobody hears and it is tried again."""
        for name in self._touched & self._runs.keys():
            self._runs[name].flush()
        if self._outbox.writes:
            try:
                self._store.commit(self._outbox.writes)
            except StoreError as error:
                self.stats.commit_failures += 1
                if not self._failing:
                    log.error("%s; nothing is acknowledged until it can be written", error)
                self._failing = True
                return
            if self._failing:
                log.warning("the store can be written again")
                self._failing = False
            self._outbox.writes.clear()
        touched = self._touched
        self._touched = set()
        views = dict(self._views)
        for name in touched:
            if name in self._runs:
                views[name] = self._runs[name].view()
            else:
                views.pop(name, None)
        self._views = views
        effects = self._outbox.effects[:]
        self._outbox.effects.clear()
        for effect in effects:
            self._apply(effect)
        for name in touched:
            for listener in self._listeners:
                self._apply(partial(listener, name))
        self._ready |= touched

    def _hand_out_jobs(self) -> None:
        if self._failing:
            return
        for name in self._ready & self._runs.keys():
            run = self._runs[name]
            if job := run.next_job():
                self._pool.submit(job).add_done_callback(partial(self._job_done, name, run))
        self._ready = set()

    def _job_done(self, name: str, run: LiveRun, done: Future[Callable[[], None]]) -> None:
        """In a pool thread: bring the result to the writer."""
        self._commands.put(partial(self._take_result, name, run, done))

    def _take_result(self, name: str, run: LiveRun, done: Future[Callable[[], None]]) -> None:
        if done.cancelled() or self._runs.get(name) is not run:
            return
        self._touched.add(name)
        error = done.exception()
        if error is None:
            done.result()()
        elif isinstance(error, Exception):
            run.job_failed(error)
        else:
            raise error


def _warm_up() -> None:
    """Import what the first run needs, which takes longer than the start itself."""
    import pathwatch.server.metrics.summary  # noqa: F401

    with contextlib.suppress(plugins.PluginError):
        plugins.load_detector(plugins.DEFAULT_DETECTOR)


def _differing_fields(a: run_pb2.RunConfig, b: run_pb2.RunConfig) -> list[str]:
    return [
        field.name
        for field in run_pb2.RunConfig.DESCRIPTOR.fields
        if getattr(a, field.name) != getattr(b, field.name)
    ]
