"""`pathwatch runs`."""

from __future__ import annotations

import click

from pathwatch.server.cli.connection import Connection, connection_options
from pathwatch.server.cli.options import Command, json_option, print_json


@click.command("runs", cls=Command)
@connection_options()
@json_option
def command(connection: Connection, as_json: bool) -> None:
    """List the runs of a server, newest first."""
    from rich.console import Console

    from pathwatch.server.cli.lines import run_line
    from pathwatch.server.cli.tables import table
    from pathwatch.server.messages import state_name

    with connection.client() as client:
        runs = client.list_runs()
    if as_json:
        for run in runs:
            print_json(run_line(run))
        return
    listing = table(
        "",
        "run",
        "state",
        "attempt",
        "step",
        "judged",
        "ranks",
        "groups",
        right=("attempt", "step", "judged", "ranks"),
    )
    for run in runs:
        listing.add_row(
            run.name,
            state_name(run.state),
            str(run.attempt),
            str(run.step),
            str(run.closed_step),
            str(run.world_size),
            ", ".join(run.groups),
        )
    Console().print(listing if runs else "no runs")
