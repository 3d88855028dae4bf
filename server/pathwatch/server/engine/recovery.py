"""Runs as they were when the server stopped, from the store."""

from __future__ import annotations

from dataclasses import replace

from pathwatch.server.engine.decode import Topology, decode_batch, decode_geometry, stored_topology
from pathwatch.server.engine.live_run import LiveRun
from pathwatch.server.engine.run_config import sketch_settings
from pathwatch.server.engine.shared import Shared
from pathwatch.server.failpoints import reach
from pathwatch.server.sketch.observations import ObservationBlock
from pathwatch.server.sketch.run_sketch import Round, RunSketch
from pathwatch.server.store.interface import DamagedError, StoreError
from pathwatch.server.store.rows import BatchRow, RunRow
from pathwatch.v1 import routing_pb2, signal_pb2


def recover(row: RunRow, shared: Shared) -> LiveRun:
    """The run with its open windows, checkpoints, newest windows and signal.

    Raises StoreError, DamagedError where what is stored of the run is damaged.
    """
    try:
        return _recovered(row, shared)
    except StoreError:
        raise
    except Exception as error:  # decoders raise anything at damaged bytes: protobuf, NumPy, ours
        raise DamagedError(
            f"run {row.name!r} cannot be taken up again ({type(error).__name__}: {error}); "
            f"{shared.store.remedy}"
        ) from error


def _recovered(row: RunRow, shared: Shared) -> LiveRun:
    run = LiveRun(row, shared)
    store, name = shared.store, row.name
    run.checkpoints = {(point.attempt, point.step): point for point in store.checkpoints(name)}
    last = store.last_signal(name)
    run.standing.restore(
        signal_pb2.Signal.FromString(last.signal) if last else run.standing.signal,
        store.newest_windows(name),
    )
    if row.finished:
        return run
    run.attempt.restore(store.ranks(name, row.attempt), store.sessions(name, row.attempt))
    topology = stored_topology(run.config)
    for geometry in store.geometries(name):
        message = routing_pb2.ExpertGeometry.FromString(geometry.geometry)
        run.geometries.add(
            geometry.attempt, geometry.step, decode_geometry(message, topology), geometry.geometry
        )
    _refill(run, row, shared, topology)
    return run


def _refill(run: LiveRun, row: RunRow, shared: Shared, topology: Topology) -> None:
    """Open windows again, and queue the rounds that had closed but were not judged."""
    if _rewind_was_interrupted(row, run.standing.signal):
        run.judging.rewind(lambda _: False)
    now = shared.clock.steady()
    settings = sketch_settings(row.name, run.config)
    partial = {(p.attempt, p.step): p.missing_ranks for p in shared.store.partial_rounds(row.name)}
    # Rounds close in step order: where one had closed without some ranks, those before it had closed too.
    for attempt, step in partial:
        if attempt == row.attempt:
            run.sketch.closed_step = max(run.sketch.closed_step, step)
    if row.first_step >= 0:
        run.sketch.newest_step = row.step
    closed: dict[int, list[BatchRow]] = {}
    for batch in shared.store.batches(row.name):
        last_step = settings.window_of(batch.step)[1]
        if batch.attempt < row.attempt:
            # Of older attempts only closed windows are kept; the next attempt must keep them, too.
            run.sketch.closed_step = max(run.sketch.closed_step, last_step)
        if last_step <= run.sketch.closed_step:
            closed.setdefault(batch.attempt, []).append(batch)
        else:
            run.sketch.add(_block(batch, topology), now)
    reach("recovery.middle")
    for attempt, batches in sorted(closed.items()):
        # One rank that has passed everything closes the windows again; who was missing is known.
        sketch = RunSketch(settings, attempt=attempt, closed_step=row.closed_step)
        sketch.join(0, 1)
        for batch in batches:
            sketch.add(_block(batch, topology), now)
        sketch.watermark(0, max(settings.window_of(batch.step)[1] for batch in batches), now)
        run.judging.add_rounds(
            [_without(round_, partial.get((attempt, round_.step), ())) for round_ in sketch.close_ready(now)]
        )
    for rank, watermark in run.attempt.watermarks.items():
        run.sketch.join(rank, run.attempt.world_size)
        run.sketch.watermark(rank, watermark, now)
    run.close_ready()


def _rewind_was_interrupted(row: RunRow, signal: signal_pb2.Signal) -> bool:
    """Whether the server stopped after an attempt's first observation, before the signal that follows."""
    stops_in_the_past = signal.HasField("stop_at_step") and signal.stop_at_step <= row.first_step
    return signal.step > row.closed_step or stops_in_the_past


def _without(round_: Round, ranks: tuple[int, ...]) -> Round:
    """The round as it had closed, `ranks` missing."""
    if not ranks:
        return round_
    windows = {group: replace(window, partial=True) for group, window in round_.windows.items()}
    return replace(round_, windows=windows, partial=bool(windows) or round_.partial, missing_ranks=ranks)


def _block(batch: BatchRow, topology: Topology) -> ObservationBlock:
    return decode_batch(routing_pb2.ObservationBatch.FromString(batch.batch), batch.attempt, topology)
