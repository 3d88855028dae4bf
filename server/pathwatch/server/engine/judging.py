"""The queue of one run's closed rounds: judged one at a time, in order, on the compute pool."""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, islice
from typing import TypeAlias

from pathwatch.server import plugins
from pathwatch.server.engine.ahead import WorkAhead
from pathwatch.server.engine.clock import Clock
from pathwatch.server.engine.geometries import Geometries
from pathwatch.server.engine.group_work import GroupWork
from pathwatch.server.engine.hosting.process import CutOffError
from pathwatch.server.engine.judge import Judge, Judgement, PluginFailureError
from pathwatch.server.engine.outbox import settle
from pathwatch.server.engine.pair_work import Pair, PairWork, pair_works
from pathwatch.server.engine.refusal import Code, RefusedError
from pathwatch.server.engine.rounds import JudgedRound, judge_round
from pathwatch.server.failpoints import reach
from pathwatch.server.phases.verdict import Checkpoint, RankedCheckpoint
from pathwatch.server.sketch.run_sketch import Round, RunSketch
from pathwatch.server.store.interface import DamagedError, Store, StoreError
from pathwatch.server.store.rows import WindowRow
from pathwatch.v1 import run_pb2

log = logging.getLogger("pathwatch.server")

MAX_FAILURES = 3
"""A plug-in that was cut off so often in a row is not tried again before the server restarts."""
RETRY_SECONDS = 1.0
"""How long after the store could not be read for a judge it is read again."""
TRIES_A_LINE = 60
"""After so many tries that failed the log says so again."""

Work: TypeAlias = Callable[[], Callable[[], None]]
"""For the compute pool; what it returns is to be called in the writer thread."""


@dataclass(frozen=True, slots=True)
class Job:
    """A piece of work on a run."""

    work: Work
    help: Callable[[], None] | None = None
    """What another thread may do of it at the same time, if it has nothing else to do."""


@dataclass(frozen=True, slots=True)
class _ClosedRound:
    round: Round
    closed_at: float
    nbytes: int
    ahead: Mapping[str, GroupWork]
    """What was worked on before it closed."""
    ahead_pairs: Mapping[Pair, PairWork]


@dataclass(frozen=True, slots=True)
class _RankRequest:
    group: str | None
    limit: int
    future: Future[list[RankedCheckpoint]]


@dataclass(frozen=True, slots=True)
class _Rewind:
    """What stands in the queue before it is judged first, by a judge that knows it; what comes later, by one
    that never saw what was superseded."""


