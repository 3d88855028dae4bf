"""From a judgement to the signal a run is given."""

from __future__ import annotations

import datetime

from pathwatch.server.engine.judge import NOTHING_JUDGED, Judgement
from pathwatch.server.messages import phase_name
from pathwatch.server.phases.verdict import Action, Decision, GroupVerdict, Phase
from pathwatch.v1 import signal_pb2


def first_signal(run: str, now: float) -> signal_pb2.Signal:
    """The signal of a run that has no verdict yet. `now` is in seconds since the epoch."""
    signal = signal_pb2.Signal(
        run=run,
        step=NOTHING_JUDGED.step,
        action=signal_pb2.ACTION_CONTINUE,
        reason=NOTHING_JUDGED.decision.reason,
        revision=1,
    )
    signal.created_at.FromSeconds(int(now))
    return signal


def next_signal(
    previous: signal_pb2.Signal,
    judgement: Judgement,
    *,
    newest_step: int,
    stop_margin_steps: int,
    now: float,
    keep_stop: bool = True,
) -> signal_pb2.Signal:
    """The signal after a judgement; a new revision where anything a run acts on has changed.

    `stop_at_step` is fixed when STOP is first given, `stop_margin_steps` after the newest step seen, and
    stays while STOP stands; `keep_stop` false (a rewind) fixes it anew. `now` is in seconds since the epoch.
    """
    signal = signal_pb2.Signal(
        run=previous.run,
        step=judgement.step,
        action=signal_pb2.Action.ValueType(judgement.decision.action),
        reason=judgement.decision.reason,
        groups=[
            signal_pb2.GroupStatus(
                group=group,
                phase=signal_pb2.Phase.ValueType(verdict.phase),
                since_step=verdict.since_step,
                reason=verdict.reason,
                evidence=verdict.numbers,
                best_checkpoint_step=judgement.best_step_by_group.get(group),
            )
            for group, verdict in sorted(judgement.verdicts.items())
        ],
        best_checkpoint_step=judgement.best_step,
        revision=previous.revision,
        created_at=previous.created_at,
    )
    if judgement.decision.action is Action.STOP:
        if keep_stop and previous.action == signal_pb2.ACTION_STOP:
            signal.stop_at_step = previous.stop_at_step
        else:
            signal.stop_at_step = max(newest_step, judgement.step) + max(stop_margin_steps, 1)
    if _acted_on(signal) != _acted_on(previous):
        signal.revision = previous.revision + 1
        signal.created_at.FromDatetime(datetime.datetime.fromtimestamp(now, datetime.UTC))
    return signal


def standing_still(signal: signal_pb2.Signal, reason: str) -> Judgement:
    """What is to be said when no round can be judged any more: nothing is known, but a STOP stands."""
    stands = signal.action == signal_pb2.ACTION_STOP
    return Judgement(
        step=signal.step,
        verdicts={
            status.group: GroupVerdict(
                phase=Phase.UNKNOWN,
                since_step=status.since_step if status.phase == signal_pb2.PHASE_UNKNOWN else signal.step,
                reason=reason,
            )
            for status in signal.groups
        },
        decision=Decision(
            action=Action.STOP if stands else Action.CONTINUE, reason=signal.reason if stands else reason
        ),
        best_step=signal.best_checkpoint_step if signal.HasField("best_checkpoint_step") else None,
        best_step_by_group={
            status.group: status.best_checkpoint_step
            for status in signal.groups
            if status.HasField("best_checkpoint_step")
        },
    )


def stale_signal(signal: signal_pb2.Signal, last_data: float) -> signal_pb2.Signal:
    """The signal as it reads when no data has come since `last_data` (seconds since the epoch).

    A STOP stands, with all it says: silence is what it asked for. Anything else becomes CONTINUE and every
    group UNKNOWN, as nobody knows what the run does; the reason names the phase it was last seen in.
    """
    stale = signal_pb2.Signal()
    stale.CopyFrom(signal)
    stale.stale = True
    if stale.action == signal_pb2.ACTION_STOP:
        return stale
    since = datetime.datetime.fromtimestamp(last_data, datetime.UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    stale.action = signal_pb2.ACTION_CONTINUE
    stale.reason = f"No data came since {since}."
    for status in stale.groups:
        if status.phase != signal_pb2.PHASE_UNKNOWN:
            last = phase_name(status.phase)
            status.reason = f"No data came since {since}; it was {last} since step {status.since_step}."
            status.phase = signal_pb2.PHASE_UNKNOWN
    return stale


def _acted_on(signal: signal_pb2.Signal) -> tuple[object, ...]:
    """Everything whose change makes a new signal."""
    return (
        signal.action,
        signal.stop_at_step if signal.HasField("stop_at_step") else None,
        signal.reason,
        signal.best_checkpoint_step if signal.HasField("best_checkpoint_step") else None,
        [
            (
                group.group,
                group.phase,
                group.best_checkpoint_step if group.HasField("best_checkpoint_step") else None,
            )
            for group in signal.groups
        ],
    )
