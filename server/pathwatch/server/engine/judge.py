"""From rounds to verdicts: detector, policy and memorization of one run.

A function of the rounds in order: a restart or a rewind builds a fresh judge and feeds it the stored ones.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import groupby
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from pathwatch.server import plugins
from pathwatch.server.engine.arrays import pack, unpack
from pathwatch.server.engine.hosting.hosted import close, is_hosted, open_detector, open_metric, open_policy
from pathwatch.server.engine.hosting.process import CutOffError, HostedError
from pathwatch.server.metrics.plugin import Metric
from pathwatch.server.metrics.window import WindowArrays
from pathwatch.server.phases.verdict import (
    Action,
    Checkpoint,
    Decision,
    Evidence,
    GroupVerdict,
    Phase,
    RankedCheckpoint,
)
from pathwatch.server.sketch.memorization import MemorizationTracker
from pathwatch.server.store.rows import WindowRow
from pathwatch.v1 import run_pb2

log = logging.getLogger("pathwatch.server")

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleLosses:
    """Losses of a window's samples; NaN where none came."""

    sample_ids_N: NDArray[np.int64]
    losses_N: NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """Where a run stands after a round."""

    step: int
    """Step of the round; -1 before the first."""
    verdicts: Mapping[str, GroupVerdict]
    decision: Decision
    best_step: int | None = None
    """Step of the best checkpoint overall."""
    best_step_by_group: Mapping[str, int] = field(default_factory=dict)
    memorized_ratio: Mapping[str, float] = field(default_factory=dict)


NOTHING_JUDGED = Judgement(
    step=-1,
    verdicts={},
    decision=Decision(action=Action.CONTINUE, reason="No window has closed yet, so nothing can be said."),
)


class PluginFailureError(Exception):
    """A detector or policy raised; the message says which and what."""


class PluginLostError(PluginFailureError):
    """A detector or policy was cut off, and all it remembered is gone."""


