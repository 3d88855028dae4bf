"""What ranks are asked for of the observations they hold back (docs/sampling.md)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from pathwatch.server.engine.streams import Advice, Plan, RankStream, SampleRequest, Withheld
from pathwatch.server.sketch.run_sketch import RunSketch

ALL = 2**64 - 1
"""The largest hash: a request through it asks for every sample."""
_EVERY_GROUP = ""
_SIGMAS = 2.0
"""How far above what is expected to be enough is asked, in standard deviations of the number of samples."""
_MEMORY = 0.25
"""Weight of the newest window in what is expected of the next."""
_NEWS = 0.02
"""By which part an expectation must change to be told again."""
_FEWEST = 16
"""Samples below which they do not say how many more there are."""
_MOST_ROUNDS = 4
_PATIENCE = 0.5
"""Part of the grace time without all ranks after which those that wait are asked for everything."""


@dataclass(slots=True)
class _Window:
    since: float
    """When a rank began to wait, or all were asked last; steady clock."""
    waiting: dict[int, tuple[RankStream, Withheld]] = field(default_factory=dict)
    new: set[int] = field(default_factory=set)
    """Ranks whose report was not looked at yet."""
    awaited: set[int] | None = None
    """Ranks that have neither passed the window nor heeded the newest round; None = not looked at yet."""
    round: int = 0
    through: dict[str, int] = field(default_factory=dict)
    full: set[str] = field(default_factory=set)
    closed: bool = False
    """Whether those that waited when it closed have been answered."""


class Sampling:
    """What is known and asked of the windows of one attempt that ranks hold observations of.

    Nothing here decides what a window comes to: a rank passes a window only when all it holds of it was asked
    for, or can change nothing any more by the window's own hash limit. A wrong guess costs bytes or a round.
    """

    def __init__(self, plan: Plan, *, grace_seconds: float) -> None:
        self.plan = plan
        self._patience = _PATIENCE * grace_seconds
        self._windows: dict[int, _Window] = {}  # by last step
        self._window_of: dict[int, int] = {}  # by rank
        self._limits: dict[str, float] = {}
        self._expected: dict[str, int] = {}
        self._told: dict[str, int] = {}
        self._version = 0

    def greet(self, stream: RankStream) -> None:
        """A rank has opened a stream: it may hold back."""
        stream.plan = self.plan

    def report(self, stream: RankStream, withheld: Withheld, now: float) -> None:
        """A rank says what it holds back."""
        self._forget(stream.rank)
        if withheld.until_step is None:
            return
        window = self._windows.setdefault(withheld.until_step, _Window(now))
        window.waiting[stream.rank] = (stream, withheld)
        window.new.add(stream.rank)
        self._window_of[stream.rank] = withheld.until_step

    def passed(self, rank: int, step: int) -> None:
        """A rank has sent everything up to `step`."""
        if self._window_of.get(rank, step + 1) <= step:
            self._forget(rank)
        for until, window in self._windows.items():
            if until <= step and window.awaited is not None:
                window.awaited.discard(rank)

    def closed(self, hash_limits: Mapping[str, int | None]) -> None:
        """Windows have closed with these hash limits by group; None = all samples were kept."""
        for group, limit in hash_limits.items():
            if limit is None:
                self._limits.pop(group, None)
                expected = ALL
            else:
                before = self._limits.get(group, limit)
                self._limits[group] = before + _MEMORY * (limit - before)
                margin = 1 + _SIGMAS / math.sqrt(self.plan.capacity)
                expected = min(ALL, int(self._limits[group] * margin))
            self._expected[group] = expected
            if abs(expected - self._told.get(group, -ALL)) > _NEWS * expected:
                self._told[group] = expected
                self._version += 1

    def tell(self, stream: RankStream) -> None:
        """An answer goes out: with it what is expected of windows to come, where the rank does not know.

        Without limits of the window it waits for that ranks were not asked up to: it would send all below.
        """
        until = self._window_of.get(stream.rank)
        if stream.advice and until is not None and (window := self._windows.get(until)) is not None:
            stream.advice = [
                advice
                for advice in stream.advice
                if advice.until_step != until or advice.threshold <= self._asked(window, advice.group) + 1
            ]
        if stream.expectations != self._version:
            stream.expectations = self._version
            stream.requests += [
                SampleRequest(group=group, through=through) for group, through in self._told.items()
            ]

    def next_deadline(self) -> float | None:
        """When `answer` has something to say though nobody reports; steady clock."""
        since = min((window.since for window in self._windows.values()), default=math.inf)
        return None if math.isinf(since) else since + self._patience

    def answer(self, sketch: RunSketch, now: float) -> Iterator[RankStream]:
        """Give those who wait what there is to say; the streams that are to be answered."""
        for until, window in sorted(self._windows.items()):
            if not window.waiting:
                del self._windows[until]
            elif until <= sketch.closed_step:
                ranks = window.new if window.closed else set(window.waiting)
                yield from self._ask(until, window, {_EVERY_GROUP: ALL}, ranks)
                window.since, window.closed = math.inf, True
            else:
                yield from self._answer_open(until, window, sketch, now)
            window.new.clear()

    def _answer_open(
        self, until: int, window: _Window, sketch: RunSketch, now: float
    ) -> Iterator[RankStream]:
        kept = sketch.kept(until)
        full = {
            group: limit
            for group, (_, limit) in kept.items()
            if limit is not None and limit <= self._asked(window, group) + 1
        }
        news = full.keys() - window.full
        window.full |= news
        for rank in list(window.waiting) if news else window.new:
            stream = window.waiting[rank][0]
            for group in full if rank in window.new else news:
                # Even where it has heard of a limit a little higher: it waits for one to hold to.
                stream.advice.append(Advice(group=group, until_step=until, threshold=full[group]))
            yield stream
        misnamed = {rank for rank in window.new if window.waiting[rank][1].holds_misnamed}
        yield from self._ask(until, window, {_EVERY_GROUP: ALL}, misnamed)
        if behind := {rank for rank in window.new if window.waiting[rank][1].round < window.round}:
            yield from self._ask(until, window, window.through, behind)
        if window.awaited is None and window.new:
            window.awaited = set(sketch.ranks_behind(until))
        if window.awaited is not None:
            window.awaited -= window.new - behind
        overdue = now >= window.since + self._patience
        if not overdue and (window.awaited is None or window.awaited):
            return
        more = self._more(window, kept, overdue=overdue)
        window.since = now if more else math.inf
        window.awaited = set(window.waiting) if more else None
        if more:
            window.round += 1
            window.through |= more
            yield from self._ask(until, window, more, set(window.waiting))

    def _ask(
        self, until: int, window: _Window, through: Mapping[str, int], ranks: set[int]
    ) -> Iterator[RankStream]:
        for rank in ranks:
            stream = window.waiting[rank][0]
            stream.requests += [
                SampleRequest(group=group, until_step=until, round=window.round, through=value)
                for group, value in through.items()
            ]
            yield stream

    def _asked(self, window: _Window, group: str) -> int:
        """Through which hash ranks were asked for a group; −1 = nobody was.

        A limit above it comes from samples that happened to be sent as well, and is far too high.
        """
        if _EVERY_GROUP in window.through:
            return ALL
        return max(window.through.get(group, -1), self._expected.get(group, -1))

    def _more(
        self, window: _Window, kept: Mapping[str, tuple[int, int | None]], *, overdue: bool
    ) -> dict[str, int]:
        """What to ask for next, by group; empty = all that there is has been asked for."""
        if _EVERY_GROUP in window.through:
            return {}
        held: dict[str, int] = {}
        for _, withheld in window.waiting.values():
            for group, samples in withheld.groups.items():
                held[group] = held.get(group, 0) + samples
        if overdue or window.round >= _MOST_ROUNDS:
            return {_EVERY_GROUP: ALL}
        more = {}
        for group in sorted({*kept, *held, *self._expected} - window.full):
            asked, expected = window.through.get(group), self._expected.get(group)
            if asked is None and (group in held or expected == ALL):
                # Some have not heard of what is expected; where nothing is, the number held says it.
                through = expected if expected is not None else self._first(held[group])
            else:
                asked = expected if asked is None else asked
                if asked is None or asked == ALL:
                    continue
                size, limit = kept.get(group, (0, None))
                # Of as many as are kept, those that were not asked for are not known to be the smallest.
                through = self._further(asked, size) if limit is None else min(limit - 1, 2 * asked)
            more[group] = through
        return more

    def _first(self, held: int) -> int:
        """Through which hash to ask so that of so many samples about enough come."""
        capacity = self.plan.capacity
        enough = capacity + _SIGMAS * math.sqrt(capacity)
        return ALL if held <= enough else int(ALL * (enough / held))

    def _further(self, through: int, size: int) -> int:
        """The same where samples through a hash were asked for, and so many are there."""
        if size < _FEWEST:
            return ALL
        missing = self.plan.capacity - size
        more = missing + _SIGMAS * math.sqrt(missing) + _SIGMAS * missing / math.sqrt(size)
        return min(ALL, through + int(through * (more / size)))

    def _forget(self, rank: int) -> None:
        until = self._window_of.pop(rank, None)
        if until is not None and (window := self._windows.get(until)) is not None:
            window.waiting.pop(rank, None)
            window.new.discard(rank)
