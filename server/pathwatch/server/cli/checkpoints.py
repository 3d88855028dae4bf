"""`pathwatch checkpoints`."""

from __future__ import annotations

import click

from pathwatch.server.cli.connection import Connection, connection_options
from pathwatch.server.cli.options import Command, json_option, print_json


@click.command("checkpoints", cls=Command)
@click.argument("run")
@click.option("--group", default="", help="Rank for this group alone; else for all groups together.")
@click.option(
    "--limit", type=click.IntRange(min=0), default=10, show_default=True, help="Show this many; 0 = all."
)
@connection_options()
@json_option
def command(connection: Connection, run: str, group: str, limit: int, as_json: bool) -> None:
    """Rank the checkpoints of RUN, best first."""
    from rich.console import Console

    from pathwatch.server.cli.lines import checkpoint_line
    from pathwatch.server.cli.tables import table

    with connection.client() as client:
        ranking = client.rank_checkpoints(run, group=group, limit=limit)
    if as_json:
        for place, ranked in enumerate(ranking, start=1):
            print_json(checkpoint_line(place, ranked))
        return
    listing = table("place", "step", "tag", "score", "why", right=("place", "step", "score"))
    for place, ranked in enumerate(ranking, start=1):
        listing.add_row(
            str(place),
            str(ranked.checkpoint.step),
            ranked.checkpoint.tag,
            f"{ranked.score:.4g}",
            ranked.reason,
        )
    Console().print(listing if ranking else "no registered checkpoint has been judged yet")