class Judge:
    """Detector, policy and memorization of one run. Used by one thread at a time."""

    def __init__(self, config: run_pb2.RunConfig) -> None:
        self._config = config
        self._detector = open_detector(config.detector)
        self._policy = open_policy(config.policy, config.policy_options)
        self.metrics = _open_metrics(config.metrics)
        """Further metrics by plug-in name."""
        self.lost: str | None = None
        """How detector or policy were cut off: what they remembered is gone, a fresh judge is needed."""
        self._epsilon = {group.group: group.epsilon or None for group in config.groups}
        self._memorization: dict[str, MemorizationTracker] = {}
        self._last = NOTHING_JUDGED

    @property
    def last(self) -> Judgement:
        """Judgement of the newest round."""
        return self._last

    @property
    def hosted(self) -> bool:
        """Whether processes of plug-ins belong to it."""
        return is_hosted(self._detector, self._policy, *self.metrics.values())

    @property
    def measures_in_any_thread(self) -> bool:
        """Whether `measure` may be called from several threads at once, whatever else the judge does."""
        return not is_hosted(self._detector)

    def close(self) -> None:
        """Let go of plug-ins that live in processes of their own; may come from any thread, in any call."""
        close(self._detector, self._policy, *self.metrics.values())

    def rebuild(self, rows: Iterable[WindowRow], checkpoints: Sequence[Checkpoint]) -> None:
        """Take in stored rounds, by step, then group, as if they came now. Raises PluginLostError."""
        judged: Iterable[str] = ()
        for step, round_ in groupby(rows, key=lambda row: row.step):
            windows = list(round_)
            if all(row.judged for row in windows):
                judged = self._feed(
                    step,
                    {row.group: unpack(row.evidence) for row in windows},
                    {row.group: unpack_losses(row.losses) for row in windows},
                )
            else:
                self._pass_over(step, [row.group for row in windows], windows[0].reason)
                judged = ()
        self._tell_memorized(judged)
        self._choose(checkpoints)

    def measure(self, window: WindowArrays) -> Evidence:
        """Evidence of a window. Raises PluginFailureError."""
        return self._guarded("detector", partial(self._detector.measure, window))

    def take(
        self,
        step: int,
        evidence: Mapping[str, Evidence],
        losses: Mapping[str, SampleLosses],
        checkpoints: Sequence[Checkpoint],
    ) -> Judgement:
        """Judge a complete round. Raises PluginLostError."""
        self._tell_memorized(self._feed(step, evidence, losses))
        return self._choose(checkpoints)

    def pass_over(
        self, step: int, groups: Iterable[str], reason: str, checkpoints: Sequence[Checkpoint]
    ) -> Judgement:
        """Take note of a round that cannot be judged: its groups are UNKNOWN until the next one."""
        self._pass_over(step, groups, reason)
        return self._choose(checkpoints)

    def rank(self, checkpoints: Sequence[Checkpoint], group: str | None) -> list[RankedCheckpoint]:
        """Checkpoints, best first. Raises PluginFailureError."""
        return list(self._guarded("detector", lambda: self._detector.rank(checkpoints, group)))

    def _feed(
        self, step: int, evidence: Mapping[str, Evidence], losses: Mapping[str, SampleLosses]
    ) -> Iterable[str]:
        """Take in a round, the memorized share aside; the groups that could be judged."""
        for group, of_group in losses.items():
            self._tracker(group).update(step, of_group.sample_ids_N, of_group.losses_N)
        try:
            verdicts = self._guarded("detector", lambda: self._detector.update(step, evidence))
            decision = self._guarded("policy", lambda: self._policy.decide(step, verdicts))
        except PluginLostError:
            raise
        except PluginFailureError as failure:
            self._pass_over(step, evidence, str(failure))
            return ()
        self._last = Judgement(
            step=step,
            verdicts=dict(verdicts),
            decision=decision,
            best_step=self._last.best_step,
            best_step_by_group=self._last.best_step_by_group,
        )
        return losses

    def _tell_memorized(self, groups: Iterable[str]) -> None:
        """Add the memorized shares of the round that was fed last; they take a sort of all losses."""
        ratios = {group: self._memorization[group].ratio for group in groups}
        known = {group: ratio for group, ratio in ratios.items() if ratio is not None}
        self._last = replace(self._last, memorized_ratio=known)

    def _pass_over(self, step: int, groups: Iterable[str], reason: str) -> None:
        unknown = {}
        for group in sorted({*groups, *self._last.verdicts}):
            before = self._last.verdicts.get(group)
            since = before.since_step if before and before.phase is Phase.UNKNOWN else step
            unknown[group] = GroupVerdict(phase=Phase.UNKNOWN, since_step=since, reason=reason)
        decision = self._last.decision
        if decision.action is not Action.STOP:
            decision = Decision(action=Action.CONTINUE, reason=reason)
        self._last = replace(self._last, step=step, verdicts=unknown, decision=decision, memorized_ratio={})

    def _choose(self, checkpoints: Sequence[Checkpoint]) -> Judgement:
        """Add the best checkpoints to the last judgement."""
        best: dict[str | None, int] = {}
        try:
            for group in (None, *self._last.verdicts):
                if checkpoints and (ranked := self.rank(checkpoints, group)):
                    best[group] = ranked[0].checkpoint.step
        except PluginLostError:
            return self._last  # with what was best before
        except PluginFailureError:
            best = {}
        self._last = replace(
            self._last,
            best_step=best.get(None),
            best_step_by_group={group: step for group, step in best.items() if group is not None},
        )
        return self._last

    def _guarded(self, kind: str, call: Callable[[], T]) -> T:
        """A plug-in may fail in any way; the server must not."""
        try:
            return call()
        except CutOffError as error:
            self.lost = self.lost or str(error)
            raise PluginLostError(str(error)) from error
        except HostedError as error:
            raise PluginFailureError(f"The {kind} plug-in failed: {error}") from error
        except Exception as error:
            log.exception("the %s plug-in failed", kind)
            raise PluginFailureError(f"The {kind} plug-in failed: {error!r}") from error

    def _tracker(self, group: str) -> MemorizationTracker:
        if group not in self._memorization:
            self._memorization[group] = MemorizationTracker(self._epsilon.get(group))
        return self._memorization[group]


def _open_metrics(names: Iterable[str]) -> dict[str, Metric]:
    """The metric plug-ins that can be loaded; the values of others are absent."""
    metrics = {}
    for name in names:
        try:
            metrics[name] = open_metric(name)
        except plugins.PluginError as error:
            log.error("metric plug-in left out: %s", error)
    return metrics


def sample_losses(window: WindowArrays) -> SampleLosses:
    """What memorization needs of a window."""
    return SampleLosses(sample_ids_N=window.sample_ids_N, losses_N=window.losses_N)


def pack_losses(losses: SampleLosses) -> bytes:
    """Losses as bytes, for the store."""
    return pack({"sample_ids_N": losses.sample_ids_N, "losses_N": losses.losses_N})


def unpack_losses(data: bytes) -> SampleLosses:
    """The losses that `pack_losses` was given."""
    arrays = unpack(data)
    return SampleLosses(
        sample_ids_N=arrays["sample_ids_N"].astype(np.int64), losses_N=arrays["losses_N"].astype(np.float64)
    )
