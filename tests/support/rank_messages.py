"""What the ranks of two made-up runs send: a function of run, attempt, step and rank alone.

`probe`: every step is a window; rank = 2 · stage + token part, so that no rank sees a whole sample.
Router geometry comes from rank 0. `stream`: windows of five steps, every rank sees samples of its own, more
than are kept. Ranks 0 and 1 register checkpoints. Routing sharpens and losses fall, so that phases change.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pathwatch.client import RoutingStream
from pathwatch.v1 import run_pb2

RANKS = 4
LAYERS, EXPERTS = 4, 8
GROUPS = ("code", "math", "text")
PROBED = 12
"""Samples per group in the probe set."""
WINDOW_STEPS = 5

CONFIGS = {
    "probe": run_pb2.RunConfig(
        topology=run_pb2.Topology(layers=LAYERS, experts=EXPERTS),
        grace_seconds=3600,
        keep_observations=True,
        per_layer=True,
        policy="patience",
        policy_options={"patience": "0.25"},
        stop_margin_steps=3,
    ),
    "stream": run_pb2.RunConfig(
        topology=run_pb2.Topology(layers=LAYERS, experts=EXPERTS),
        mode=run_pb2.OBSERVATION_MODE_STREAM,
        window_steps=WINDOW_STEPS,
        capacity=48,
        grace_seconds=3600,
        keep_observations=True,
        groups=[run_pb2.GroupSettings(group="math", epsilon=0.5)],
    ),
}


def send_step(stream: RoutingStream, run: str, attempt: int, step: int, rank: int) -> int:
    """Everything a rank has to say about a step; how many messages will be acknowledged."""
    messages = 1
    if run == "probe":
        if rank == 0 and step % 10 == 0:
            stream.geometry(step=step, **_geometry(attempt, step))
            messages += 1
        for group in GROUPS:
            stream.observe(step=step, group=group, **_fragment(attempt, step, rank, group))
            messages += 1
    else:
        for group in GROUPS:
            stream.observe(step=step, group=group, **_samples(attempt, step, rank, group))
            messages += 1
    # Before the watermark: no round of this step can be judged without it.
    if rank == 0 and step % 5 == 0:
        stream.register_checkpoint(step=step, tag=f"{run}-{attempt}-{step}")
    if rank == 1 and step % 5 == 2:
        stream.register_checkpoint(step=step, tag=f"{run}-{attempt}-{step}")
    stream.watermark(step)
    return messages


def _fragment(attempt: int, step: int, rank: int, group: str) -> dict[str, Any]:
    stage, part = divmod(rank, 2)
    rng = np.random.default_rng([attempt, step, rank, *group.encode()])
    tokens_N = np.random.default_rng([part, *group.encode()]).integers(2, 7, PROBED, dtype=np.int32)
    fragment: dict[str, Any] = {
        "sample_ids": np.arange(PROBED),
        "weights": _weights(rng, step, PROBED, LAYERS // 2),
        "token_counts": tokens_N,
        "target_token_counts": tokens_N - 1,
        "visits": np.full(PROBED, step, np.int32),
        "layers": [2 * stage, 2 * stage + 1],
        "token_part": part,
        "token_parts": 2,
    }
    if group == "text":
        fragment["target_weights"] = _weights(rng, step, PROBED, LAYERS // 2)
    if stage == 1:
        fragment["losses"] = _losses(rng, step, PROBED)
        fragment["targets"] = np.arange(PROBED, dtype=np.int32) % 3
    return fragment


def _samples(attempt: int, step: int, rank: int, group: str) -> dict[str, Any]:
    rng = np.random.default_rng([attempt, step, rank, *group.encode()])
    ids_N = np.unique(rng.integers(0, 300, 10)) * RANKS + rank
    n = len(ids_N)
    return {
        "sample_ids": ids_N,
        "weights": _weights(rng, step, n, LAYERS),
        "losses": _losses(rng, step, n),
        "targets": rng.integers(0, 3, n, dtype=np.int32),
        "visits": np.where(ids_N % 10 == 0, 0, 1 + step).astype(np.int32),
    }


def _weights(rng: np.random.Generator, step: int, n: int, layers: int) -> NDArray[np.float32]:
    sharp_NLK = np.exp(rng.normal(size=(n, layers, EXPERTS)) * (1 + step / 10))
    return (sharp_NLK / sharp_NLK.sum(-1, keepdims=True)).astype(np.float32)


def _losses(rng: np.random.Generator, step: int, n: int) -> NDArray[np.float32]:
    return (3 * np.exp(-step / 8) * rng.uniform(0.8, 1.2, n)).astype(np.float32)


def _geometry(attempt: int, step: int) -> dict[str, NDArray[np.float32]]:
    routers_LKD = np.random.default_rng([attempt, step]).normal(size=(LAYERS, EXPERTS, 16))
    return {
        "gram_self": np.einsum("lkd,lmd->lkm", routers_LKD, routers_LKD).astype(np.float32),
        "gram_next": np.einsum("lkd,lmd->lkm", routers_LKD[:-1], routers_LKD[1:]).astype(np.float32),
    }
