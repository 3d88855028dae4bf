"""When to save and when to stop, from the verdicts of all groups."""

from __future__ import annotations

import math
from collections.abc import Mapping

from pathwatch.server.phases.verdict import Action, Decision, GroupVerdict, Phase

STRAGGLER_PATIENCE = 3.0
"""A group that is memorized but does not generalize is given this many times as long as the slowest of the
generalized groups took from being memorized to its onset. Recorded late groups needed up to 1.9 times;
waiting costs steps, giving up too early costs the group."""
IDLE_PATIENCE = 2.0
"""The same for a group whose routing does not move at all."""
MOVING_Z = 2.0
"""It moves where its drop is this many standard errors, …"""
MOVING_SHARE = 0.15
"""… and this share of the largest among the other groups: shared routers drag all of them a little."""
HOLD = 0.5
"""A group counts as finished once GENERALIZED has stood for this share of the time from onset to it: between
settling and the last of accuracy lies some way, and a verdict may be withdrawn."""
SAVE_AGAIN = 1.1
"""While groups generalize, another checkpoint is asked for each time the step has grown by this factor."""
_WORTH_SAVING = (Phase.GENERALIZING, Phase.GENERALIZED, Phase.OVERFITTING)


class _History:
    """What policies remember of the rounds: when each group was memorized, moved, last saved."""

    def __init__(self) -> None:
        self._phases: dict[str, Phase] = {}
        self._memorized: dict[str, int] = {}
        self._onset: dict[str, int] = {}
        self._saved_step: int | None = None

    def note(self, verdicts: Mapping[str, GroupVerdict]) -> None:
        """Take in a round before anything is asked about it."""
        for group, verdict in verdicts.items():
            if verdict.phase not in (Phase.UNKNOWN, Phase.LEARNING):
                self._memorized.setdefault(group, verdict.since_step)
            if verdict.phase is Phase.MEMORIZED:
                self._onset.pop(group, None)
            elif verdict.phase is Phase.GENERALIZING:
                self._onset.setdefault(group, verdict.since_step)

    def finished(self, step: int, verdicts: Mapping[str, GroupVerdict]) -> set[str]:
        """Groups from whose training nothing more is to be had."""
        return {group for group, verdict in verdicts.items() if self._finished(step, group, verdict)}

    def _finished(self, step: int, group: str, verdict: GroupVerdict) -> bool:
        if verdict.phase is Phase.OVERFITTING:
            return not _may_generalize(verdict)
        since = verdict.since_step
        stood, took = step - since, since - self._onset.get(group, since)
        return verdict.phase is Phase.GENERALIZED and stood >= HOLD * took

    def stragglers(self, step: int, verdicts: Mapping[str, GroupVerdict]) -> set[str]:
        """Groups that are memorized, have not moved since, and have had their time."""
        took = [
            onset - self._memorized[group]
            for group, verdict in verdicts.items()
            if verdict.phase is Phase.GENERALIZED
            # One that generalized while it was memorized says nothing about how long harder ones need.
            and (onset := self._onset.get(group, verdict.since_step)) > self._memorized[group]
        ]
        if not took:
            return set()
        return {
            group
            for group, verdict in verdicts.items()
            if _waits(verdict) and step - verdict.since_step >= _patience(verdict) * max(took)
        }

    def save(self, step: int, verdicts: Mapping[str, GroupVerdict]) -> str | None:
        """Why a checkpoint should be saved now; None = it need not be."""
        changed = [
            group
            for group, verdict in sorted(verdicts.items())
            if verdict.phase in _WORTH_SAVING and self._phases.get(group) is not verdict.phase
        ]
        self._phases = {group: verdict.phase for group, verdict in verdicts.items()}
        if changed:
            self._saved_step = step
            return "; ".join(f"{group} is now {verdicts[group].phase.name}" for group in changed)
        moving = [group for group, verdict in sorted(verdicts.items()) if verdict.phase is Phase.GENERALIZING]
        if moving and (self._saved_step is None or step >= SAVE_AGAIN * self._saved_step):
            self._saved_step = step
            return f"{', '.join(moving)} still generalizing since the last checkpoint"
        return None


def _waits(verdict: GroupVerdict) -> bool:
    """Whether a group is memorized without progress, but might still generalize."""
    return verdict.phase is Phase.MEMORIZED or (
        verdict.phase is Phase.OVERFITTING and _may_generalize(verdict)
    )


def _may_generalize(verdict: GroupVerdict) -> bool:
    """Overfitting ends where routing can tell: such a group may yet generalize, as grokking does."""
    return verdict.numbers.get("routing_by_target", 0.0) == 1.0


