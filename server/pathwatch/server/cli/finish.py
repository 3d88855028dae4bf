"""`pathwatch finish`."""

from __future__ import annotations

import click

from pathwatch.server.cli.connection import Connection, connection_options
from pathwatch.server.cli.options import Command, json_option, print_json


@click.command("finish", cls=Command)
@click.argument("run")
@connection_options()
@json_option
def command(connection: Connection, run: str, as_json: bool) -> None:
    """End RUN: what is open is judged, no more data is taken, its alerts end. What is known of it stays.

    For a job that ended without saying so; it cannot be taken back.
    """
    from pathwatch.server.cli.lines import run_line

    with connection.client() as client:
        finished = client.finish_run(run)
    if as_json:
        print_json(run_line(finished))
    else:
        click.echo(f"{run} is finished at step {finished.step}")
