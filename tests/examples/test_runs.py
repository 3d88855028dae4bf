"""examples/runs: the recorded runs a detector is tuned on and judged by."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from pathwatch.server.report.labels import load_labels
from pathwatch.server.traces import load_trace

P = 11
ANSWERS = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "sq": lambda a, b: a * a + b * b,
    "cub": lambda a, b: a * a * a + a * b,
    "lin": lambda a, b: a + a + b + b + b,
    "max": lambda a, b: a if a > b else b,
}


@pytest.fixture
def record(example: Callable[[str], ModuleType], tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """A recipe with fewer steps, recorded as the command would; the trace's path."""

    def run(name: str, folder: str = "out", **changes: object) -> Path:
        recipe = replace(example("runs.recipes").RECIPES[name], **{"steps": 40, "interval": 20, **changes})
        example("runs.__main__").record(name, recipe, tmp_path / folder)
        return tmp_path / folder / f"{name}.npz"

    precision = torch.get_float32_matmul_precision()
    yield run
    torch.set_float32_matmul_precision(precision)


@pytest.mark.parametrize("operation", ANSWERS)
def test_answers_are_those_of_the_operations(example: Callable[[str], ModuleType], operation: str) -> None:
    group = example("runs.data").make_group(f"{operation}:0.5", 1, P, np.random.default_rng(0))
    for a, b in itertools.product(range(P), repeat=2):
        assert group.tokens_N3[a * P + b].tolist() == [a, b, P + 1]
        assert group.answers_N[a * P + b] == ANSWERS[operation](a, b) % P


def test_division_undoes_multiplication_and_leaves_zero_out(example: Callable[[str], ModuleType]) -> None:
    group = example("runs.data").make_group("div:0.5", 0, P, np.random.default_rng(0))
    used = sorted([*group.train_ids.tolist(), *group.test_ids.tolist()])
    assert used == [a * P + b for a in range(P) for b in range(1, P)]
    for sample_id in used:
        assert group.answers_N[sample_id] * (sample_id % P) % P == sample_id // P


@pytest.mark.parametrize("operation", [*ANSWERS, "rnd"])
def test_no_pair_leaks_into_the_test_set(example: Callable[[str], ModuleType], operation: str) -> None:
    group = example("runs.data").make_group(f"{operation}:0.6", 0, P, np.random.default_rng(3))
    train, test = set(group.train_ids.tolist()), set(group.test_ids.tolist())
    assert not train & test
    assert train | test == set(range(P * P))
    assert len(train) == pytest.approx(0.6 * P * P, abs=3)
    if operation in ("add", "mul", "sq", "max"):
        assert {(i % P) * P + i // P for i in test} == test


def test_an_unknown_operation_is_named(example: Callable[[str], ModuleType]) -> None:
    with pytest.raises(ValueError, match=r"group 'pow:0.5': unknown operation 'pow'"):
        example("runs.data").make_group("pow:0.5", 0, P, np.random.default_rng(0))


def test_nothing_of_the_tuning_set_is_held_out(example: Callable[[str], ModuleType]) -> None:
    recipes = example("runs.recipes")
    seeds = [{recipe.seed for recipe in some.values()} for some in (recipes.TUNING, recipes.HELD_OUT)]
    assert not seeds[0] & seeds[1]
    assert not recipes.TUNING.keys() & recipes.HELD_OUT.keys()


@pytest.mark.parametrize("top", [1, 2, 4])
def test_masked_experts_are_those_the_router_chose(example: Callable[[str], ModuleType], top: int) -> None:
    """Against a plain loop: each token through each of its experts, weighted by its routing weight."""
    torch.manual_seed(top)
    moe = example("runs.model").DenseMoE(width=12, experts=4, hidden=5, top=top)
    tokens = torch.randn(2, 3, 12)
    out = moe(tokens)
    for b, s in itertools.product(range(2), range(3)):
        x_D = tokens[b, s]
        weights_K = torch.softmax(moe.router.weight @ x_D, dim=0)
        torch.testing.assert_close(moe.weights_BSK[b, s], weights_K)
        expected = torch.zeros(12)
        for k in weights_K.argsort(descending=True)[:top].tolist():
            hidden_H = torch.relu(moe.up.weight[5 * k : 5 * (k + 1)] @ x_D)
            expected += weights_K[k] * (moe.down.weight[:, 5 * k : 5 * (k + 1)] @ hidden_H)
        torch.testing.assert_close(out[b, s], expected)


def test_a_causal_model_does_not_look_ahead(example: Callable[[str], ModuleType]) -> None:
    torch.manual_seed(0)
    shape = {"layers": 2, "width": 16, "heads": 2, "experts": 4, "hidden": 8, "top": 2}
    model = example("runs.model").MoETransformer(20, 20, 6, **shape, last_only=False)
    tokens = torch.randint(20, (3, 6))
    changed = tokens.clone()
    changed[:, 4] = (changed[:, 4] + 1) % 20
    before, after = model(tokens), model(changed)
    torch.testing.assert_close(before[:, :4], after[:, :4])
    assert not torch.allclose(before[:, 4:], after[:, 4:])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["a_rndmix", "c_ol_pair"])
