"""What a run must be to be created, and what it begins as."""

from __future__ import annotations

from collections.abc import Sequence

from pathwatch.server.config import Limits
from pathwatch.server.engine.attempt import check_next_attempt
from pathwatch.server.engine.refusal import Code, LimitError, RefusedError
from pathwatch.server.engine.run_config import check_limits, hosts_nothing, plugin_violations, violations
from pathwatch.server.store.rows import RunRow
from pathwatch.v1 import run_pb2


def check_new(name: str, config: run_pb2.RunConfig, attempt: int, limits: Limits, runs: int) -> None:
    """Whether a run of this configuration, with defaults, may begin beside `runs` others; RefusedError."""
    check_next_attempt(attempt, -1)
    check_limits(config, limits)
    problems = violations(name, config, limits)
    if not problems and hosts_nothing(config):
        problems = plugin_violations(config)
    if problems:
        raise refusal_of(problems)
    if runs >= limits.runs:
        raise LimitError("runs", f"there are {runs} runs, as many as are kept; delete some")


def check_same(name: str, config: run_pb2.RunConfig, asked: run_pb2.RunConfig) -> None:
    """Whether a run that there is has the configuration asked for; RefusedError names what differs."""
    if config != asked:
        fields = ", ".join(
            field.name
            for field in run_pb2.RunConfig.DESCRIPTOR.fields
            if getattr(config, field.name) != getattr(asked, field.name)
        )
        raise RefusedError(
            Code.ALREADY_EXISTS, f"run {name!r} exists with another configuration: {fields} differ"
        )


def refusal_of(problems: Sequence[run_pb2.Violation]) -> RefusedError:
    """One refusal for all of them, of which there is at least one."""
    first = problems[0]
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return RefusedError(Code.INVALID_ARGUMENT, first.message + more, first.field)


def first_row(name: str, config: run_pb2.RunConfig, attempt: int, now: float) -> RunRow:
    """A run to which nothing has come; `now` in seconds since the epoch."""
    return RunRow(
        name=name,
        config=config.SerializeToString(deterministic=True),
        finished=False,
        attempt=attempt,
        first_step=-1,
        step=-1,
        closed_step=-1,
        world_size=0,
        groups=(),
        created_at=now,
        updated_at=now,
    )
