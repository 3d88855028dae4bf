"""Phases and actions as numbers, words and colours: a panel draws numbers, people read words."""

from __future__ import annotations

import enum
from collections.abc import Mapping

from grafana_foundation_sdk.models.dashboard import ValueMap, ValueMapping, ValueMappingResult

from pathwatch.server.phases.verdict import Action, Phase

GREEN, AMBER, RED, GREY = "#1a7f37", "#e0a030", "#d62728", "#8a8f98"

PHASE_COLOURS: Mapping[Phase, str] = {
    Phase.UNKNOWN: "#8a8f98",
    Phase.LEARNING: "#4c78a8",
    Phase.MEMORIZED: "#e0a030",
    Phase.GENERALIZING: "#59a14f",
    Phase.GENERALIZED: "#1a7f37",
    Phase.OVERFITTING: "#d62728",
    Phase.REGRESSING: "#9467bd",
}
"""Those of the status page."""

ACTION_COLOURS: Mapping[Action, str] = {
    Action.CONTINUE: GREEN,
    Action.CHECKPOINT: AMBER,
    Action.STOP: RED,
}


def phase_number(selector: str, by: str) -> str:
    """PromQL: the number of the phase that each group is in."""
    return _number("pathwatch_group_phase", "phase", Phase, selector, by)


def action_number(selector: str, by: str) -> str:
    """PromQL: the number of the action that is advised."""
    return _number("pathwatch_run_action", "action", Action, selector, by)


def _number(state_set: str, label: str, states: type[enum.IntEnum], selector: str, by: str) -> str:
    """A state set is 1 for one state and 0 for the others, so the largest product is the state's number."""
    prefix = f"{selector}," if selector else ""
    products = (f'{int(state)} * {state_set}{{{prefix}{label}="{state.name}"}}' for state in states)
    return f"max by ({by}) ({' or '.join(products)})"


def phase_words() -> list[ValueMapping]:
    """The text and colour of each phase's number."""
    return words({int(phase): (phase.name, colour) for phase, colour in PHASE_COLOURS.items()})


def action_words() -> list[ValueMapping]:
    """The text and colour of each action's number."""
    return words({int(action): (action.name, colour) for action, colour in ACTION_COLOURS.items()})


def words(meanings: Mapping[int, tuple[str, str]]) -> list[ValueMapping]:
    """The text and colour of each number."""
    return [
        ValueMap(
            options={
                str(number): ValueMappingResult(text=text, color=colour, index=index)
                for index, (number, (text, colour)) in enumerate(sorted(meanings.items()))
            }
        )
    ]
