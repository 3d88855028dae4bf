"""Histories as long as wanted, written through the store's interface: no server has the time to live them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pathwatch.server.engine.arrays import pack
from pathwatch.server.engine.judge import SampleLosses, pack_losses
from pathwatch.server.engine.run_config import with_defaults
from pathwatch.server.phases.verdict import Phase
from pathwatch.server.store.interface import Store
from pathwatch.server.store.rows import PutRound, PutRun, PutSignal, RunRow, SignalRow, WindowRow, Write
from pathwatch.v1 import run_pb2, signal_pb2

GROUP = "group"
"""Of a run with one; of a wider one the first."""
EVERY = 10
"""Steps of a window: 100,000 windows are a run of a million steps."""
_SAMPLES = 64
"""Of a window, whose losses are kept for the detector: reads of history do not touch them."""
_LAYERS = 16
_METRICS = 24
_AT_ONCE = 500
"""Rounds in a transaction."""


def extend(store: Store, run: str, first: int, last: int, groups: Sequence[str] = (GROUP,)) -> None:
    """More rounds of a run, each with a window of every group and every third with a signal."""
    rng = np.random.default_rng(first)
    ids_N = np.arange(_SAMPLES)
    evidence = pack({"sample_ids": ids_N, "losses": rng.random(_SAMPLES, np.float32)})
    losses = pack_losses(SampleLosses(sample_ids_N=ids_N, losses_N=rng.random(_SAMPLES)))
    for begin in range(first, last, _AT_ONCE):
        end = min(begin + _AT_ONCE, last)
        writes: list[Write] = []
        for number in range(begin, end):
            writes.append(_round(run, number, groups, rng, evidence, losses))
            if number % 3 == 0:
                writes.append(_signal(run, number))
        store.commit([*writes, _run(run, end, groups)])


def _round(
    run: str, number: int, groups: Sequence[str], rng: np.random.Generator, evidence: bytes, losses: bytes
) -> PutRound:
    step = EVERY * number
    windows = [
        WindowRow(
            run=run,
            attempt=0,
            first_step=step,
            step=step,
            group=group,
            partial=False,
            judged=True,
            phase=_phase(number),
            reason="Training loss still falls: 2.31 now, 2.35 before; routing says nothing yet.",
            metrics={f"metric_{i}": value for i, value in enumerate(rng.random(_METRICS).tolist())},
            layer_path_distance=tuple(rng.random(_LAYERS).tolist()),
            evidence=evidence,
            losses=losses,
        )
        for group in groups
    ]
    return PutRound(run=run, attempt=0, step=step, windows=tuple(windows))


def _phase(number: int) -> Phase:
    """Another one every 5,000 windows."""
    return [Phase.LEARNING, Phase.MEMORIZED, Phase.GENERALIZING][number // 5000 % 3]


def _signal(run: str, number: int) -> PutSignal:
    step, revision = EVERY * number, number // 3 + 1
    signal = signal_pb2.Signal(
        run=run,
        step=step,
        action=signal_pb2.ACTION_CONTINUE,
        reason="No group has generalized.",
        best_checkpoint_step=step,
        revision=revision,
    )
    signal.groups.add(
        group=GROUP,
        phase=signal_pb2.Phase.ValueType(_phase(number)),
        reason="Training loss still falls: 2.31 now, 2.35 before.",
        evidence={"fitted_share": 0.5, "drop": 0.1, "drop_net": 0.05, "drop_stderr": 0.01},
        best_checkpoint_step=step,
    )
    signal.created_at.FromSeconds(1_700_000_000 + step)
    row = SignalRow(run=run, revision=revision, step=step, signal=signal.SerializeToString())
    return PutSignal(row=row)


def _run(run: str, rounds: int, groups: Sequence[str]) -> PutRun:
    config = with_defaults(run_pb2.RunConfig(topology=run_pb2.Topology(layers=_LAYERS, experts=64)))
    step = EVERY * (rounds - 1)
    row = RunRow(
        name=run,
        config=config.SerializeToString(),
        finished=False,
        attempt=0,
        first_step=0,
        step=step,
        closed_step=step,
        world_size=1,
        groups=tuple(groups),
        created_at=1_700_000_000.0,
        updated_at=1_700_000_000.0,
    )
    return PutRun(row=row)