def _patience(verdict: GroupVerdict) -> float:
    """A detector that does not tell how far routing has moved leaves every group its full time."""
    numbers = verdict.numbers
    if "drop_net" not in numbers:
        return STRAGGLER_PATIENCE
    noise = MOVING_Z * numbers.get("drop_stderr", 0.0)
    moves = numbers["drop_net"] >= max(noise, MOVING_SHARE * numbers.get("largest_other_drop", 0.0))
    return STRAGGLER_PATIENCE if moves else IDLE_PATIENCE


class Quorum:
    """STOP when a share `quorum` of the groups (0 < quorum ≤ 1) is finished: generalized or overfitting.

    Groups that have had their time do not count: neither for the share, nor as what it is a share of.
    """

    def __init__(self, **options: str) -> None:
        self._quorum = _number(options, "quorum", 0.5)
        if not 0 < self._quorum <= 1:
            raise ValueError(f"policy option quorum: {self._quorum:g} is not a share above 0 and up to 1")
        self._history = _History()

    def decide(self, step: int, verdicts: Mapping[str, GroupVerdict]) -> Decision:
        """Stop, save or train on."""
        self._history.note(verdicts)
        save = self._history.save(step, verdicts)
        finished = sorted(self._history.finished(step, verdicts))
        given_up = sorted(self._history.stragglers(step, verdicts))
        needed = math.ceil(self._quorum * (len(verdicts) - len(given_up)) - 1e-9)
        if finished and len(finished) >= needed:
            return Decision(action=Action.STOP, reason=_stop_reason(verdicts, finished, given_up))
        if save is not None:
            return Decision(action=Action.CHECKPOINT, reason=save)
        waiting = sorted(set(verdicts) - set(finished) - set(given_up))
        return Decision(
            action=Action.CONTINUE, reason=f"waiting for {', '.join(waiting) or 'the first group'}"
        )


class AllGroups(Quorum):
    """STOP when every group is finished, or has been given its time beside finished ones."""

    def __init__(self, **options: str) -> None:
        _refuse_unknown(options)
        super().__init__(quorum="1")


class Patience:
    """STOP when no group has moved on for `patience` times as long as the run had taken to the last move.

    A policy for runs that may never generalize: it gives up on them, which the others do not.
    """

    def __init__(self, **options: str) -> None:
        self._patience = _number(options, "patience", 1.0)
        if self._patience <= 0:
            raise ValueError(f"policy option patience: {self._patience:g} is not above 0")
        self._history = _History()
        self._phases: dict[str, Phase] = {}
        self._moved_step = 0

    def decide(self, step: int, verdicts: Mapping[str, GroupVerdict]) -> Decision:
        """Stop, save or train on."""
        save = self._history.save(step, verdicts)
        phases = {group: verdict.phase for group, verdict in verdicts.items()}
        still = {Phase.MEMORIZED, Phase.GENERALIZED, Phase.OVERFITTING}
        if phases != self._phases or not phases or not still.issuperset(phases.values()):
            self._phases, self._moved_step = phases, step
        idle = step - self._moved_step
        if idle >= self._patience * self._moved_step and self._moved_step > 0:
            return Decision(
                action=Action.STOP,
                reason=f"no group has moved on since step {self._moved_step}, {idle} steps ago",
            )
        if save is not None:
            return Decision(action=Action.CHECKPOINT, reason=save)
        return Decision(
            action=Action.CONTINUE, reason=f"a group moved on or is moving, last at step {self._moved_step}"
        )


def _stop_reason(verdicts: Mapping[str, GroupVerdict], finished: list[str], given_up: list[str]) -> str:
    parts = [
        f"{group} {verdicts[group].phase.name} since step {verdicts[group].since_step}" for group in finished
    ]
    parts += [
        f"{group} {verdicts[group].phase.name}: no progress in "
        f"{_patience(verdicts[group]):g} times the others' time"
        for group in given_up
    ]
    return "; ".join(parts)


def _number(options: Mapping[str, str], option: str, default: float) -> float:
    """The only option a policy takes, as a number."""
    _refuse_unknown(options, option)
    text = options.get(option, str(default))
    try:
        value = float(text)
    except ValueError:
        raise ValueError(f"policy option {option}: {text!r} is not a number") from None
    if not math.isfinite(value):
        raise ValueError(f"policy option {option}: {text!r} is not finite")
    return value


def _refuse_unknown(options: Mapping[str, str], *known: str) -> None:
    if unknown := sorted(set(options) - set(known)):
        takes = f"takes {', '.join(known)}" if known else "takes none"
        raise ValueError(f"policy option {', '.join(unknown)}: unknown; this policy {takes}")
