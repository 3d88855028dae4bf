"""What closing a round takes when nothing else is to be done: metrics and evidence, in this process."""

from __future__ import annotations

import statistics
import time

import numpy as np

from bench.latency.rounds import GROUPS, SAMPLES
from bench.overload.messages import EXPERTS, LAYERS
from pathwatch.server.metrics.summary import MetricSettings, group_metrics
from pathwatch.server.metrics.window import WindowArrays
from pathwatch.server.phases.detector import PathwayDropDetector


def closing_seconds(times: int) -> float:
    """Median seconds of one thread for all groups, one after the other."""
    windows = {group: _window(group) for group in GROUPS}
    detector = PathwayDropDetector()
    taken = []
    for _ in range(times):
        started = time.perf_counter()
        group_metrics(windows, None, MetricSettings())
        for window in windows.values():
            detector.measure(window)
        taken.append(time.perf_counter() - started)
    return statistics.median(taken)


def _window(group: str) -> WindowArrays:
    rng = np.random.default_rng([*group.encode()])
    weights_NLK = rng.dirichlet(np.full(EXPERTS, 0.1), (SAMPLES, LAYERS)).astype(np.float16)
    return WindowArrays(
        group=group,
        first_step=0,
        step=0,
        sample_ids_N=np.arange(SAMPLES),
        losses_N=np.full(SAMPLES, 2.0),
        weights_NLK=weights_NLK.astype(np.float32),
        tokens_N=np.ones(SAMPLES, np.int64),
    )
