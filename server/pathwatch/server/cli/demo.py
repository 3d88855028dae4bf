"""`pathwatch demo`."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import click

from pathwatch.server.cli.options import Command, fail, require


@click.command("demo", cls=Command)
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("demo-out"),
    show_default=True,
    metavar="DIR",
    help="Folder for everything the demo writes.",
)
@click.option("--workers", type=click.IntRange(1), default=2, show_default=True, help="Training processes.")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the training run.")
@click.option(
    "--steps", type=click.IntRange(1), help="Train at most this long; else what the job takes as default."
)
def command(out: Path, workers: int, seed: int, steps: int | None) -> None:
    """Train a small mixture-of-experts model with DeepSpeed, watched by a sidecar, and draw what happened.

    Exit code 0 only if the run was really judged: a group was said to generalize, and a checkpoint chosen.
    """
    require("demo", "deepspeed", "torch", "grpc_health", "prometheus_client", "matplotlib", "jinja2")
    from rich.console import Console

    from pathwatch.client import PathwatchError
    from pathwatch.server.cli.demonstration import DemoError, demonstrate
    from pathwatch.server.cli.processes import StartError

    began = time.monotonic()
    console = Console()
    try:
        judged = demonstrate(out, console, workers=workers, seed=seed, steps=steps)
    except (DemoError, StartError, PathwatchError) as error:
        fail(error)
    console.print(f"{out / 'report.html'}, {out / 'report.png'}, {out / 'summary.json'}", highlight=False)
    console.print(f"{time.monotonic() - began:.0f} s in all", highlight=False)
    if not judged:
        click.echo(
            "the run was not judged: no group was said to generalize with a checkpoint chosen", err=True
        )
        sys.exit(1)
