"""Many runs in one server."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

from bench.figures import Figure
from bench.growth.curves import curve, doubling, megabytes, milliseconds
from bench.scrape.fleet import Fleet
from bench.sidecar import Sidecar

_GROUPS = 4
_STEPS = 3


def runs(quick: bool) -> Iterator[Figure]:
    """CPU time of a round of all runs, and what the server holds beyond that with one run."""
    counts = doubling(1, 64, quick=quick)
    taken, resident = {}, {}
    for count in counts:
        with (
            tempfile.TemporaryDirectory(prefix="pathwatch-growth-") as folder,
            Sidecar(Path(folder) / "data") as server,
        ):
            fleet = Fleet(server.grpc, runs=count, groups=_GROUPS)
            fleet.send_step()  # with imports, and what is made once
            started = server.cpu_seconds
            for _ in range(_STEPS):
                fleet.send_step()
            taken[count] = (server.cpu_seconds - started) / _STEPS
            resident[count] = server.resident_bytes
            fleet.close()
    one, *others = counts
    beyond = {count - one: float(resident[count] - resident[one]) for count in others}
    yield curve("runs.close", taken, milliseconds)
    yield curve("runs.resident", {size: held for size, held in beyond.items() if held > 0}, megabytes)