def test_a_recorded_run_is_a_trace_with_labels(record: Callable[..., Path], name: str) -> None:
    path = record(name)
    trace, labels = load_trace(path), load_labels(path.parent / "labels" / f"{name}.labels.npz")
    assert trace.steps_T.tolist() == labels.steps_T.tolist() == [0, 20, 40]
    assert (trace.layers, trace.experts, trace.samples) == (3, 8, 128)
    # One token of three carries the loss; the mean over all three is another.
    assert np.abs(trace.target_weights_TGNLK - trace.weights_TGNLK).max() > 0.01
    assert trace.losses_TGN[-1].mean() < trace.losses_TGN[0].mean()
    assert labels.measure == "test accuracy"
    assert trace.targets_GN.max() < 37
    for layer in range(3):  # W·Wᵀ: symmetric, its diagonal the squared lengths of expert embeddings
        gram_KK = trace.gram_self_TLKK[-1, layer]
        np.testing.assert_allclose(gram_KK, gram_KK.T, rtol=1e-6)
        assert (np.linalg.eigvalsh(gram_KK) > -1e-5).all()


@pytest.mark.slow
def test_a_run_can_be_repeated_to_the_bit(record: Callable[..., Path]) -> None:
    first, second = (np.load(record("a_p31", folder, groups=("add:0.6", "div:0.6"))) for folder in "ab")
    assert set(first.files) == set(second.files)
    for name in first.files:
        np.testing.assert_array_equal(first[name], second[name])


@pytest.mark.slow
def test_an_olmoe_s_weights_are_those_of_its_routers(example: Callable[[str], ModuleType]) -> None:
    torch.manual_seed(0)
    shape = {"layers": 2, "width": 16, "experts": 4, "hidden": 8, "top": 2}
    model = example("runs.olmoe").Olmoe(13, 3, **shape)
    seen: list[torch.Tensor] = []
    for layer in model.model.model.layers:
        layer.mlp.gate.register_forward_hook(lambda gate, inputs, _: seen.append(inputs[0] @ gate.weight.T))
    tokens = torch.randint(13, (5, 3))
    logits_BV = model(tokens)
    assert logits_BV.shape == (5, 13)
    for layer, logits_NK in enumerate(seen):
        expected_BSK = torch.exp(logits_NK).view(5, 3, 4)
        expected_BSK = expected_BSK / expected_BSK.sum(-1, keepdim=True)
        torch.testing.assert_close(model.weights_BSLK[:, :, layer], expected_BSK)
        torch.testing.assert_close(model.routers_LKD[layer], model.model.model.layers[layer].mlp.gate.weight)


def test_the_command_lists_its_runs_and_names_an_unknown_one(
    example: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    main = example("runs.__main__").main
    monkeypatch.setattr("sys.argv", ["runs", "--list"])
    main()
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(example("runs.recipes").RECIPES)
    monkeypatch.setattr("sys.argv", ["runs", "a_pear"])
    with pytest.raises(SystemExit):
        main()
    assert "no run 'a_pear'; --list names them" in capsys.readouterr().err


def test_a_small_group_makes_the_probe_of_all_groups_smaller(example: Callable[[str], ModuleType]) -> None:
    recipe = example("runs.recipes").Recipe(("add:0.6", "rnd:0.05"), 10, seed=0)
    data = example("runs.train").make_data(recipe, np.random.default_rng(0))
    assert [len(ids) for ids in data.probe] == [len(data.groups[1].train_ids)] * 2
