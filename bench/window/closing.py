"""Closing a round, timed: metrics and what the default detector measures, and what each part of it takes."""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Callable, Mapping
from dataclasses import replace
from statistics import median

import numpy as np

from bench.window.windows import GROUPS
from pathwatch.server.metrics.consistency import adjacent_cosines
from pathwatch.server.metrics.distance import cross_path_distance, path_distance
from pathwatch.server.metrics.load import expert_load_max_ratio, routing_entropy
from pathwatch.server.metrics.summary import MetricSettings, group_metrics
from pathwatch.server.metrics.window import Geometry, WindowArrays
from pathwatch.server.phases.detector import PathwayDropDetector

SETTINGS = MetricSettings()
DETECTOR = PathwayDropDetector()
PRODUCT = 2048
"""Side of the matrix product that closing is held against."""


def seconds(work: Callable[[], object]) -> float:
    """Of one core: this process has one thread, and others may want the core, too."""
    started = time.process_time()
    work()
    return time.process_time() - started


def close(windows: Mapping[str, WindowArrays], geometry: Geometry) -> None:
    """What `judge_round` computes of a round before it is judged."""
    fresh = {group: replace(window) for group, window in windows.items()}  # nothing known of them yet
    group_metrics(fresh, geometry, SETTINGS)
    for window in fresh.values():
        DETECTOR.measure(window)


def product_seconds() -> float:
    """Of a product of two float64 matrices of 2048 x 2048: what the machine's BLAS does at best."""
    left = np.random.default_rng(0).normal(size=(PRODUCT, PRODUCT))
    return seconds(lambda: left @ left)


def timed(windows: Mapping[str, WindowArrays], geometry: Geometry, rounds: int) -> tuple[float, float]:
    """The least seconds that closing took, and the median of its ratio to a matrix product beside it."""
    taken, ratios = [], []
    for _ in range(rounds):
        product = min(product_seconds() for _ in range(3))
        taken.append(seconds(lambda: close(windows, geometry)))
        ratios.append(taken[-1] / product)
    return min(taken), median(ratios)


def parts(windows: Mapping[str, WindowArrays], geometry: Geometry) -> dict[str, float]:
    """Seconds of each part, for the whole round, from one of its groups (of the cross distances two)."""
    window, other = [replace(window) for window in list(windows.values())[:2]]
    weights_NLK = window.weights_NLK
    (across,) = other.routing.pathways(SETTINGS.thresholds[:1])
    shared = SETTINGS.pair_budget.shared(GROUPS - 1)
    per_group = {
        "pathways": seconds(lambda: window.routing.pathways(SETTINGS.thresholds)),
        "distances": seconds(lambda: _distances(window)),
        "consistency": seconds(lambda: adjacent_cosines(weights_NLK, geometry)),
        "dimensions": seconds(
            lambda: (window.routing.dimension(0.01), window.carrying_routing.dimension(0.01))
        ),
        "entropy and load": seconds(
            lambda: (routing_entropy(weights_NLK), expert_load_max_ratio(weights_NLK))
        ),
        "detector": seconds(lambda: DETECTOR.measure(window)),  # what is not known by now
    }
    (published,) = window.routing.pathways(SETTINGS.thresholds[:1])
    crossing = seconds(lambda: cross_path_distance(published, across, shared))
    taken = {name: GROUPS * each for name, each in per_group.items()}
    return taken | {"cross distances": GROUPS * (GROUPS - 1) / 2 * crossing}


def _distances(window: WindowArrays) -> None:
    published, *others = window.routing.pathways(SETTINGS.thresholds)
    known = path_distance(published, SETTINGS.pair_budget)
    for pathways_N in others:
        path_distance(pathways_N, SETTINGS.coarse_budget(known))


def peak_megabytes(windows: Mapping[str, WindowArrays], geometry: Geometry) -> float:
    """The most that closing a round takes beside its windows."""
    tracemalloc.start()
    close(windows, geometry)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak / 1e6
