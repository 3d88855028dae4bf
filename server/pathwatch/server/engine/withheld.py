"""What ranks say of the observations they hold back: from the protocol to what the engine works with."""

from __future__ import annotations

from pathwatch.server.config import Limits
from pathwatch.server.engine.checks import check_step
from pathwatch.server.engine.refusal import LimitError
from pathwatch.server.engine.streams import Withheld
from pathwatch.v1 import routing_pb2


def decode_withheld(message: routing_pb2.Withheld, limits: Limits) -> Withheld:
    """The report of a rank. Raises RefusedError naming the field."""
    check_step("withheld.step", message.step)
    if message.HasField("until_step"):
        check_step("withheld.until_step", message.until_step)
    if len(message.groups) > limits.groups_per_run:
        raise LimitError(
            "groups_per_run",
            f"{len(message.groups)} groups; a run has at most {limits.groups_per_run}",
            "withheld.groups",
        )
    return Withheld(
        step=message.step,
        until_step=message.until_step if message.HasField("until_step") else None,
        round=message.round,
        groups={one.group: one.samples for one in message.groups},
    )
