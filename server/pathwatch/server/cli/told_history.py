"""The history of a run as the server tells it, for commands that look at all of it at once."""

from __future__ import annotations

import click

from pathwatch.client import Client
from pathwatch.server.report.data import MAX_POINTS, RunHistory, run_history
from pathwatch.v1 import run_pb2


def told_history(run: run_pb2.Run, client: Client) -> RunHistory:
    """All windows, or of a long run every n-th, which stderr then says. Raises NothingToReportError."""
    metrics = client.get_metrics(run.name, max_points=MAX_POINTS)
    if metrics.stride > 1:
        click.echo(
            f"{run.name} has a long history: of each group one window in {metrics.stride} is used", err=True
        )
    return run_history(run, metrics)
