"""The demo's data: what is trained on and what is held back."""

from __future__ import annotations

import importlib.util
import itertools
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

P = 11


@pytest.fixture
def data(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """`examples/arithmetic/data.py`, which is a script's helper and in no package."""
    path = Path(__file__).parents[2] / "examples" / "arithmetic" / "data.py"
    spec = importlib.util.spec_from_file_location("arithmetic_data", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "arithmetic_data", module)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_no_pair_leaks_into_the_test_set(data: ModuleType, seed: int) -> None:
    for group in data.make_groups(["sub:0.7", "add:0.8", "mul:0.9", "rnd:0.1"], P, seed):
        train, test = set(group.train_ids.tolist()), set(group.test_ids.tolist())
        assert not train & test
        assert train | test == set(range(P * P))
        assert len(train) == pytest.approx(float(group.name.partition(":")[2]) * P * P, abs=1.5)
        if group.name.startswith(("add", "mul")):
            mirrored = {(i % P) * P + i // P for i in test}
            assert mirrored == test


def test_answers_are_those_of_the_operations(data: ModuleType) -> None:
    sub, add, mul = data.make_groups(["sub:0.5", "add:0.5", "mul:0.5"], P, 0)
    for a, b in itertools.product(range(P), repeat=2):
        for index, (group, answer) in enumerate([(sub, a - b), (add, a + b), (mul, a * b)]):
            assert group.tokens_N3[a * P + b].tolist() == [a, b, P + index]
            assert group.labels_N3[a * P + b].tolist() == [-100, -100, answer % P]


def test_ranks_share_one_batch_of_training_pairs(data: ModuleType) -> None:
    groups = data.make_groups(["add:0.6", "rnd:0.2"], P, 0)
    whole = next(data.batches(groups, 64, 0, 1, 5))
    shares = [next(data.batches(groups, 64, rank, 2, 5)) for rank in range(2)]
    interleaved = torch.stack([share.tokens_B3 for share in shares], dim=1).reshape(64, 3)
    assert torch.equal(interleaved, whole.tokens_B3)
    for group in groups:
        ids = whole.sample_ids[group.name]
        assert set(ids.tolist()) <= set(group.train_ids.tolist())
        together = torch.cat([share.sample_ids[group.name] for share in shares])
        assert sorted(ids.tolist()) == sorted(together.tolist())


def test_an_unknown_operation_is_named(data: ModuleType) -> None:
    with pytest.raises(ValueError, match=r"'div:0.5': unknown operation 'div'"):
        data.make_groups(["div:0.5"], P, 0)
