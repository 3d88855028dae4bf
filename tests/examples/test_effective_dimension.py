"""The example on the bound: its model is trained to the optimum, its kernel is the metric's, and it runs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from pathwatch.server.metrics.dimension import effective_dimension

FOLDER = Path(__file__).parents[2] / "examples" / "effective_dimension"


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """`experiment.py`, imported as the script does; it brings `moe.py` along."""
    monkeypatch.syspath_prepend(FOLDER)
    for name in ("moe", "experiment"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    import experiment

    for name in ("moe", "experiment"):
        monkeypatch.delitem(sys.modules, name)
    return experiment


def inputs(samples: int, width: int = 5, experts: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(3)
    x_ND = torch.randn(samples, width, generator=random, dtype=torch.float64)
    return x_ND, torch.randn(experts, width, generator=random, dtype=torch.float64)


@pytest.mark.parametrize("kind", ["constant", "linear"])
def test_training_ends_where_the_gradient_is_zero(example: ModuleType, kind: str) -> None:
    x_ND, router_KD = inputs(30)
    targets_NR = torch.sin(x_ND[:, :2])
    model = example.OneLayerMoE(router_KD, 0.7, kind)
    model.fit(x_ND, targets_NR, 0.05)
    objective = (model(x_ND) - targets_NR).square().mean(
        dim=0
    ).sum() + 0.05 * model.experts_KIR.square().sum()
    objective.backward()
    assert model.experts_KIR.abs().max() > 0.01
    assert model.experts_KIR.grad.abs().max() < 1e-12
    assert [name for name, _ in model.named_parameters()] == ["experts_KIR"], "the router is frozen"


def test_output_is_the_routing_weighted_sum_of_the_experts(example: ModuleType) -> None:
    x_ND, router_KD = inputs(6)
    model = example.OneLayerMoE(router_KD, 0.7, "linear")
    model.fit(x_ND, x_ND.sum(dim=1, keepdim=True), 0.1)
    for x_D, output in zip(x_ND, model(x_ND).detach(), strict=True):
        scores_K = np.exp((router_KD @ x_D).numpy() / 0.7)
        seen_I = np.array([1, *x_D]) / np.sqrt(6)
        by_expert_K = [expert_I1[:, 0] @ seen_I for expert_I1 in model.experts_KIR.detach().numpy()]
        assert output.item() == pytest.approx(scores_K @ by_expert_K / scores_K.sum())


def test_degrees_of_freedom_of_constant_experts_are_the_effective_dimension(example: ModuleType) -> None:
    """Trained on the columns of the identity, students return the smoothing matrix: its trace is d_eff."""
    x_ND, router_KD = inputs(40)
    model = example.OneLayerMoE(router_KD, 0.7, "constant")
    model.fit(x_ND, torch.eye(40, dtype=torch.float64), 0.01)
    weights_NLK = model.routing(x_ND)[:, None].numpy()
    assert model(x_ND).trace().item() == pytest.approx(effective_dimension(weights_NLK, 0.01).value)


def test_error_is_bias_and_variance(example: ModuleType) -> None:
    clustered, scattered = (
        example.measure(example.Setting(spread=spread, temperature=0.5, seed=1, samples=64))
        for spread in (0.1, 1.0)
    )
    for one in (clustered, scattered):
        assert one.variance_term == pytest.approx(example.NOISE * one.effective_dimension / 64)
        for kind in example.KINDS:
            assert one.risk[kind] == pytest.approx(one.bias[kind] + one.variance[kind], rel=0.15)
    assert clustered.effective_dimension < scattered.effective_dimension
    assert clustered.path_distance_normalized < scattered.path_distance_normalized


def test_correlation_is_taken_within_and_then_averaged(example: ModuleType) -> None:
    def made(seed: int, x: float, y: float) -> object:
        nothing = dict.fromkeys(example.KINDS, 0.0)
        return example.Measurement(
            setting=example.Setting(spread=0, temperature=1, seed=seed, samples=2),
            effective_dimension=x,
            path_distance=y,
            path_distance_normalized=0,
            variance_term=0,
            risk=nothing,
            bias=nothing,
            variance=nothing,
        )

    rising = [made(0, 1, 1), made(0, 2, 2), made(0, 3, 3)]
    falling = [made(1, 11, 13), made(1, 12, 12), made(1, 13, 11)]
    found = example.correlation(
        [*rising, *falling],
        lambda m: m.effective_dimension,
        lambda m: m.path_distance,
        lambda setting: setting.seed,
    )
    assert found == pytest.approx((0, 1))
    together, _ = example.correlation(
        [*rising, *falling], lambda m: m.effective_dimension, lambda m: m.path_distance, lambda setting: 0
    )
    assert together == pytest.approx(1 - 6 * 8 / (6 * 35))


@pytest.mark.slow
def test_it_runs(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, FOLDER / "run.py", "--out", tmp_path / "new", "--seeds", "2", "--samples", "64"],
        capture_output=True,
        text=True,
        check=True,
        timeout=240,
    )
    (length,) = (line for line in done.stdout.splitlines() if line.startswith("D_path / length"))
    by_temperature = [float(cell) for cell in length.split()[3:] if "(" not in cell]
    assert len(by_temperature) == 6
    assert min(by_temperature[:3]) > 0.8, "routing that is more alike has fewer directions"
    measurements = json.loads((tmp_path / "new" / "measurements.json").read_text())
    assert len(measurements) == 2 * 4 * 8
    assert (tmp_path / "new" / "effective_dimension.png").read_bytes().startswith(b"\x89PNG")
