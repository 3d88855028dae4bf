"""The writer thread: owns the state of all runs, makes it durable, then answers.

Commands come in a queue that is fair between runs; the writer takes a batch, applies it, commits once,
and only then lets anyone know: acks, answers, views for readers, watchers. Metrics and verdicts are
computed on a pool, one job per run at a time.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Executor, Future
from functools import partial
from typing import TypeAlias, TypeVar

from pathwatch.server import plugins
from pathwatch.server.config import Limits
from pathwatch.server.engine.adoption import Adoption
from pathwatch.server.engine.clock import Clock
from pathwatch.server.engine.commands import Command, CommandQueue
from pathwatch.server.engine.committing import commit
from pathwatch.server.engine.compute_pool import ComputePool
from pathwatch.server.engine.creation import check_new, check_same, first_row, refusal_of
from pathwatch.server.engine.in_hand import RunsInHand
from pathwatch.server.engine.kept_bytes import KeptBytes
from pathwatch.server.engine.live_run import LiveRun
from pathwatch.server.engine.outbox import Outbox, settle
from pathwatch.server.engine.refusal import Code, RefusedError, no_run
from pathwatch.server.engine.renewal import Renewal
from pathwatch.server.engine.run_config import hosts_nothing, plugin_violations, violations, with_defaults
from pathwatch.server.engine.shared import Shared
from pathwatch.server.engine.stats import Stats
from pathwatch.server.engine.streams import Message, RankStream
from pathwatch.server.engine.view import RunView
from pathwatch.server.failpoints import reach
from pathwatch.server.phases.verdict import Checkpoint, RankedCheckpoint
from pathwatch.server.store.interface import FencedError, Store, StoreError
from pathwatch.server.store.leases import Held, Leases
from pathwatch.server.store.rows import DeleteRun
from pathwatch.v1 import run_pb2

T = TypeVar("T")
Action: TypeAlias = Callable[[LiveRun], None]

log = logging.getLogger("pathwatch.server")

RETRY_SECONDS = 1.0
"""How long after a failed commit the next is tried if nothing comes."""


class Engine:
    """State of all runs, or of those that are this server's where several share a store.

    Every method may be called from any thread; answers come as futures.
    """

    def __init__(
        self,
        store: Store,
        *,
        limits: Limits,
        compute_threads: int = 2,
        clock: Clock | None = None,
        pool: Executor | None = None,
        leases: Leases | None = None,
    ) -> None:
        """`leases` say which runs are whose where the store is shared; None = all are this server's.

        `clock` and `pool` are for tests that hold time and the computing in hand.
        """
        self.stats = Stats()
        self._store = store
        self._limits = limits
        self._clock = clock or Clock()
        self._outbox = Outbox()
        self._shared = Shared(store, limits, self._outbox, self.stats, self._clock, KeptBytes(limits))
        self._commands = CommandQueue()
        self._pool = ComputePool(compute_threads, pool)
        self._ahead = False
        """Whether something is done for a round that has not closed."""
        self._runs = RunsInHand(self._shared)
        self._quarantine = self._runs.quarantine
        self._leases = leases
        self._adoption: Adoption | None = None
        self._renewal: Renewal | None = None
        if leases is not None:
            self._adoption = Adoption(self._runs, self._shared, leases)
            self._renewal = Renewal(leases, self._renewed)
        self._touched: set[str] = set()
        """Runs that changed since the last commit."""
        self._ready: set[str] = set()
        """Runs whose state is committed and that may have work to hand out."""
        self._checking = threading.Lock()
        self._checked: list[tuple[str, bytes]] = []
        """Runs, by name and configuration, whose plug-ins can be loaded, once for each call."""
        self._failing = False
        self._unstored: Collection[str] = ()
        """Runs of which the last commit has not stored all."""
        self._views: Mapping[str, RunView] = {}
        self._listeners: tuple[Callable[[str], None], ...] = ()
        self._thread = threading.Thread(target=self._write_until_stopped, name="pathwatch-writer")

    def start(self) -> None:
        """Recover all runs from the store and begin; from a shared one each when it is asked for.

        Raises StoreError.
        """
        plugins.look_again()
        if self._renewal is None:
            self._runs.take_up_all()
        else:
            self._renewal.start()
        self._views = {name: run.view() for name, run in self._runs.live.items()}
        self._touched.update(self._runs.live)
        self._pool.submit(_warm_up)  # before any work on a run
        self._thread.start()

    def stop(self) -> None:
        """Apply and commit what was submitted, then end; unfinished rounds are judged after a restart.

        Or by whoever has the run next: nothing is written here any more.
        """
        self._commands.close()
        self._thread.join()
        if self._renewal is not None:
            self._renewal.stop()
        if self._adoption is not None:
            self._adoption.release_all()
        self._runs.close()
        self._pool.shutdown()

    @property
    def views(self) -> Mapping[str, RunView]:
        """All runs in hand as of the last commit, by name; never changed, replaced as a whole."""
        return self._views

    @property
    def leases(self) -> Leases | None:
        """Of the runs that are this server's, beside which there may be others'; None = it has all."""
        return self._leases

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
        run = message.stream.run
        ingest = partial(self._on_open, run, lambda run: run.ingest(message))
        self._submit(run, ingest, message.stored_bytes)

    def leave(self, stream: RankStream) -> Future[RunView]:
        """A stream has ended; the future is done when nothing of it is held any more."""
        return self._call(stream.run, lambda run: run.leave(stream), self._on_open)

    # Runs.

    def adopt(self, name: str) -> Future[RunView]:
        """The run, whether or not it was in hand before. Or a RefusedError: a MovedError says whose it is."""
        future: Future[RunView] = Future()
        if self._leases is not None:
            return self._call(name, lambda run: None)
        settle(future, self._views.get(name) or no_run(name))
        return future

    def create_run(
        self, name: str, config: run_pb2.RunConfig, attempt: int
    ) -> Future[tuple[run_pb2.Run, bool]]:
        """The run, and whether it is new. Or a RefusedError."""
        future: Future[tuple[run_pb2.Run, bool]] = Future()
        full = with_defaults(config)
        create = partial(self._answering, future, partial(self._create, future, name, full, attempt))

        def check_first() -> None:
            try:
                key = name, full.SerializeToString(deterministic=True)
                with self._checking:  # of many ranks that create one run, the first is enough
                    known = key in self._checked or name in self._views
                    problems = [] if known else plugin_violations(full)
                    if not problems:  # until the run is stored, which may take long, nobody sees it
                        self._checked.append(key)
                        future.add_done_callback(lambda _: self._checked.remove(key))
            except Exception as error:
                log.exception("the plug-ins of run %r cannot be checked", name, extra={"run": name})
                settle(future, error)
                return
            if problems:
                settle(future, refusal_of(problems))
            else:
                self._submit(name, create)

        if name in self._views or violations(name, full, self._limits) or hosts_nothing(full):
            self._submit(name, create)
        else:  # plug-ins of others may hang when they are loaded
            threading.Thread(target=check_first, name="pathwatch-plugin-check", daemon=True).start()
        return future

    def finish_run(self, name: str) -> Future[run_pb2.Run]:
        """Close and judge everything open; the future gets the finished run."""
        future: Future[run_pb2.Run] = Future()
        finish = partial(self._with_run, name, lambda run: run.finish(future))
        self._submit(name, partial(self._answering, future, finish))
        return future

    def delete_run(self, name: str) -> Future[None]:
        """Remove a run and its data."""
        future: Future[None] = Future()
        self._submit(name, partial(self._answering, future, partial(self._delete, future, name)))
        return future

    def register_checkpoint(self, name: str, checkpoint: Checkpoint) -> Future[RunView]:
        """Make a checkpoint known."""
        return self._call(name, lambda run: run.register(checkpoint))

    def rank_checkpoints(self, name: str, group: str | None, limit: int) -> Future[list[RankedCheckpoint]]:
        """Checkpoints best first (None = overall), at most `limit` (0 = all)."""
        future: Future[list[RankedCheckpoint]] = Future()
        rank = partial(self._with_run, name, lambda run: run.judging.add_ranking(group, limit, future))
        self._submit(name, partial(self._answering, future, rank))
        return future

    def _submit(self, run: str, command: Command, size: int = 0) -> None:
        # Runs that do not exist share one turn: names alone give nobody more of the writer.
        self._commands.put(run, command, size, shares=run not in self._views)

    # The writer thread.

    def _call(
        self, name: str, action: Action, on: Callable[[str, Action], None] | None = None
    ) -> Future[RunView]:
        """The run after the action; `on` finds it, `_with_run` unless given."""
        future: Future[RunView] = Future()

        def act(run: LiveRun) -> None:
            action(run)
            self._outbox.effects.append(lambda: settle(future, run.dropped or run.view()))

        self._submit(name, partial(self._answering, future, partial(on or self._with_run, name, act)))
        return future

    def _answering(self, future: Future[T], command: Callable[[], None]) -> None:
        """Whoever waits for the command hears of its failure."""
        try:
            command()
        except RefusedError as refusal:
            self.stats.count_limit(refusal)
            settle(future, refusal)
        except Exception as error:
            log.exception("a fault of the service")
            settle(future, error)

    def _with_run(self, name: str, action: Action) -> None:
        self._act(name, self._find(name), action)

    def _on_open(self, name: str, action: Action) -> None:
        """As `_with_run`, for what comes of an open stream: there is none of a run that is not in hand."""
        self._act(name, self._runs.get(name), action)

    def _act(self, name: str, run: LiveRun | None, action: Action) -> None:
        if run is None:
            raise no_run(name)
        self._touched.add(name)
        self._changing(name, partial(action, run))

    def _find(self, name: str) -> LiveRun | None:
        """The run, from now on in hand; None = there is none. Raises RefusedError."""
        run = self._runs.get(name)
        if run is not None or self._adoption is None:
            return run
        self._touched.update(self._adoption.make_room(self._touched))
        return self._adoption.adopt(name)

    def _changing(self, name: str, change: Callable[[], None]) -> None:
        """Change a run; if that fails in the middle, the run is taken up again from the store."""
        try:
            change()
        except RefusedError:
            raise
        except Exception:
            self._quarantine.interrupted(name)
            self._touched.add(name)
            raise

    def _create(
        self,
        future: Future[tuple[run_pb2.Run, bool]],
        name: str,
        config: run_pb2.RunConfig,
        attempt: int,
    ) -> None:
        run, created = self._create_or_find(name, config, attempt)
        self._touched.add(name)
        self._outbox.effects.append(lambda: settle(future, run.dropped or (run.view().run, created)))

    def _create_or_find(self, name: str, config: run_pb2.RunConfig, attempt: int) -> tuple[LiveRun, bool]:
        run = self._find(name)
        if run is None:
            check_new(name, config, attempt, self._limits, len(self._runs.live))
            run = self._adoption.begin(name) if self._adoption is not None else None
        if run is None:
            row = first_row(name, config, attempt, self._clock.wall())
            run = self._runs.live[name] = LiveRun.create(row, self._shared)
            return run, True
        check_same(name, run.config, config)
        if attempt > run.row.attempt:
            run.start_attempt(attempt)
        return run, False

    def _delete(self, future: Future[None], name: str) -> None:
        if name not in self._runs.live and name not in self._quarantine.closed and self._find(name) is None:
            raise no_run(name)
        self._runs.drop(name, RefusedError(Code.NOT_FOUND, f"run {name!r} was deleted"))
        self._quarantine.forget(name)
        if self._adoption is not None:
            self._adoption.deleting(name)
        self._touched.add(name)
        self._outbox.writes.append(DeleteRun(run=name))
        reach("delete.begun")
        self._outbox.effects.append(lambda: self._deleted(future, name))

    def _deleted(self, future: Future[None], name: str) -> None:
        """Answer, when it is committed; a run that the store has refused is there again."""
        if self._adoption is not None:
            self._adoption.deleted(name)
        if self._adoption is not None and name in self._adoption.lost:
            settle(future, self._adoption.lost[name])
        elif name in self._unstored and (name in self._runs.live or self._quarantine.holds(name)):
            problem = f"run {name!r} is not deleted: the store refuses what is made of it here; try again"
            settle(future, RefusedError(Code.UNAVAILABLE, problem))
        else:
            settle(future, None)

    def _renewed(self, lost: Mapping[str, Held]) -> None:
        """In the thread that renews leases: bring it to the writer."""
        # One that stops ends when nothing waits, which may never be where the store is slower than this.
        if not self._commands.closed:
            self._commands.put_urgent(partial(self._take_renewed, lost))

    def _take_renewed(self, lost: Mapping[str, Held]) -> None:
        if self._adoption is not None:
            self._touched |= self._adoption.renewed(lost)

    def _write_until_stopped(self) -> None:
        while not self._commands.finished:
            for command in self._commands.take(self._timeout()):
                self._apply(command)
                if self._adoption is not None and self._adoption.has_taken():
                    self._commit()  # who waits for this run need not wait for the next to be taken up
            self._commit()
            if not self._commands.closed:
                self._hand_out_jobs()

    def _timeout(self) -> float | None:
        if self._touched and not self._failing:
            return 0.0
        deadlines = [d for _, run in self._runs.trusted() if (d := run.next_deadline()) is not None]
        waits = [max(0.0, min(deadlines) - self._clock.steady())] if deadlines else []
        if self._failing or self._quarantine.hit:
            waits.append(RETRY_SECONDS)
        return min(waits, default=None)

    def _apply(self, command: Command) -> None:
        try:
            command()
        except RefusedError:
            pass  # a message for a run that was deleted while it waited
        except Exception:
            log.exception("a fault of the service; what was at hand is not done")

    def _commit(self) -> None:
        """Make everything durable, then let everyone know; on failure nobody hears and it is tried again."""
        for name, run in self._runs.trusted():
            deadline = run.next_deadline()
            if name in self._touched or (deadline is not None and deadline <= self._clock.steady()):
                self._touched.add(name)
                self._apply(partial(self._changing, name, run.close_ready))
        for name, run in self._runs.trusted():
            if name in self._touched:
                self._apply(partial(self._changing, name, run.flush))
        self._unstored = ()
        if self._outbox.writes:
            try:
                unstorable = commit(self._store, self._outbox.writes, self._quarantine.hit)
            except StoreError as error:
                self.stats.commit_failures += 1
                if not self._failing:
                    log.error("%s; nothing is acknowledged until it can be written", error)
                self._failing = True
                return
            if self._failing:
                log.warning("the store can be written again")
            self._unstored = unstorable.keys()
            for name, reason in unstorable.items():
                if self._adoption is not None and isinstance(reason, FencedError):
                    self._adoption.fenced(name, reason.owner)
                    self._touched.add(name)
                else:
                    self._quarantine.unstorable(name, reason)
        self._failing = False  # also where what could not be written was of a run that is lost
        touched = self._touched
        self._touched = self._runs.take_up_again(RETRY_SECONDS)
        views = dict(self._views)
        for name in touched:
            if name in self._runs.live:
                views[name] = self._runs.live[name].view()
            elif not self._quarantine.holds(name):
                views.pop(name, None)
            elif name in views:
                views[name] = views[name].disconnected()
        self._views = views
        effects = self._outbox.effects[:]
        self._outbox.effects.clear()
        for effect in effects:
            self._apply(effect)
        if self._adoption is not None:
            self._adoption.lost.clear()
        for name in touched:
            for listener in self._listeners:
                self._apply(partial(listener, name))
        self._ready |= touched - self._touched

    def _hand_out_jobs(self) -> None:
        if self._failing:
            return
        ready = {name: run for name, run in self._runs.live.items() if name in self._ready}
        for name, run in ready.items():
            self._apply(partial(self._changing, name, partial(self._hand_out_job, name, run)))
        for name, run in ready.items():
            self._work_ahead(name, run)
        self._ready = set()

    def _hand_out_job(self, name: str, run: LiveRun) -> None:
        if job := run.next_job():
            self._pool.submit(job.work).add_done_callback(partial(self._job_done, name, run))
            if job.help is not None and self._pool.idle:
                self._pool.submit(job.help)

    def _work_ahead(self, name: str, run: LiveRun) -> None:
        """At most one such thing at a time: whatever closes meanwhile finds a thread."""
        if self._ahead or not self._pool.idle:
            return
        try:
            if work := run.work_ahead():
                self._pool.submit(work).add_done_callback(lambda _: self._ahead_done(name, run))
                self._ahead = True
        except Exception:  # the window is computed when it closes
            log.exception("nothing is done ahead of a window of run %r", name, extra={"run": name})

    def _ahead_done(self, name: str, run: LiveRun) -> None:
        """In a pool thread."""
        self._commands.put_urgent(partial(self._take_ahead, name, run))

    def _take_ahead(self, name: str, run: LiveRun) -> None:
        self._ahead = False
        if self._runs.live.get(name) is run and not self._failing:
            self._work_ahead(name, run)

    def _job_done(self, name: str, run: LiveRun, done: Future[Callable[[], None]]) -> None:
        """In a pool thread: bring the result to the writer."""
        self._commands.put_urgent(partial(self._take_result, name, run, done))

    def _take_result(self, name: str, run: LiveRun, done: Future[Callable[[], None]]) -> None:
        if done.cancelled() or self._runs.live.get(name) is not run or name in self._quarantine.hit:
            return
        self._touched.add(name)
        error = done.exception()
        if error is None:
            self._changing(name, done.result())
        elif isinstance(error, Exception):
            self._changing(name, partial(run.job_failed, error))
        else:
            raise error


def _warm_up() -> None:
    """Import what the first run needs, which takes longer than the start itself."""
    import pathwatch.server.metrics.summary  # noqa: F401

    with contextlib.suppress(plugins.PluginError):
        plugins.load_detector(plugins.DEFAULT_DETECTOR)
