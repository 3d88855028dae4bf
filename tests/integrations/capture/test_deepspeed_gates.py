"""Reading DeepSpeed's gates: clean logits, once per forward pass, not mixed with evaluation."""

from __future__ import annotations

import functools
from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint

from pathwatch.integrations.capture import (
    Recording,
    RouterRecorder,
    TokenSelection,
    find_routers,
    gram_matrices,
    reduce_reading,
    undisturbed,
)

TOKENS = torch.randint(16, (4, 6), generator=torch.Generator().manual_seed(7))
ALL = TokenSelection.of_batch(rows=4, length=6)


def record(model: nn.Module, tokens: torch.Tensor) -> tuple[Recording, torch.Tensor]:
    """A recording of one pass, and what it should hold, [B, L, K], by hand from hidden states."""
    hidden: list[torch.Tensor] = []
    handles = [
        layer.register_forward_pre_hook(lambda _, args: hidden.append(args[0])) for layer in model.layers
    ]
    recorder = RouterRecorder(find_routers(model))
    with recorder.recording(ALL) as recording, torch.no_grad():
        model(tokens)
    recorder.close()
    means = []
    for handle, layer, states in zip(handles, model.layers, hidden, strict=True):
        handle.remove()
        weight = layer.deepspeed_moe.gate.wg.weight.detach()
        logits = torch.einsum("bsd,kd->bsk", states.float(), weight.float())
        exponentials = logits.exp()
        means.append((exponentials / exponentials.sum(-1, keepdim=True)).mean(1))
    return recording, torch.stack(means, 1)


def means_of(recording: Recording) -> torch.Tensor:
    return torch.stack([means[:, 0] for means in recording.real_LBMK if means is not None], 1)


@pytest.mark.parametrize("k", [1, 2, 3])
@pytest.mark.parametrize("noise", [None, "Jitter", "RSample"])
def test_weights_equal_those_of_hidden_states_and_router(
    make_model: Callable, k: int, noise: str | None
) -> None:
    """Whatever the gate drops, samples or jitters."""
    model = make_model(k=k, noise=noise)
    for training in (False, True):
        model.train(training)
        recording, expected = record(model, TOKENS)
        torch.testing.assert_close(means_of(recording), expected, atol=1e-6, rtol=0)


def test_residual_layers_have_one_router(make_model: Callable) -> None:
    """Beside the dense branch and its mixing coefficients."""
    from deepspeed.moe.layer import MoE

    model = make_model()
    torch.manual_seed(1)
    for layer in range(2):
        expert = nn.Linear(12, 12)
        model.layers[layer] = MoE(12, expert, num_experts=4, use_residual=True, min_capacity=0)
    assert [router.name for router in find_routers(model)] == [
        f"layers.{layer}.deepspeed_moe.gate" for layer in range(2)
    ]
    recording, expected = record(model, TOKENS)
    torch.testing.assert_close(means_of(recording), expected, atol=1e-6, rtol=0)


def test_a_half_precision_model_is_read_in_single_precision(make_model: Callable) -> None:
    recording, expected = record(make_model().bfloat16().train(), TOKENS)
    assert means_of(recording).dtype == torch.float32
    torch.testing.assert_close(means_of(recording), expected, atol=1e-6, rtol=0)


