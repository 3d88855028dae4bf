"""A policy with an option: stop when one named group is memorized."""

from collections.abc import Mapping

from pathwatch.server.phases.verdict import Action, Decision, GroupVerdict, Phase


class FirstGroup:
    """STOP as soon as `group` (an option of the run's policy) is memorized."""

    def __init__(self, group: str = "") -> None:
        if not group:
            raise ValueError("group: name the group to wait for, e.g. policy_options={'group': 'math'}")
        self._group = group

    def decide(self, step: int, verdicts: Mapping[str, GroupVerdict]) -> Decision:
        verdict = verdicts.get(self._group)
        if verdict is not None and verdict.phase is Phase.MEMORIZED:
            return Decision(
                action=Action.STOP, reason=f"{self._group} is memorized since step {verdict.since_step}"
            )
        return Decision(action=Action.CONTINUE, reason=f"{self._group} is not memorized yet")
