"""What an evaluation pass must leave as it was."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch
from deepspeed.runtime.activation_checkpointing import checkpointing
from torch import nn
from transformers import OlmoeConfig, OlmoeForCausalLM

from pathwatch.integrations.capture import undisturbed


class Restless(nn.Module):
    """Changes all that a forward pass may change, in evaluation too."""

    def __init__(self) -> None:
        super().__init__()
        self.dropout = nn.Dropout(0.5)
        self.register_buffer("count", torch.zeros(3))
        self.register_buffer("replaced", torch.zeros(3))
        self.register_buffer("absent", None)
        self.loss: torch.Tensor | None = None
        self.length = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.count += 1
        self.replaced = self.replaced + 1
        self.loss = x.sum()
        self.length += 1
        return self.dropout(x) * random.random() * np.random.rand() * torch.rand(())  # noqa: S311


def test_buffers_and_what_modules_remember_are_as_before() -> None:
    model = Restless()
    model(torch.ones(2))
    count, replaced, loss = model.count, model.replaced, model.loss
    with undisturbed(model):
        model(torch.ones(5))
        assert model.count[0] == 2
        assert model.length == 2
    assert model.count is count
    assert model.replaced is replaced
    assert model.loss is loss
    assert model.length == 1
    assert count.tolist() == replaced.tolist() == [1, 1, 1]


def test_random_numbers_go_on_as_if_nothing_was_drawn() -> None:
    def drawn() -> list[float]:
        return [random.random(), np.random.rand(), torch.rand(()).item()]  # noqa: S311

    def seed() -> None:
        random.seed(3)
        np.random.seed(3)
        torch.manual_seed(3)

    model = Restless()
    seed()
    plain = drawn()
    seed()
    with undisturbed(model):
        model(torch.ones(2))
    assert drawn() == plain


def test_the_random_states_of_deepspeeds_checkpointing_are_as_before() -> None:
    tracker = checkpointing.get_cuda_rng_tracker()
    before = tracker.get_states()
    tracker.set_states({"one": torch.zeros(1)})
    try:
        with undisturbed(nn.Linear(2, 2)):
            tracker.states_["one"] = torch.ones(1)
            tracker.states_["two"] = torch.ones(1)
        assert {name: state.item() for name, state in tracker.get_states().items()} == {"one": 0.0}
    finally:
        tracker.set_states(before)


def test_every_module_keeps_its_own_mode_and_its_train_method_is_not_called() -> None:
    class Merging(nn.Module):
        """As adapters do that are merged into the weights for evaluation: what is split again is rounded."""

        def train(self, mode: bool = True) -> Any:
            raise AssertionError("merged")

    model = nn.Sequential(nn.Linear(2, 2), nn.Dropout(), Merging())
    model[1].training = False
    with undisturbed(model):
        assert not any(module.training for module in model.modules())
        assert not torch.is_grad_enabled()
    assert [module.training for module in model.modules()] == [True, True, False, True]


def test_everything_is_as_before_when_the_pass_fails() -> None:
    model = Restless()
    state = torch.get_rng_state()

    def read() -> None:
        with undisturbed(model):
            model(torch.ones(2))
            raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        read()
    assert model.training
    assert model.length == 0
    assert model.count.tolist() == [0, 0, 0]
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.is_autocast_cache_enabled()


def test_training_does_not_go_on_with_weights_that_the_pass_has_cast() -> None:
    """Autocast would keep them; before PyTorch 2.10 without gradients (pytorch/pytorch#112583)."""
    layer = nn.Linear(4, 4, bias=False)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        with undisturbed(layer):
            layer(torch.ones(1, 4))
        nn.init.zeros_(layer.weight)
        output = layer(torch.ones(1, 4))
        output.sum().backward()
    assert output.tolist() == [[0.0] * 4]
    assert layer.weight.grad is not None


def test_transformers_keep_no_keys_and_values() -> None:
    config = OlmoeConfig(
        vocab_size=32,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        num_experts=4,
        num_experts_per_tok=2,
    )
    model = OlmoeForCausalLM(config)
    tokens = torch.zeros(1, 4, dtype=torch.long)
    assert model.eval()(tokens).past_key_values is not None
    with undisturbed(model):
        assert model(tokens).past_key_values is None
    assert model(tokens).past_key_values is not None