class JudgingQueue:
    """Hands out the work on a run, one job at a time, so that rounds are judged in step order.

    Used by the writer thread only. The judge is built from the stored rounds when it is first needed, and
    anew after a rewind.
    """

    def __init__(
        self,
        run: str,
        config: run_pb2.RunConfig,
        store: Store,
        clock: Clock,
        *,
        on_judged: Callable[[JudgedRound, float], None],
        on_rebuilt: Callable[[Judgement, list[WindowRow]], None],
        on_broken: Callable[[str], None],
    ) -> None:
        """`on_judged` gets a round's result and when it closed, on the steady clock.

        `on_rebuilt` gets, after a rewind, the judgement and the newest windows of what is left.
        `on_broken` gets why no round can be judged any more.
        """
        self._run = run
        self._config = config
        self._store = store
        self._clock = clock
        self._on_judged = on_judged
        self._on_rebuilt = on_rebuilt
        self._on_broken = on_broken
        self._ahead = WorkAhead(config, clock)
        self._todo: deque[_ClosedRound | _RankRequest | _Rewind] = deque()
        self._judge: Judge | None = None
        self._running: _ClosedRound | _RankRequest | None = None
        self._superseded = False
        """Whether what is running is a round that was superseded meanwhile."""
        self._rebuilding = False
        self._rewinding = False
        """Whether it is rebuilt for a rewind."""
        self._failures = 0
        """Jobs in a row that a plug-in did not survive, or that a fault of the service ended."""
        self._broken: str | None = None
        self._unread = 0
        """How often in a row the store could not be read."""
        self._retry_at: float | None = None

    @property
    def retry_at(self) -> float | None:
        """When the store is to be read again, on the steady clock; `look_again` then. No job before that."""
        return self._retry_at

    @property
    def waiting_rounds(self) -> int:
        """Closed rounds not judged yet."""
        return sum(isinstance(job, _ClosedRound) for job in (*self._todo, self._running))

    @property
    def waiting_bytes(self) -> int:
        """Bytes of the closed rounds that are not judged yet, and of what is worked on ahead."""
        closed = sum(job.nbytes for job in (*self._todo, self._running) if isinstance(job, _ClosedRound))
        return closed + self._ahead.nbytes

    @property
    def broken(self) -> str | None:
        """Why no round can be judged before the server restarts; None = all is well."""
        return self._broken

    @property
    def has_rounds(self) -> bool:
        """Whether verdicts are still to come."""
        rewound = any(isinstance(job, _Rewind) for job in self._todo)
        return self._broken is None and (rewound or self._rebuilding or self.waiting_rounds > 0)

    @property
    def is_idle(self) -> bool:
        """Whether nothing is under way or waits."""
        return self._running is None and not self._todo and not self._rebuilding

    def add_rounds(self, rounds: Sequence[Round]) -> None:
        """Queue rounds that closed now, in step order."""
        now = self._clock.steady()
        self._todo.extend(
            _ClosedRound(round_, now, round_.nbytes, self._ahead.of(round_), self._ahead.pairs)
            for round_ in rounds
        )
        self._drop_rounds_if_broken()

    def add_ranking(self, group: str | None, limit: int, future: Future[list[RankedCheckpoint]]) -> None:
        """Queue a ranking of checkpoints, best first, at most `limit` (0 = all)."""
        self._todo.append(_RankRequest(group, limit, future))

    def rewind(self, superseded: Callable[[Round], bool]) -> None:
        """Forget the superseded rounds and judge what comes as if they had never been."""
        self._todo = deque(
            job for job in self._todo if not (isinstance(job, _ClosedRound) and superseded(job.round))
        )
        # Asked now: once another attempt has begun, nobody can tell any more.
        if isinstance(self._running, _ClosedRound) and superseded(self._running.round):
            self._superseded = True
        if not (self._todo and isinstance(self._todo[-1], _Rewind)):
            self._todo.append(_Rewind())

    def drop(self, refusal: RefusedError) -> None:
        """The run is gone: tell who waits."""
        for job in (*self._todo, self._running):
            if isinstance(job, _RankRequest):
                settle(job.future, refusal)
        self._todo.clear()
        self.close()

    def look_again(self) -> None:
        """It may be time to read the store again."""
        if self._retry_at is not None and self._retry_at <= self._clock.steady():
            self._retry_at = None

    def close(self) -> None:
        """End the plug-ins that live in processes of their own; a call under way fails."""
        if self._judge is not None:
            self._judge.close()
            self._judge = None

    def release(self) -> None:
        """No more rounds will come: keep nothing for rankings that may never be asked for."""
        if self.is_idle:
            self.close()

    def next_job(self, geometries: Geometries, checkpoints: Sequence[Checkpoint]) -> Job | None:
        """The next piece of work, unless one is under way. Everything decided so far must be committed."""
        if self._running is not None or self._rebuilding or self._retry_at is not None:
            return None
        if self._broken is not None:
            self.drop(RefusedError(Code.FAILED_PRECONDITION, self._broken))
            return None
        if not self._todo:
            return None
        first = self._todo[0]
        if isinstance(first, _Rewind):
            self._todo.popleft()
            return self._rebuild(checkpoints, rewinding=True)
        if self._judge is None:
            return self._rebuild(checkpoints, rewinding=False)
        self._todo.popleft()
        self._running, self._superseded = first, False
        if isinstance(first, _ClosedRound):
            return self._judge_round(first, self._judge, geometries, checkpoints)
        return self._rank(first, self._judge, checkpoints)

    def work_ahead(
        self, sketch: RunSketch, newest: Mapping[str, WindowRow], geometries: Geometries, attempt: int
    ) -> Callable[[], None] | None:
        """Something to do for a thread that has nothing else to do, for the round that closes next.

        `newest` are the newest windows of the groups: what comes is likely to hold as many samples.
        """
        judge = self._judge
        step = sketch.next_step
        if step is None or judge is None or not judge.measures_in_any_thread:
            return None
        geometry = geometries.at(attempt, step)
        expected = {group: row.metrics.get("window_samples", math.inf) for group, row in newest.items()}
        return self._ahead.next(
            sketch,
            expected,
            geometry,
            lambda window: GroupWork(self._config, lambda: window, geometry, judge.measure, window.nbytes),
        )

    def failed(self, error: Exception) -> None:
        """The last job raised: a plug-in that is no longer there, a store that is away, or a fault of the
        service."""
        job, self._running = self._running, None
        self._rebuilding = False
        self.close()  # it may have taken half a round; the stored ones make it anew
        if isinstance(job, _RankRequest):
            settle(job.future, error)
            return
        if job is not None:
            log.error(
                "round %d of run %r could not be judged",
                job.round.step,
                self._run,
                exc_info=error,
                extra={"run": self._run, "step": job.round.step},
            )
            if not self._superseded:
                self._todo.appendleft(replace(job, ahead={}, ahead_pairs={}))
        if self._rewinding:
            self._todo.appendleft(_Rewind())
        self._rewinding = False
        if isinstance(error, StoreError) and not isinstance(error, DamagedError):
            self._wait_for_store(error)
        else:
            self._count_failure(error)

    def _wait_for_store(self, error: StoreError) -> None:
        """It comes back by itself, which nothing else does that keeps a round from being judged."""
        if self._unread % TRIES_A_LINE == 0:
            words = "run %r is judged once what is stored of it can be read: %s"
            log.warning(words, self._run, error, extra={"run": self._run})
        self._unread += 1
        self._todo = deque(job for job in self._todo if not _is_given_up(job))
        self._retry_at = self._clock.steady() + RETRY_SECONDS

    def _count_failure(self, why: object) -> None:
        self._failures += 1
        # What is not installed will not be there in a moment; what was slow to load may be quicker.
        hopeless = isinstance(why, plugins.PluginError) and not isinstance(why.__cause__, CutOffError)
        if self._failures < MAX_FAILURES and not hopeless:
            return
        self._broken = f"run {self._run!r} cannot be judged: {why}; restart the server when that is mended"
        log.error("%s", self._broken, extra={"run": self._run})
        self._drop_rounds_if_broken()
        self._on_broken(self._broken)

    def _drop_rounds_if_broken(self) -> None:
        # Their batches stay in the store and are judged after a restart.
        if self._broken is not None:
            self._todo = deque(job for job in self._todo if isinstance(job, _RankRequest))

    def _rebuild(self, checkpoints: Sequence[Checkpoint], *, rewinding: bool) -> Job:
        self._rebuilding = True
        self._rewinding = rewinding
        self.close()
        run, config, store = self._run, self._config, self._store

        def work() -> Callable[[], None]:
            rows = iter(store.windows(run))
            first = list(islice(rows, 1))  # before plug-ins are started in vain
            judge = Judge(config)
            try:
                judge.rebuild(chain(first, rows), checkpoints)
                windows = store.newest_windows(run) if rewinding else []
            except BaseException:
                judge.close()
                raise
            return lambda: self._done_rebuilding(judge, windows)

        return Job(work)

    def _done_rebuilding(self, judge: Judge, windows: list[WindowRow]) -> None:
        rewound, self._rewinding = self._rewinding, False
        self._rebuilding, self._unread = False, 0
        self._judge = judge
        if judge.lost:  # in ranking the checkpoints; the rounds were taken
            self.close()
            self._count_failure(judge.lost)
        if rewound:
            self._on_rebuilt(judge.last, windows)

    def _judge_round(
        self, job: _ClosedRound, judge: Judge, geometries: Geometries, checkpoints: Sequence[Checkpoint]
    ) -> Job:
        run, config = self._run, self._config
        geometry = geometries.at(job.round.attempt, job.round.step)
        measured = judge.measures_in_any_thread and not job.round.missing_ranks
        groups = {
            group: job.ahead[group]
            if group in job.ahead and job.ahead[group].holds_with(geometry)
            else GroupWork(
                config,
                partial(job.round.windows.__getitem__, group),
                geometry,
                judge.measure if measured else None,
            )
            for group in job.round.windows
        }
        pairs = pair_works(config, groups, len(groups), job.ahead_pairs)

        def work() -> Callable[[], None]:
            reach("round.closed")
            judged = judge_round(run, config, job.round, geometry, judge, checkpoints, groups, pairs)
            return lambda: self._done_judging(judged, job.closed_at, judge)

        def help_() -> None:
            for of_group in reversed(groups.values()):
                of_group.do()
            for of_pair in reversed(pairs.values()):
                of_pair.do()

        return Job(work, help_ if len(groups) > 1 else None)

    def _done_judging(self, judged: JudgedRound, closed_at: float, judge: Judge) -> None:
        self._running = None
        if not self._superseded:
            self._on_judged(judged, closed_at)
        if judge.lost:
            self.close()
            self._count_failure(judge.lost)
        else:
            self._failures = 0

    def _rank(self, job: _RankRequest, judge: Judge, checkpoints: Sequence[Checkpoint]) -> Job:
        def work() -> Callable[[], None]:
            try:
                ranked = judge.rank(checkpoints, job.group)
            except PluginFailureError as failure:
                answer: list[RankedCheckpoint] | Exception = RefusedError(Code.INTERNAL, str(failure))
            else:
                answer = ranked[: job.limit] if job.limit else ranked
            return lambda: self._done_ranking(job, answer, judge)

        return Job(work)

    def _done_ranking(
        self, job: _RankRequest, answer: list[RankedCheckpoint] | Exception, judge: Judge
    ) -> None:
        self._running = None
        settle(job.future, answer)
        if judge.lost:  # the next round is to find a plug-in that lives
            self.close()
            self._count_failure(judge.lost)


def _is_given_up(job: _ClosedRound | _RankRequest | _Rewind) -> bool:
    """Whether nobody waits for it any more."""
    return isinstance(job, _RankRequest) and job.future.cancelled()
