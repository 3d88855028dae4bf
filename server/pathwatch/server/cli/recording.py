"""The argument RUN|TRACE: a recorded run from a file, or from the server that kept it."""

from __future__ import annotations

from pathlib import Path

from pathwatch.server.cli.connection import Connection
from pathwatch.server.cli.options import fail
from pathwatch.server.traces import Trace, TraceError, load_trace


def recorded_run(source: str, connection: Connection) -> Trace:
    """The trace in the file `source` (it ends in .npz), or of the run of that name on the server."""
    if not source.endswith(".npz"):
        fail(f"{source}: only recorded runs (.npz, trace v1) can be read so far")
    try:
        return load_trace(Path(source))
    except (TraceError, OSError) as error:
        fail(error)
