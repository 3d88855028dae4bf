"""What is varied and what is measured: how alike routing is, and what students make of noise."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from moe import ExpertKind, OneLayerMoE
from scipy.stats import spearmanr

from pathwatch.server.metrics.dimension import effective_dimension
from pathwatch.server.metrics.distance import path_distance
from pathwatch.server.metrics.pairs import PairBudget
from pathwatch.server.metrics.pathways import pathways, rank_experts

KINDS: tuple[ExpertKind, ...] = ("constant", "linear")
RIDGE, THRESHOLD = 0.01, 0.7
"""λ of the bound and of the students; τ of pathways: both as pathwatch publishes them."""
NOISE = 1.0
"""σ², variance of the noise in the training targets."""
WIDTH, EXPERTS, CLUSTERS, STUDENTS, TEST_INPUTS = 16, 16, 8, 32, 1024
ALL_PAIRS = PairBudget(min_pairs=1, max_pairs=10**9, target_stderr=0.0)


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One data set and one frozen router."""

    spread: float
    """0 = inputs of a cluster are all the same, 1 = no clusters are left; inputs keep unit variance."""
    temperature: float
    """Of the router; higher = softer routing."""
    seed: int
    """Of router, clusters, inputs, target and noise: the same draws for every spread and temperature."""
    samples: int


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """Errors are mean squares over test inputs and students, by kind of experts."""

    setting: Setting
    effective_dimension: float
    path_distance: float
    path_distance_normalized: float
    variance_term: float
    """The bound's σ²·d_eff/n."""
    risk: dict[ExpertKind, float]
    """Excess risk: error against the noiseless target of students trained on noisy targets."""
    bias: dict[ExpertKind, float]
    """The same of a student trained without noise."""
    variance: dict[ExpertKind, float]
    """What noise changes in a student's outputs."""


def measure(setting: Setting) -> Measurement:
    random = torch.Generator().manual_seed(setting.seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=random, dtype=torch.float64)

    router_KD = normal(EXPERTS, WIDTH) / WIDTH**0.5
    centres_JD = normal(CLUSTERS, WIDTH)
    direction_D = normal(WIDTH) / WIDTH**0.5

    def draw(n: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Inputs, and a smooth function of them that knows nothing of the routing."""
        centres_ND = centres_JD[torch.randint(CLUSTERS, (n,), generator=random)]
        x_ND = (1 - setting.spread**2) ** 0.5 * centres_ND + setting.spread * normal(n, WIDTH)
        return x_ND, torch.sin(2 * x_ND @ direction_D)[:, None]

    (x_ND, target_N1), (test_MD, truth_M1) = draw(setting.samples), draw(TEST_INPUTS)
    noise_NR = NOISE**0.5 * normal(setting.samples, STUDENTS)
    errors: dict[str, dict[ExpertKind, float]] = {"risk": {}, "bias": {}, "variance": {}}
    for kind in KINDS:
        model = OneLayerMoE(router_KD, setting.temperature, kind)
        # One more student, trained without noise.
        model.fit(x_ND, target_N1 + torch.nn.functional.pad(noise_NR, (0, 1)), RIDGE)
        with torch.no_grad():
            outputs_MR, noiseless_M1 = model(test_MD).split([STUDENTS, 1], dim=1)
        errors["risk"][kind] = (outputs_MR - truth_M1).square().mean().item()
        errors["bias"][kind] = (noiseless_M1 - truth_M1).square().mean().item()
        errors["variance"][kind] = (outputs_MR - noiseless_M1).square().mean().item()
    weights_NLK = model.routing(x_ND)[:, None].numpy()
    distance = path_distance(pathways(rank_experts(weights_NLK), THRESHOLD), ALL_PAIRS)
    if distance is None:
        raise ValueError(f"wanted two samples at least, got {setting.samples}")
    dimension = effective_dimension(weights_NLK, RIDGE).value
    return Measurement(
        setting=setting,
        effective_dimension=dimension,
        path_distance=distance.mean,
        path_distance_normalized=distance.normalized,
        variance_term=NOISE * dimension / setting.samples,
        **errors,
    )


Reading = Callable[[Measurement], float]


def correlation(
    measurements: Sequence[Measurement], x: Reading, y: Reading, within: Callable[[Setting], Hashable]
) -> tuple[float, float]:
    """Spearman's correlation of two readings among settings alike in `within`: mean, standard deviation."""
    alike: defaultdict[Hashable, list[Measurement]] = defaultdict(list)
    for one in measurements:
        alike[within(one.setting)].append(one)
    found = [spearmanr([x(m) for m in group], [y(m) for m in group]).statistic for group in alike.values()]
    return float(np.mean(found)), float(np.std(found))
