"""`pathwatch export`."""

from __future__ import annotations

from pathlib import Path

import click

from pathwatch.server.cli.connection import Connection, connection_options
from pathwatch.server.cli.options import Command, fail, require


@click.command("export", cls=Command)
@click.argument("run")
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    required=True,
    metavar="FILE.npz",
    help="The trace to write; replaced if it is there.",
)
@click.option("--group", "groups", multiple=True, help="Only this group; may be given again. Default: all.")
@click.option("--after-step", type=int, default=-1, help="Only steps above this one.")
@connection_options()
def command(connection: Connection, run: str, out: Path, groups: tuple[str, ...], after_step: int) -> None:
    """Write what a server kept of RUN as a trace, which `replay` and all analyses read.

    Needs a run in probe mode that was created with keep_observations. A trace holds the same samples at
    every step; what has to be left out for that is said on stderr.
    """
    require("server", "rapidfuzz", "scipy")
    from pathwatch.server.cli.recording import kept_run
    from pathwatch.server.trace_file import save_trace

    if out.suffix != ".npz":
        fail(f"--out {out}: a trace is a file that ends in .npz")
    trace = kept_run(run, connection, groups=groups, after_step=after_step)
    try:
        save_trace(trace, out)
    except OSError as error:
        fail(f"cannot write {out}: {error.strerror or error}")
    click.echo(out)
