"""All metrics of one round: the windows of all groups of a run that end at the same step."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from pathwatch.server.metrics.affinity import target_affinity
from pathwatch.server.metrics.consistency import adjacent_cosines, path_consistency
from pathwatch.server.metrics.distance import (
    PathDistance,
    cross_path_distance,
    layer_path_distance,
    path_distance,
)
from pathwatch.server.metrics.load import expert_load_max_ratio, routing_entropy
from pathwatch.server.metrics.loss import losses
from pathwatch.server.metrics.pairs import PairBudget
from pathwatch.server.metrics.pathways import layer_pathways
from pathwatch.server.metrics.window import Geometry, WindowArrays

Values: TypeAlias = dict[str, float | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricSettings:
    """What to compute, and how exactly."""

    thresholds: tuple[float, ...] = (0.7, 0.5, 0.6, 0.8)
    """Cumulative routing weight a pathway covers, τ (paper §4.1, §E.1); the first is the published one."""
    ridge: float = 0.01
    """λ of the effective dimension (§4.4)."""
    per_layer: bool = False
    """Path distance per layer too (Fig. 5)."""
    target_stderr: float = 0.005
    """Wanted error, relative to a mean over pairs, of comparing a sample of the pairs instead of all."""
    min_pairs: int = 1024
    """Sampled pairs where a quarter of the wanted error takes as many; of the published threshold."""
    max_pairs: int = 8192
    """Pairs compared at most; groups with no more pairs than this are computed exactly."""

    @property
    def pair_budget(self) -> PairBudget:
        return PairBudget(
            min_pairs=self.min_pairs, max_pairs=self.max_pairs, target_stderr=self.target_stderr
        )

    def coarse_budget(self, published: PathDistance | None) -> PairBudget:
        """For what is published without a standard error: as certain as wanted, and no more.

        `published` tells how far the pathways of these samples differ at the published threshold.
        """
        budget = PairBudget(min_pairs=0, max_pairs=self.max_pairs, target_stderr=self.target_stderr)
        return budget if published is None or published.spread is None else budget.after(published.spread)


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupMetrics:
    """Metrics of one group's window."""

    values: Mapping[str, float]
    """By Prometheus name without the prefix `pathwatch_`, all finite; undefined ones are absent."""
    layer_path_distance_L: NDArray[np.float64] | None
    """Path distance of each layer, where asked for and defined."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupPart:
    """What is known of a group's window without those of other groups."""

    values: Mapping[str, float | None]
    layer_path_distance_L: NDArray[np.float64] | None
    pathways_N: Sequence[str]
    """At the published threshold; empty where the window has no samples."""
    spread: float | None
    """`PathDistance.spread` of these."""


def group_metrics(
    windows: Mapping[str, WindowArrays], geometry: Geometry | None, settings: MetricSettings
) -> Mapping[str, GroupMetrics]:
    """Metrics of every group of a round, by group; a function of its arguments to the bit.

    `path_distance_cross` is the mean over the other groups of the cross-group distance (§E.4), each other
    group counting alike; `path_distance_ratio` is `path_distance` divided by it.
    `expert_load_max_ratio` is that of the most uneven layer, `target_affinity` that of the last layer.
    """
    return combined(
        {group: group_part(window, geometry, settings) for group, window in windows.items()}, settings
    )


def group_part(window: WindowArrays, geometry: Geometry | None, settings: MetricSettings) -> GroupPart:
    """A window's part of `group_metrics`: nearly all of the work, and nothing of other groups."""
    if not len(window.sample_ids_N):
        nothing: Values = {"window_samples": 0.0}
        return GroupPart(values=nothing, layer_path_distance_L=None, pathways_N=(), spread=None)
    by_threshold = dict(zip(settings.thresholds, window.routing.pathways(settings.thresholds), strict=True))
    pathways_N = by_threshold[settings.thresholds[0]]
    published = path_distance(pathways_N, settings.pair_budget)
    layers_L = None
    if settings.per_layer:
        experts = window.weights_NLK.shape[2]
        layers_L = layer_path_distance(layer_pathways(pathways_N, experts), settings.pair_budget)
    values = (
        _distances(by_threshold, published, settings)
        | _consistency(window, geometry)
        | _spread(window, settings.ridge)
        | _losses(window)
    )
    return GroupPart(
        values=values,
        layer_path_distance_L=layers_L,
        pathways_N=pathways_N,
        spread=None if published is None else published.spread,
    )


