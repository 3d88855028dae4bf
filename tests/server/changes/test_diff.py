"""Changes from one signal to the next, as somebody who compares the two would list them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pathwatch.server.changes.diff import ActionChange, BestCheckpointChange, PhaseChange, changes
from pathwatch.v1 import signal_pb2

STEPS = st.none() | st.integers(0, 3)
GROUPS = st.dictionaries(st.sampled_from(["code", "math", "prose"]), st.tuples(st.integers(1, 7), STEPS))


def signal(revision: int, action: int, stop: int | None, best: int | None, groups: dict) -> signal_pb2.Signal:
    made = signal_pb2.Signal(
        run="run",
        revision=revision,
        step=10 * revision,
        action=action,
        reason="because",
        stop_at_step=stop,
        best_checkpoint_step=best,
        groups=[
            signal_pb2.GroupStatus(
                group=name, phase=phase, reason="so", evidence={"drop": 0.5}, best_checkpoint_step=step
            )
            for name, (phase, step) in sorted(groups.items())
        ],
    )
    made.created_at.FromMilliseconds(1500)
    return made


SIGNALS = st.builds(signal, st.just(2), st.integers(1, 3), STEPS, STEPS, GROUPS)


@given(SIGNALS, SIGNALS)
def test_applied_to_the_one_they_give_the_other(before: signal_pb2.Signal, after: signal_pb2.Signal) -> None:
    said = list(changes(before, after))
    phases = {s.group: signal_pb2.Phase.Name(s.phase)[6:] for s in before.groups}
    best = {s.group: s.best_checkpoint_step for s in before.groups if s.HasField("best_checkpoint_step")}
    if before.HasField("best_checkpoint_step"):
        best[""] = before.best_checkpoint_step
    action = signal_pb2.Action.Name(before.action)[7:]
    stop = before.stop_at_step if before.HasField("stop_at_step") else None
    for change in said:
        assert (change.run, change.revision, change.step, change.at) == ("run", 2, 20, 1.5)
        match change:
            case PhaseChange():
                assert change.before == phases.get(change.group, "UNKNOWN") != change.after
                assert (change.reason, change.evidence) == ("so", {"drop": 0.5})
                phases[change.group] = change.after
            case ActionChange():
                assert change.before == action
                assert (change.before, stop) != (change.after, change.stop_at_step)
                action, stop = change.after, change.stop_at_step
            case BestCheckpointChange():
                assert change.before == best.get(change.group) != change.after
                best[change.group] = change.after
    assert action == signal_pb2.Action.Name(after.action)[7:]
    assert stop == (after.stop_at_step if after.HasField("stop_at_step") else None)
    assert (best.get("") is None) == (not after.HasField("best_checkpoint_step"))
    for status in after.groups:
        assert phases.get(status.group, "UNKNOWN") == signal_pb2.Phase.Name(status.phase)[6:]
        given_best = status.best_checkpoint_step if status.HasField("best_checkpoint_step") else None
        assert best.get(status.group) == given_best


@given(SIGNALS)
def test_nothing_changed(same: signal_pb2.Signal) -> None:
    assert list(changes(same, same)) == []


def test_a_first_signal_to_carry_on_is_no_news() -> None:
    assert list(changes(None, signal(1, 1, None, None, {}))) == []
    first = list(changes(None, signal(1, 3, 7, None, {})))
    assert [(change.after, change.stop_at_step) for change in first] == [("STOP", 7)]
