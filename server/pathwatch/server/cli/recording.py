"""The argument RUN|TRACE: a recorded run from a file, or from the server that kept it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from pathwatch.server.cli.assembly import AssemblyError, assemble
from pathwatch.server.cli.connection import Connection
from pathwatch.server.cli.options import fail
from pathwatch.server.traces import Trace, TraceError, load_trace
from pathwatch.v1 import run_pb2


def recorded_run(source: str, connection: Connection) -> Trace:
    """The trace in the file `source` (it ends in .npz), or of the run of that name on the server.

    What of a run does not fit into a trace is said on stderr. Mistakes end the command with exit code 2.
    """
    if not source.endswith(".npz"):
        if "/" in source:
            fail(f"{source}: neither a trace (FILE.npz) nor the name of a run")
        return kept_run(source, connection)
    try:
        return load_trace(Path(source))
    except (TraceError, OSError) as error:
        fail(error)


def kept_run(run: str, connection: Connection, *, groups: Sequence[str] = (), after_step: int = -1) -> Trace:
    """What a server kept of a probe-mode run, of the groups named (none = all) and of steps > after_step."""
    with connection.client() as client:
        known = client.get_run(run)
        if known.config.mode == run_pb2.OBSERVATION_MODE_STREAM:
            fail(
                f"run {run!r} is in stream mode: its windows hold different samples, a trace the same ones "
                "at every step; record a run with a probe"
            )
        if unknown := sorted(set(groups) - set(known.groups)):
            fail(
                f"run {run!r} has no group {', '.join(unknown)}; "
                f"it has {', '.join(known.groups) or 'none yet'}"
            )
        rounds = client.get_observations(run, after_step=after_step)
        try:
            assembled = assemble(run, rounds, list(dict.fromkeys(groups)) or known.groups)
        except AssemblyError as error:
            fail(error)
    for remark in assembled.remarks:
        click.echo(f"pathwatch: {remark}", err=True)
    return assembled.trace