def cross_distance(first: GroupPart, other: GroupPart, groups: int, settings: MetricSettings) -> float:
    """Cross-group distance (§E.4) of two of a round's `groups` groups, in order of name; neither empty."""
    budget = settings.pair_budget
    if first.spread is not None and other.spread is not None:
        budget = budget.after(max(first.spread, other.spread))
    return cross_path_distance(first.pathways_N, other.pathways_N, budget.shared(groups - 1))


def combined(
    parts: Mapping[str, GroupPart],
    settings: MetricSettings,
    cross: Mapping[tuple[str, str], float] | None = None,
) -> Mapping[str, GroupMetrics]:
    """Metrics of every group of a round from all of their parts.

    `cross` holds `cross_distance` of pairs for which it is known already, of the groups that have samples.
    """
    values = {group: dict(part.values) for group, part in parts.items()}
    with_samples = {group: parts[group] for group in sorted(parts) if parts[group].pathways_N}
    for group, mean in _cross(with_samples, settings, cross or {}).items():
        within = values[group]["path_distance"]
        values[group]["path_distance_cross"] = mean
        values[group]["path_distance_ratio"] = within / mean if within is not None and mean > 0 else None
    return {group: _group_metrics(values[group], part.layer_path_distance_L) for group, part in parts.items()}


def _group_metrics(values: Values, layers_L: NDArray[np.float64] | None) -> GroupMetrics:
    defined = {name: value for name, value in values.items() if value is not None and math.isfinite(value)}
    return GroupMetrics(values=defined, layer_path_distance_L=layers_L)


def _distances(
    by_threshold: Mapping[float, list[str]], published: PathDistance | None, settings: MetricSettings
) -> Values:
    values: Values = {
        "path_distance": None if published is None else published.mean,
        "path_distance_normalized": None if published is None else published.normalized,
        "path_distance_stderr": None if published is None else published.stderr,
    }
    for threshold in settings.thresholds[1:]:
        distance = path_distance(by_threshold[threshold], settings.coarse_budget(published))
        name = f"path_distance_tau_{threshold:g}".replace(".", "_")
        values[name] = None if distance is None else distance.mean
    return values


def _cross(
    parts: Mapping[str, GroupPart], settings: MetricSettings, known: Mapping[tuple[str, str], float]
) -> dict[str, float]:
    """Mean cross-group distance of each group that has others."""
    others = len(parts) - 1
    if others < 1:
        return {}
    groups = list(parts)
    totals = dict.fromkeys(groups, 0.0)
    for i, group in enumerate(groups):
        for other in groups[i + 1 :]:
            distance = known.get((group, other))
            if distance is None:
                distance = cross_distance(parts[group], parts[other], len(parts), settings)
            totals[group] += distance
            totals[other] += distance
    return {group: total / others for group, total in totals.items()}


def _consistency(window: WindowArrays, geometry: Geometry | None) -> Values:
    if geometry is None:
        return {}
    cosines_NJ = adjacent_cosines(window.weights_NLK, geometry)
    consistency_N = path_consistency(cosines_NJ)
    defined = consistency_N[~np.isnan(consistency_N)]
    mean = float(defined.mean()) if len(defined) else None
    known = cosines_NJ[~np.isnan(cosines_NJ)]
    return {
        "path_consistency": mean,
        "path_smoothness": None if mean is None else 1 - mean,
        "path_consistency_samples": float(len(defined)),
        "adjacent_cosine": float(known.mean()) if len(known) else None,
    }


def _spread(window: WindowArrays, ridge: float) -> Values:
    values: Values = {
        "effective_dimension": window.routing.dimension(ridge).value,
        "routing_entropy": routing_entropy(window.weights_NLK),
        "expert_load_max_ratio": float(expert_load_max_ratio(window.weights_NLK).max()),
    }
    if window.target_weights_NLK is not None:
        values["target_effective_dimension"] = window.carrying_routing.dimension(ridge).value
    if window.targets_N is not None:
        affinity = target_affinity(window.carrying_weights_NLK[:, -1], window.targets_N)
        values["target_affinity"] = affinity.affinity
        values["same_target_pairs"] = float(affinity.same_target_pairs)
    return values


def _losses(window: WindowArrays) -> Values:
    loss = losses(window.losses_N, window.visits_N)
    return {
        "window_samples": float(len(window.sample_ids_N)),
        "train_loss": loss.train,
        "unseen_loss": loss.unseen,
        "loss_gap": loss.gap,
        "loss_gap_stderr": loss.gap_stderr,
    }
