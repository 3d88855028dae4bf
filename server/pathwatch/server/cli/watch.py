"""`pathwatch watch`."""

from __future__ import annotations

import click

from pathwatch.server.cli.connection import Connection, connection_options
from pathwatch.server.cli.options import Command, json_option, print_json


@click.command("watch", cls=Command)
@click.argument("run")
@connection_options()
@json_option
def command(connection: Connection, run: str, as_json: bool) -> None:
    """Follow RUN live until it is finished: a table on a terminal, else a line for every change."""
    from rich.console import Console

    from pathwatch.server.cli.following import follow
    from pathwatch.server.cli.lines import signal_line, window_line
    from pathwatch.server.cli.livetable import show

    with connection.client() as client:
        updates = follow(client, run)
        if not as_json:
            show(updates, Console())
            return
        for update in updates:
            for window in update.windows:
                print_json(window_line(run, window))
            for signal in update.signals:
                print_json(signal_line(signal))
