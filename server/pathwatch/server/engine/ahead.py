"""Work on the window that closes next, for threads that have nothing else to do.

Observations come over a while, a verdict is waited for: what can be computed of a window before it closes is.
A group is worked on when its samples seem to be all there, and two for which that is done are compared. What
becomes of that is used only if the groups are the same, in every observation, when their window closes:
numbers do not depend on what was done ahead.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from pathwatch.server.engine.clock import Clock
from pathwatch.server.engine.group_work import GroupWork
from pathwatch.server.engine.pair_work import Pair, PairWork, pair_works
from pathwatch.server.metrics.window import Geometry, WindowArrays
from pathwatch.server.sketch.run_sketch import Round, RunSketch
from pathwatch.v1 import run_pb2

PAUSE_SECONDS = 0.25
"""A group that was worked on in vain is left alone for so long, and twice as long each time."""


@dataclass(slots=True)
class _Group:
    work: GroupWork | None = None
    state: object = None
    """Of the window sketch, as of the work."""
    tries: int = 0
    not_before: float = 0.0
    """On the steady clock."""


class WorkAhead:
    """Of one run; used by the writer thread."""

    def __init__(self, config: run_pb2.RunConfig, clock: Clock) -> None:
        self._config = config
        self._clock = clock
        self._step: int | None = None
        """Of the window at work."""
        self._groups: dict[str, _Group] = {}
        self.pairs: Mapping[Pair, PairWork] = {}
        """Of groups whose work was done; of use with that same work only."""

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays that are held for it."""
        return sum(group.work.nbytes for group in self._groups.values() if group.work is not None)

    def next(
        self,
        sketch: RunSketch,
        expected: Mapping[str, float],
        geometry: Geometry | None,
        make: Callable[[WindowArrays], GroupWork],
    ) -> Callable[[], None] | None:
        """Something that may be done now; None = nothing is worth it.

        `expected` are the samples that each group is likely to hold in the end; one of which that is not
        known is left until its window closes. Nothing is done before the last step of a window has begun.
        """
        step = sketch.next_step
        if step is None or sketch.newest_step < step:
            return None
        if step != self._step:
            self._step, self._groups, self.pairs = step, {}, {}
        now = self._clock.steady()
        states = sketch.next_states()
        for name, (state, samples) in states.items():
            group = self._groups.setdefault(name, _Group())
            done = group.work is not None and group.state is state and group.work.holds_with(geometry)
            if done or now < group.not_before or samples < expected.get(name, float("inf")):
                continue
            group.not_before = now + PAUSE_SECONDS * 2**group.tries
            group.tries += 1
            window = sketch.peek(name)
            if window is not None and not window.partial:
                group.work, group.state = make(window), state
                return group.work.do
        ready = {
            name: group.work
            for name, group in self._groups.items()
            if group.work is not None
            and group.work.done
            and group.work.holds_with(geometry)
            and group.state is states[name][0]
        }
        self.pairs = pair_works(self._config, ready, len(states.keys() | expected.keys()), self.pairs)
        return (
            partial(_do_all, left)
            if (left := [pair for pair in self.pairs.values() if not pair.done])
            else None
        )

    def of(self, round_: Round) -> dict[str, GroupWork]:
        """What was done, or is being done, of a round that has closed; by group."""
        return {
            name: group.work
            for name, group in self._groups.items()
            if group.work is not None and round_.states.get(name) is group.state
        }


def _do_all(pairs: Sequence[PairWork]) -> None:
    for pair in pairs:
        pair.do()