def test_mixed_precision_does_not_reach_the_reading(make_model: Callable) -> None:
    """Autocast would compute its logits, and their means, in bfloat16."""
    model = make_model()
    with torch.autocast("cpu", torch.bfloat16):
        recording, _ = record(model, TOKENS)
    hidden = model.embedding(TOKENS).detach()
    weight = model.layers[0].deepspeed_moe.gate.wg.weight.detach()
    expected = (hidden @ weight.T).softmax(-1).mean(1)
    torch.testing.assert_close(means_of(recording)[:, 0], expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("reentrant", [True, False])
def test_activation_checkpointing_counts_once(make_model: Callable, reentrant: bool) -> None:
    calls: list[int] = []

    def train(*, recorded: bool) -> tuple[torch.Tensor, list[torch.Tensor]]:
        model = make_model(checkpoint=functools.partial(checkpoint, use_reentrant=reentrant))
        model.train()
        model.embedding.register_forward_hook(lambda _, args, out: out.requires_grad_())
        routers = find_routers(model)
        recorder = RouterRecorder(routers)
        routers[0].module.register_forward_hook(lambda *_: calls.append(1))
        recording = recorder.begin(ALL)
        if not recorded:
            recorder.close()
        torch.manual_seed(3)
        loss = cross_entropy(model(TOKENS).flatten(0, 1), TOKENS.flatten())
        before = means_of(recording).clone() if recorded else None
        # Left open on purpose: the recomputation below calls the gates again.
        loss.backward()
        assert before is None or torch.equal(means_of(recording), before)
        return loss, [parameter.grad for parameter in model.parameters()]

    loss, gradients = train(recorded=True)
    assert len(calls) == 2
    plain_loss, plain_gradients = train(recorded=False)
    assert torch.equal(loss, plain_loss)
    assert all(torch.equal(own, plain) for own, plain in zip(gradients, plain_gradients, strict=True))


def test_nothing_is_read_outside_a_recording(make_model: Callable) -> None:
    model = make_model()
    model.eval()
    recorder = RouterRecorder(find_routers(model))
    with recorder.recording(ALL) as recording:
        model(TOKENS)
    before = means_of(recording).clone()
    model(TOKENS.flip(0))
    assert torch.equal(means_of(recording), before)


def test_a_silent_router_is_named(make_model: Callable) -> None:
    model = make_model(layers=3)
    recorder = RouterRecorder(find_routers(model))
    with recorder.recording(ALL) as recording:
        model.layers[1](model.embedding(TOKENS))
    with pytest.raises(ValueError, match="routed layers 0, 2 gave nothing"):
        reduce_reading(recording, None)


def test_an_error_in_a_hook_does_not_reach_the_model(make_model: Callable) -> None:
    model = make_model()
    recorder = RouterRecorder(find_routers(model))
    with recorder.recording(TokenSelection.of_batch(rows=3, length=6)) as recording:
        model(TOKENS)
    with pytest.raises(ValueError, match="saw 24 tokens, the batch has 3 rows of 6"):
        reduce_reading(recording, None)


def test_gram_matrices_are_inner_products_of_router_rows(make_model: Callable) -> None:
    model = make_model(layers=3)
    with torch.autocast("cpu", torch.bfloat16):  # as a reading inside a script's own would be
        own_LKK, next_LKK = gram_matrices([router.weight for router in find_routers(model)])
    rows = [[row.tolist() for row in layer.deepspeed_moe.gate.wg.weight] for layer in model.layers]
    for layer in range(3):
        for i in range(4):
            for j in range(4):
                inner = sum(a * b for a, b in zip(rows[layer][i], rows[layer][j], strict=True))
                assert own_LKK[layer, i, j].item() == pytest.approx(inner, abs=1e-6)
                if layer < 2:
                    inner = sum(a * b for a, b in zip(rows[layer][i], rows[layer + 1][j], strict=True))
                    assert next_LKK[layer, i, j].item() == pytest.approx(inner, abs=1e-6)


def test_an_undisturbed_pass_leaves_modes_and_random_state(make_model: Callable) -> None:
    model = make_model(noise="RSample", k=1)
    model.train()
    model.layers[1].eval()
    modes = [module.training for module in model.modules()]
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    with undisturbed(model):
        assert not any(module.training for module in model.modules())
        output = model(TOKENS)
        torch.rand(10)
    assert torch.equal(torch.rand(3), expected)
    assert [module.training for module in model.modules()] == modes
    assert not output.requires_grad
