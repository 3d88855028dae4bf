"""Routers found by structure: a gate beside experts, as in transformers 4 and in research codes."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn.functional import linear, sigmoid, softmax

from pathwatch.integrations.capture import (
    NoRoutersError,
    Router,
    RouterRecorder,
    ScoreKind,
    TokenSelection,
    find_routers,
    output_at,
    reduce_reading,
)

D, K = 6, 4


class Block(nn.Module):
    """Bare linear gate; `forward` decides what its logits are."""

    def __init__(self, gate: nn.Module | None = None, experts: int = K) -> None:
        super().__init__()
        self.gate = nn.Linear(D, experts, bias=False) if gate is None else gate
        self.experts = nn.ModuleList(nn.Linear(D, D) for _ in range(experts))

    def mixed(self, x: torch.Tensor, weights_TK: torch.Tensor) -> torch.Tensor:
        return sum(weights_TK[:, k, None] * expert(x) for k, expert in enumerate(self.experts))


class SoftmaxBlock(Block):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        flat = x.reshape(-1, D)
        return self.mixed(flat, softmax(self.gate(flat), dim=-1)).reshape(x.shape)


class SigmoidBlock(Block):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        flat = x.reshape(-1, D)
        return self.mixed(flat, self.scored(flat)).reshape(x.shape)

    def scored(self, flat: torch.Tensor) -> torch.Tensor:
        scores = sigmoid(self.gate(flat))
        return scores / scores.sum(-1, keepdim=True)


class AmbiguousBlock(Block):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        flat = x.reshape(-1, D)
        shared = sigmoid(flat.mean(-1, keepdim=True))
        return (shared * self.mixed(flat, softmax(self.gate(flat), dim=-1))).reshape(x.shape)


class ChoosingGate(nn.Module):
    """As DeepSeek's own code: the chosen experts and their weights, no logits."""

    def __init__(self, function: str, bias: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(K, D))
        self.bias = nn.Parameter(torch.randn(K)) if bias else None
        self.function = function
        self.e_score_correction_bias = nn.Buffer(torch.randn(K))

    def forward(self, hidden_states: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        logits = linear(hidden_states.view(-1, D), self.weight, self.bias)
        scores = logits.softmax(-1) if self.function == "softmax" else logits.sigmoid()
        index = (scores + self.e_score_correction_bias).topk(2, dim=-1)[1]
        weights = scores.gather(1, index)
        return index, weights / weights.sum(-1, keepdim=True) * 2.5


class SparseGate(ChoosingGate):
    """Weights of all experts, zero for those not chosen."""

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        index, weights = super().forward(hidden_states)
        return torch.zeros(len(index), K).scatter(1, index, weights / 2.5)


class SparseBlock(Block):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.mixed(x.reshape(-1, D), self.gate(x)).reshape(x.shape)


class ScoringGate(ChoosingGate):
    """Sigmoids, of which the block chooses."""

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return sigmoid(linear(hidden_states.reshape(-1, D), self.weight))


class ChoosingBlock(Block):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        index, weights = self.gate(x)
        dense = torch.zeros(len(index), K, dtype=weights.dtype).scatter(1, index, weights)
        return self.mixed(x.reshape(-1, D), dense).reshape(x.shape)


class NoisyGate(nn.Module):
    """Noise on the logits in training (Shazeer et al. 2017), as many research codes have it."""

    def __init__(self) -> None:
        super().__init__()
        self.proj = nn.Linear(D, K)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        logits = self.proj(x)
        if self.training:
            logits = logits + torch.randn_like(logits)
        weights, index = logits.softmax(-1).topk(2)
        return logits, weights, index


class AlwaysNoisyGate(NoisyGate):
    """Noise that cannot be told from its scores."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return softmax(self.proj(x) + torch.randn(len(x), K), -1)


class NoisyBlock(Block):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        _, weights, index = self.gate(x.reshape(-1, D))
        return self.mixed(x.reshape(-1, D), torch.zeros(len(index), K).scatter(1, index, weights)).reshape(
            x.shape
        )


class Jittering(SoftmaxBlock):
    """Noise on the hidden states, in place, before the gate sees them."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            x *= torch.empty_like(x).uniform_(0.5, 1.5)
        return super().forward(x)


class JitteringWithMore(SoftmaxBlock):
    """The same, but it cannot be tried on hidden states alone."""

    def forward(self, x: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        return super().forward(x * torch.empty_like(x).uniform_(0.5, 1.5) * scale)


class Jittered(Jittering):
    """Noise on hidden states that are not those which enter the block."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(2 * x)


def read(model: nn.Module, routers: list[Router]) -> list[torch.Tensor]:
    """Mean routing weights [K] of each layer, over all tokens of one training pass."""
    x = torch.randn(2, 3, D, generator=torch.Generator().manual_seed(3))
    recorder = RouterRecorder(routers)
    with recorder.recording(TokenSelection.of_batch(rows=2, length=3)) as recording, torch.no_grad():
        model(x.clone())
    assert recording.error is None
    return [means[:, 0].mean(0) for means in recording.real_LBMK if means is not None]


def by_hand(weight: torch.Tensor, bias: torch.Tensor | None, function: str) -> torch.Tensor:
    """The same of a first layer."""
    x = torch.randn(2, 3, D, generator=torch.Generator().manual_seed(3)).reshape(-1, D)
    logits = x @ weight.detach().T + (0 if bias is None else bias.detach())
    scores = logits.exp() if function == "softmax" else 1 / (1 + (-logits).exp())
    return (scores / scores.sum(-1, keepdim=True)).mean(0)


@pytest.mark.parametrize(("block", "function"), [(SoftmaxBlock, "softmax"), (SigmoidBlock, "sigmoid")])
def test_a_bare_gate_is_read_as_its_block_uses_it(block: type[Block], function: str) -> None:
    model = nn.Sequential(block(), block())
    routers = find_routers(model)
    assert [router.name for router in routers] == ["0.gate", "1.gate"]
    torch.testing.assert_close(read(model, routers)[0], by_hand(model[0].gate.weight, None, function))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("function", ["softmax", "sigmoid"])
def test_a_gate_that_gives_only_its_choice_is_computed_again(function: str, bias: bool) -> None:
    """With the bias of its logits, without the one that only chooses, without scaling."""
    gate = ChoosingGate(function, bias)
    model = nn.Sequential(ChoosingBlock(gate))
    torch.testing.assert_close(read(model, find_routers(model))[0], by_hand(gate.weight, gate.bias, function))


@pytest.mark.parametrize("function", ["softmax", "sigmoid"])
def test_weights_of_chosen_experts_are_not_taken_for_scores_of_all(function: str) -> None:
    gate = SparseGate(function, bias=False)
    model = nn.Sequential(SparseBlock(gate))
    torch.testing.assert_close(read(model, find_routers(model))[0], by_hand(gate.weight, None, function))


def test_noise_on_logits_is_left_out_in_training() -> None:
    model = nn.Sequential(NoisyBlock(NoisyGate())).train()
    gate = model[0].gate.proj
    torch.testing.assert_close(
        read(model, find_routers(model))[0], by_hand(gate.weight, gate.bias, "softmax")
    )


def test_noise_on_hidden_states_is_left_out_in_training() -> None:
    model = nn.Sequential(Jittering()).train()
    torch.testing.assert_close(
        read(model, find_routers(model))[0], by_hand(model[0].gate.weight, None, "softmax")
    )


def test_mixed_precision_does_not_make_computed_logits_coarse() -> None:
    gate = ChoosingGate("softmax", bias=False)
    model = nn.Sequential(ChoosingBlock(gate))
    routers = find_routers(model)
    with torch.autocast("cpu", torch.bfloat16):
        means = read(model, routers)[0]
    torch.testing.assert_close(means, by_hand(gate.weight, None, "softmax"), atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (AmbiguousBlock, r"0\.gate \(Linear\).*neither what it gives out nor its code tells a softmax"),
        (lambda: NoisyBlock(AlwaysNoisyGate()), r"0\.gate \(AlwaysNoisyGate\).*adds noise to its scores"),
        (lambda: SparseBlock(ScoringGate("", False)), "neither logits nor probabilities"),
        (JitteringWithMore, r"0\.gate .*JitteringWithMore may add noise before it \(uniform_ in its code"),
        (Jittered, r"0\.gate .*Jittered adds noise to changed hidden states"),
        (lambda: SoftmaxBlock(nn.Identity()), r"0\.gate \(Identity\).*has no weight with a row"),
    ],
)
def test_what_cannot_be_read_with_certainty_is_refused(make: Callable[[], nn.Module], problem: str) -> None:
    with pytest.raises(ValueError, match=problem + r".*say how it is read with router="):
        find_routers(nn.Sequential(make()))


def test_layers_with_different_numbers_of_experts_are_refused() -> None:
    with pytest.raises(ValueError, match=r"same number of experts; found 0\.gate: 4, 1\.gate: 5"):
        find_routers(nn.Sequential(SoftmaxBlock(), SoftmaxBlock(experts=5)))


def test_layers_that_share_a_router_are_refused() -> None:
    gate = nn.Linear(D, K)
    with pytest.raises(ValueError, match=r"layers share a router.*: 0\.gate, 1\.gate"):
        find_routers(nn.Sequential(SoftmaxBlock(gate), SoftmaxBlock(gate)))


def test_a_hook_says_how_a_home_made_router_is_read() -> None:
    model = nn.Sequential(AmbiguousBlock(), nn.Sequential(SoftmaxBlock()))
    gate = model[0].gate

    def router(name: str, module: nn.Module) -> Router | None:
        if module is not gate:
            return None
        return Router(
            name=name, module=module, weight=gate.weight, read=output_at(0), kind=ScoreKind.SOFTMAX_LOGITS
        )

    routers = find_routers(model, router)
    assert [found.name for found in routers] == ["0.gate"]
    torch.testing.assert_close(read(model, routers)[0], by_hand(gate.weight, None, "softmax"))
    with pytest.raises(NoRoutersError, match="in Sequential: router= recognized no module of it"):
        find_routers(model, lambda name, module: None)


class Recorded(nn.Module):
    """A transformers model: its metadata name the class that gives out `router_logits`."""

    def __init__(self, declared: type[nn.Module], *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)
        self._can_record_outputs = {"router_logits": declared, "hidden_states": nn.Linear}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


class TwoRouters(nn.Module):
    """Text and vision tokens each have theirs."""

    def __init__(self) -> None:
        super().__init__()
        self.text, self.vision = SoftmaxBlock(), SoftmaxBlock()


def test_a_declared_block_is_read_at_the_gate_inside_it() -> None:
    """As in releases of transformers whose blocks gave the logits out."""
    model = Recorded(SoftmaxBlock, nn.Linear(D, D), SoftmaxBlock())
    routers = find_routers(model)
    assert [router.name for router in routers] == ["layers.1.gate"]


def test_a_layer_with_two_routers_is_refused() -> None:
    with pytest.raises(ValueError, match=r"layers\.0 \(TwoRouters\) is one MoE layer with several routers"):
        find_routers(Recorded(TwoRouters, TwoRouters()))


def test_attention_and_multi_token_prediction_are_no_layers_of_the_model() -> None:
    class MixtureOfAttention(SoftmaxBlock):
        pass

    model = nn.ModuleDict({"layers": SoftmaxBlock(), "mtp_layers": SoftmaxBlock(), "a": MixtureOfAttention()})
    assert [router.name for router in find_routers(model)] == ["layers.gate"]


def test_hidden_states_with_tokens_first_are_refused() -> None:
    """Flattened, their routing weights would go to the wrong samples."""

    class Whole(SoftmaxBlock):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + softmax(self.gate(x), -1).sum()

    model = nn.Sequential(Whole())
    recorder = RouterRecorder(find_routers(model))
    with recorder.recording(TokenSelection.of_batch(rows=2, length=3)) as recording:
        model(torch.randn(3, 2, D))
    with pytest.raises(ValueError, match=r"router 0\.gate was given tokens first \(3 tokens of 2 rows\)"):
        reduce_reading(recording, None)


def test_trying_a_router_out_leaves_model_and_random_state_alone() -> None:
    model = nn.Sequential(NoisyBlock(NoisyGate()))
    called = []
    model[0].gate.register_forward_hook(lambda *_: called.append(1))
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    torch.manual_seed(4)
    expected = torch.rand(3)
    torch.manual_seed(4)
    find_routers(model)
    assert torch.equal(torch.rand(3), expected)
    assert not called
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())


def test_experts_are_counted_while_zero3_has_the_weight_in_parts() -> None:
    gate = ChoosingGate("sigmoid", bias=False)
    model = nn.Sequential(ChoosingBlock(gate))
    whole = gate.weight.data
    gate.weight.data, gate.weight.ds_shape = torch.empty(0), whole.shape
    (router,) = find_routers(model)
    assert router.experts == K
    # Filled for the time of a forward pass; DeepSpeed's own hook, there first, empties it again.
    gate.register_forward_pre_hook(lambda *_: setattr(gate.weight, "data", whole))
    gate.register_forward_hook(lambda *_: setattr(gate.weight, "data", torch.empty(0)))
    torch.testing.assert_close(read(model, [router])[0], by_hand(whole, None, "sigmoid"))


def test_a_dense_model_is_refused_with_what_was_looked_for() -> None:
    with pytest.raises(NoRoutersError, match="no routers found in Sequential: neither DeepSpeed"):
        find_routers(nn.Sequential(nn.Linear(2, 2)))
