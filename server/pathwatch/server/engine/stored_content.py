"""Whether what is stored can be read again, through the decoders that a restart uses."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import TypeAlias

from pathwatch.server.engine.arrays import unpack
from pathwatch.server.engine.decode import Topology, decode_batch, decode_geometry, stored_topology
from pathwatch.server.engine.judge import unpack_losses
from pathwatch.server.engine.kept_rounds import unpack_round
from pathwatch.server.engine.run_config import sketch_settings
from pathwatch.server.store.finding import Finding, Severity
from pathwatch.server.store.interface import StoreReader
from pathwatch.server.store.rows import BatchRow, GeometryRow, RunRow, SignalRow
from pathwatch.v1 import routing_pb2, run_pb2, signal_pb2

_Read: TypeAlias = Callable[[], object]

REMEDY = "restore a snapshot, or delete the run if it is not needed"


def unreadable_content(store: StoreReader) -> Iterator[Finding]:
    """What of all runs no longer decodes. Raises StoreError where the store itself cannot be read."""
    for row in store.runs():
        problem = _problem(f"configuration of run {row.name!r}", partial(_read_config, row))
        if problem is not None:
            yield problem
            continue
        topology = stored_topology(_read_config(row))
        for item, read in _readings(store, row.name, topology):
            problem = _problem(f"{item} of run {row.name!r}", read)
            if problem is not None:
                yield problem


def _readings(store: StoreReader, run: str, topology: Topology) -> Iterator[tuple[str, _Read]]:
    """Each thing stored of a run, in words, and how it is read."""
    for batch in store.batches(run):
        yield f"batch at step {batch.step}", partial(_read_batch, batch, topology)
    for geometry in store.geometries(run):
        yield f"geometry at step {geometry.step}", partial(_read_geometry, geometry, topology)
    for window in store.windows(run):
        where = f"of the window of group {window.group!r} at step {window.step}"
        if window.judged:
            yield f"evidence {where}", partial(unpack, window.evidence)
        yield f"losses {where}", partial(unpack_losses, window.losses)
    for kept in store.observations(run):
        yield f"kept observations at step {kept.step}", partial(unpack_round, kept.observations)
    for signal in store.history(run, after_step=-2).signals:
        yield f"signal {signal.revision}", partial(_read_signal, signal)
    if last := store.last_signal(run):
        yield "last signal", partial(_read_signal, last)


def _read_config(row: RunRow) -> run_pb2.RunConfig:
    config = run_pb2.RunConfig.FromString(row.config)
    sketch_settings(row.name, config)
    return config


def _read_batch(row: BatchRow, topology: Topology) -> None:
    decode_batch(routing_pb2.ObservationBatch.FromString(row.batch), row.attempt, topology)


def _read_geometry(row: GeometryRow, topology: Topology) -> None:
    decode_geometry(routing_pb2.ExpertGeometry.FromString(row.geometry), topology)


def _read_signal(row: SignalRow) -> None:
    signal = signal_pb2.Signal.FromString(row.signal)
    if (signal.run, signal.revision) != (row.run, row.revision):
        raise ValueError(f"it is signal {signal.revision} of run {signal.run!r}")


def _problem(item: str, read: _Read) -> Finding | None:
    try:
        read()
    except Exception as error:  # decoders raise anything at damaged bytes: protobuf, zip, zlib, NumPy, ours
        said = " ".join(str(error).split()) or type(error).__name__
        return Finding(item=item, severity=Severity.DAMAGE, problem=f"cannot be read: {said}", remedy=REMEDY)
    return None
