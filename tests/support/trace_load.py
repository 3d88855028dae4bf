"""What eight ranks send of recorded runs: a function of run, step, rank and a seed alone.

Which rank sees which sample is drawn anew for each step. `text` and `deferred` are probe runs of whole
samples. Of `pair` every sample is cut between two ranks: layers and losses. `drift` is in stream mode, with
windows of several steps, of which fewer samples are kept than come.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from functools import cache

import numpy as np
from numpy.typing import NDArray
from recorded_run import recorded

from pathwatch.client import RoutingStream
from pathwatch.server.cli.playback import Batch, step_batches
from pathwatch.server.traces import Trace
from pathwatch.v1 import run_pb2

RANKS = 8
RUNS = {"text": "text_c_s0", "deferred": "text_deferred_bS_s2", "pair": "ol_pair_s0", "drift": "neg_rnd_s0"}
"""Which trace each run plays."""
WINDOW_STEPS = 4
"""Of `drift`, steps of the trace."""
CAPACITY = 96
"""Of `drift`."""
STOPPED, STOPPED_AT = "deferred", 19
"""The run that is told to stop, and at which step of its trace. How far ahead `stop_at_step` lies depends on
where the ranks are by then: they go on when it has been said."""


@cache
def trace_of(run: str) -> Trace:
    """The trace that a run plays."""
    return recorded(RUNS[run])


def config_of(run: str) -> run_pb2.RunConfig:
    """What the run is created with. No rank is ever given up."""
    trace = trace_of(run)
    config = run_pb2.RunConfig(
        topology=run_pb2.Topology(layers=trace.layers, experts=trace.experts),
        mode=run_pb2.OBSERVATION_MODE_PROBE,
        grace_seconds=3600,
        keep_observations=True,
    )
    if run == "drift":
        config.mode = run_pb2.OBSERVATION_MODE_STREAM
        config.window_steps = WINDOW_STEPS
        config.capacity = CAPACITY
    return config


def step_of(run: str, index: int) -> int:
    """The step that the run says for a step of its trace."""
    return index if run == "drift" else int(trace_of(run).steps_T[index])


def send_step(stream: RoutingStream, run: str, index: int, rank: int, seed: int) -> None:
    """Everything that a rank has to say about a step of the trace."""
    trace, step = trace_of(run), step_of(run, index)
    if rank == 0 and trace.gram_self_TLKK is not None and trace.gram_next_TLKK is not None:
        stream.geometry(
            step=step, gram_self=trace.gram_self_TLKK[index], gram_next=trace.gram_next_TLKK[index]
        )
    for batch in step_batches(trace, index):
        # Which of them has a loss differs from step to step: the draw is of the samples, whichever they are.
        rng = np.random.default_rng([seed, index, *run.encode(), *batch.group.encode()])
        owner_S = rng.integers(0, RANKS, 1 + int(batch.sample_ids_N.max()))
        owner_N = owner_S[batch.sample_ids_N]
        for part, layers in _shares(run, batch, owner_N, rank, trace.layers):
            if len(part.sample_ids_N):
                stream.observe(
                    step=step,
                    group=part.group,
                    sample_ids=part.sample_ids_N,
                    weights=part.weights_NLK,
                    target_weights=part.target_weights_NLK,
                    losses=part.losses_N,
                    targets=part.targets_N,
                    visits=part.visits_N,
                    layers=layers,
                )
    if rank == 0:
        stream.register_checkpoint(step=step, tag=f"{run}-{step}")
    stream.watermark(step)


def _shares(
    run: str, batch: Batch, owner_N: NDArray[np.int64], rank: int, layers: int
) -> Iterator[tuple[Batch, list[int] | None]]:
    """What a rank sends of a batch, and the layers it holds; None = all."""
    if run != "pair":
        yield _rows(batch, owner_N == rank), None
        return
    cut = layers // 2
    below, above = list(range(cut)), list(range(cut, layers))
    yield (
        dataclasses.replace(_layers(_rows(batch, owner_N == rank), below), losses_N=None, targets_N=None),
        below,
    )
    yield _layers(_rows(batch, (owner_N + 1) % RANKS == rank), above), above


def _rows(batch: Batch, chosen_N: NDArray[np.bool_]) -> Batch:
    return Batch(
        group=batch.group,
        sample_ids_N=batch.sample_ids_N[chosen_N],
        weights_NLK=batch.weights_NLK[chosen_N],
        target_weights_NLK=None if batch.target_weights_NLK is None else batch.target_weights_NLK[chosen_N],
        losses_N=None if batch.losses_N is None else batch.losses_N[chosen_N],
        targets_N=None if batch.targets_N is None else batch.targets_N[chosen_N],
        visits_N=None if batch.visits_N is None else batch.visits_N[chosen_N],
    )


def _layers(batch: Batch, layers: list[int]) -> Batch:
    target_weights_NLK = batch.target_weights_NLK
    return dataclasses.replace(
        batch,
        weights_NLK=batch.weights_NLK[:, layers],
        target_weights_NLK=None if target_weights_NLK is None else target_weights_NLK[:, layers],
    )
