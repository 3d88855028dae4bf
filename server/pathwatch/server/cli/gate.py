"""`pathwatch gate`."""

from __future__ import annotations

import sys
import time

import click

from pathwatch.server.cli.connection import Connection, connection_options
from pathwatch.server.cli.options import Command, json_option, print_json

POLL_SECONDS = 0.5
NOT_REACHED = 3


@click.command("gate", cls=Command)
@click.argument("run")
@click.option("--until", type=click.Choice(["generalized", "stop"]), required=True, help="What to wait for.")
@click.option("--group", default="", help="Wait for this group alone; else `generalized` means every group.")
@click.option("--timeout", type=click.FloatRange(min=0), help="Seconds to wait at most; else for ever.")
@connection_options()
@json_option
def command(
    connection: Connection, run: str, until: str, group: str, timeout: float | None, as_json: bool
) -> None:
    """Wait until RUN has generalized or should stop.

    Exit code 0: reached. 3: not reached in time, or the run has finished without. 2: anything wrong.
    """
    from pathwatch.server.cli.lines import verdict_line
    from pathwatch.server.messages import action_name, phase_name
    from pathwatch.v1 import run_pb2

    if until == "stop" and group:
        raise click.UsageError("--group goes with --until generalized; a stop is for the whole run")
    deadline = None if timeout is None else time.monotonic() + timeout
    with connection.client() as client:
        while True:
            finished = client.get_run(run).state == run_pb2.RUN_STATE_FINISHED
            signal = client.get_signal(run)
            given = client.get_metrics(run, after_step=signal.step - 1, limit=1) if signal.stale else None
            # What was reached before the run fell silent was reached.
            last = given.signals[-1] if given and given.signals else signal
            phases = {status.group: phase_name(status.phase) for status in last.groups}
            watched = {group: phases.get(group, "UNKNOWN")} if group else phases
            if until == "stop":
                reached = action_name(signal.action) == "STOP"
            else:
                reached = bool(watched) and set(watched.values()) == {"GENERALIZED"}
            timed_out = deadline is not None and time.monotonic() >= deadline
            if reached or finished or timed_out:
                break
            time.sleep(POLL_SECONDS)
    if as_json:
        print_json({**verdict_line(signal), "reached": reached})
    stands = ", ".join(f"{name} {phase}" for name, phase in watched.items()) or "no group seen yet"
    outcome = (
        "reached" if reached else "not reached, the run is finished" if finished else "not reached in time"
    )
    click.echo(
        f"{run}: {until} {outcome} at step {signal.step} ({action_name(signal.action)}; {stands})", err=True
    )
    sys.exit(0 if reached else NOT_REACHED)
