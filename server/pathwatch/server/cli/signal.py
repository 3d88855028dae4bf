"""`pathwatch signal`."""

from __future__ import annotations

import click

from pathwatch.server.cli.connection import Connection, connection_options
from pathwatch.server.cli.options import Command, json_option, print_json


@click.command("signal", cls=Command)
@click.argument("run")
@connection_options()
@json_option
def command(connection: Connection, run: str, as_json: bool) -> None:
    """Show what RUN should do now, and why."""
    from rich.console import Console

    from pathwatch.server.cli.lines import verdict_line
    from pathwatch.server.cli.tables import phase_text, step, table
    from pathwatch.server.messages import (
        action_name,
        best_checkpoint_step,
        phase_name,
        stop_at_step,
    )

    with connection.client() as client:
        signal = client.get_signal(run)
    if as_json:
        print_json(verdict_line(signal))
        return
    console = Console()
    stop = stop_at_step(signal)
    console.print(
        f"{run}, step {signal.step}: {action_name(signal.action)}"
        + (f" at step {stop}" if stop is not None else "")
        + (" (stale)" if signal.stale else ""),
        style="bold",
        highlight=False,
    )
    console.print(signal.reason, highlight=False)
    console.print(f"best checkpoint: {step(best_checkpoint_step(signal))}", highlight=False)
    listing = table("group", "phase", "since", "checkpoint", "why", right=("since", "checkpoint"))
    for status in signal.groups:
        listing.add_row(
            status.group,
            phase_text(phase_name(status.phase)),
            str(status.since_step),
            step(best_checkpoint_step(status)),
            status.reason,
        )
    if signal.groups:
        console.print(listing)
