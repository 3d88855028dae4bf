"""What ranks say of the observations they hold back: from the protocol to what the engine works with."""

from __future__ import annotations

from itertools import islice

from pathwatch.server.config import Limits
from pathwatch.server.engine.checks import check_step
from pathwatch.server.engine.decode import group_problem
from pathwatch.server.engine.streams import Withheld
from pathwatch.server.engine.tensors import invalid
from pathwatch.v1 import routing_pb2


def decode_withheld(message: routing_pb2.Withheld, limits: Limits) -> Withheld:
    """The report of a rank, of so many groups as a run may have. Raises RefusedError naming the field.

    A group that no run can have refuses nothing here: what is held of it is refused once it comes.
    """
    check_step("withheld.step", message.step)
    if message.HasField("until_step"):
        check_step("withheld.until_step", message.until_step)
    reported = list(islice(message.groups, limits.groups_per_run))
    if not all(one.group for one in reported):
        raise invalid("withheld.groups", "has one without a name; name the data group")
    groups = {one.group: one.samples for one in reported}
    named = {
        group: samples for group, samples in groups.items() if not group_problem(group, limits.name_length)
    }
    return Withheld(
        step=message.step,
        until_step=message.until_step if message.HasField("until_step") else None,
        round=message.round,
        groups=named,
        holds_misnamed=len(named) < len(groups),
    )
