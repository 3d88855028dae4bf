"""`pathwatch replay`."""

from __future__ import annotations

import re
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pathwatch.server.cli.blas import one_blas_thread
from pathwatch.server.cli.connection import Connection, connection_options
from pathwatch.server.cli.options import Command, fail, json_option, print_json, require

if TYPE_CHECKING:
    from pathwatch.server.traces import Trace


@click.command("replay", cls=Command)
@click.argument("trace", type=click.Path(path_type=Path))
@click.option(
    "--run",
    help="Name of the run. Default: `replay-` and the file's name, replacing an earlier replay of it.",
)
@click.option(
    "--keep-observations",
    is_flag=True,
    help="Have the server keep the whole run, for `export` and the analyses; with --server.",
)
@connection_options(default=None)
@json_option
def command(
    connection: Connection | None, trace: Path, run: str | None, keep_observations: bool, as_json: bool
) -> None:
    """Send the recorded run TRACE (.npz, trace v1) through the real client and a real server, step by step,
    and print what the live service would have said. Without --server the server is one of its own.
    """
    if keep_observations and connection is None:
        fail("--keep-observations needs --server: what a server of the command's own keeps goes with it")
    require("server", "grpc_health", "grpc_reflection", "prometheus_client", "rapidfuzz")
    one_blas_thread()
    from pathwatch.client import PathwatchError
    from pathwatch.server.cli.playback import ReplayError
    from pathwatch.server.cli.temporary_server import temporary_server
    from pathwatch.server.traces import TraceError, load_trace

    try:
        loaded = load_trace(trace)
        name = run or re.sub(r"[^A-Za-z0-9_.-]", "-", f"replay-{loaded.name}")[:128]
        with temporary_server() if connection is None else nullcontext(connection) as server:
            if run is None:
                _remove_earlier(server, name)
            _play(loaded, server, name, keep_observations=keep_observations, as_json=as_json)
    except (TraceError, ReplayError, PathwatchError) as error:
        fail(error)


def _remove_earlier(server: Connection, name: str) -> None:
    with server.client() as client:
        if any(run.name == name for run in client.list_runs()):
            client.delete_run(name)


def _play(trace: Trace, server: Connection, run: str, *, keep_observations: bool, as_json: bool) -> None:
    from rich.console import Console

    from pathwatch.server.cli.lines import signal_line, window_line
    from pathwatch.server.cli.playback import replay
    from pathwatch.server.cli.progress import tracked
    from pathwatch.server.cli.summary import ReplaySummary

    summary = ReplaySummary(run)
    judged = replay(
        trace,
        address=server.address,
        credentials=server.credentials,
        run=run,
        keep_observations=keep_observations,
    )
    for step in tracked(judged, trace.name, len(trace.steps_T)):
        summary.add(step.windows, step.signals)
        if as_json:
            for window in step.windows:
                print_json(window_line(run, window))
            for signal in step.signals:
                print_json(signal_line(signal))
    if as_json:
        print_json(summary.line())
    else:
        summary.show(Console())
