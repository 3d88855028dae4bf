"""What one call of the client takes of the thread that makes it, beside a bare copy of the same array."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pathwatch.client import RoutingStream
from pathwatch.v1 import run_pb2

LAYERS, EXPERTS = 16, 64
"""OLMoE-1B-7B: 4 KiB of routing weights per sample."""
SIZES = (64 << 10, 256 << 10, 1 << 20)
PAUSE_SECONDS = 0.02
"""Between two calls, as between two training steps."""


ABSENT = "127.0.0.1:1"
"""Where nobody listens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Calls:
    """Calls of `RoutingStream.observe` with so many bytes of routing weights each."""

    sidecar: str
    """Idle, or absent."""
    nbytes: int
    calls: int
    p50_seconds: float
    p99_seconds: float
    longest_seconds: float
    copy_p50_seconds: float
    """Of `numpy.copy` of the same array, in turn with the calls."""
    copy_p99_seconds: float


def measure(server: str, calls: int, sizes: Sequence[int] = SIZES) -> list[Calls]:
    """Time calls of every size, with the sidecar and without one."""
    return [
        _measure(sidecar, address, nbytes, calls)
        for nbytes in sizes
        for sidecar, address in (("idle", server), ("absent", ABSENT))
    ]


def _measure(sidecar: str, server: str, nbytes: int, calls: int) -> Calls:
    samples = nbytes // (LAYERS * EXPERTS * 4)
    weights_NLK = np.full((samples, LAYERS, EXPERTS), 1 / EXPERTS, np.float32)
    ids_N, losses_N = np.arange(samples), np.ones(samples, np.float32)
    config = run_pb2.RunConfig(
        topology=run_pb2.Topology(layers=LAYERS, experts=EXPERTS), mode=run_pb2.OBSERVATION_MODE_PROBE
    )
    stream = RoutingStream(server, run=f"calls-{nbytes}", config=config)
    seconds, copy_seconds = np.empty(calls), np.empty(calls)
    try:
        for step in range(calls):
            start = time.perf_counter()
            stream.observe(step=step, group="text", sample_ids=ids_N, weights=weights_NLK, losses=losses_N)
            seconds[step] = time.perf_counter() - start
            stream.watermark(step)
            time.sleep(PAUSE_SECONDS)
            start = time.perf_counter()
            np.copy(weights_NLK)
            copy_seconds[step] = time.perf_counter() - start
            time.sleep(PAUSE_SECONDS)
        if server != ABSENT and (not stream.flush(30.0) or stream.stats.rejected):
            raise RuntimeError(f"the sidecar did not take what was sent: {stream.stats}")
    finally:
        stream.close(1.0)
    return Calls(
        sidecar=sidecar,
        nbytes=nbytes,
        calls=calls,
        p50_seconds=float(np.quantile(seconds, 0.5)),
        p99_seconds=float(np.quantile(seconds, 0.99)),
        longest_seconds=float(seconds.max()),
        copy_p50_seconds=float(np.quantile(copy_seconds, 0.5)),
        copy_p99_seconds=float(np.quantile(copy_seconds, 0.99)),
    )
