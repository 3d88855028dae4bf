"""Reading the routers of transformers models, against what the models give out themselves."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from pathwatch.integrations.capture import RouterRecorder, ScoreKind, TokenSelection, find_routers

SIZES = {
    "vocab_size": 32,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "max_position_embeddings": 32,
}
pytestmark = pytest.mark.slow


def olmoe() -> nn.Module:
    from transformers import OlmoeConfig, OlmoeForCausalLM

    return OlmoeForCausalLM(OlmoeConfig(**SIZES, num_experts=8, num_experts_per_tok=2))


def mixtral() -> nn.Module:
    from transformers import MixtralConfig, MixtralForCausalLM

    return MixtralForCausalLM(MixtralConfig(**SIZES, num_local_experts=8, num_experts_per_tok=2))


def deepseek() -> nn.Module:
    """Sigmoid scores, shared experts, a first layer that is dense."""
    from transformers import DeepseekV3Config, DeepseekV3ForCausalLM

    sizes = {**SIZES, "num_hidden_layers": 4}
    config = DeepseekV3Config(
        **sizes, n_routed_experts=8, num_experts_per_tok=2, n_group=2, topk_group=1, first_k_dense_replace=1,
        moe_intermediate_size=8, q_lora_rank=8, kv_lora_rank=8, qk_rope_head_dim=4, qk_nope_head_dim=4,
        v_head_dim=8,
    )  # fmt: skip
    return DeepseekV3ForCausalLM(config)


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (olmoe, ScoreKind.SOFTMAX_LOGITS),
        (mixtral, ScoreKind.SOFTMAX_LOGITS),
        (deepseek, ScoreKind.SIGMOID_LOGITS),
    ],
)
def test_weights_equal_those_of_hidden_states_and_router(
    make: Callable[[], nn.Module], kind: ScoreKind
) -> None:
    torch.manual_seed(0)
    model = make().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.normal_(std=0.3)
    tokens = torch.randint(32, (3, 5))
    routers = find_routers(model)
    assert len(routers) == 3
    hidden: dict[str, torch.Tensor] = {}
    modules = dict(model.named_modules())
    for router in routers:
        modules[router.name].register_forward_pre_hook(
            lambda _, args, name=router.name: hidden.__setitem__(name, args[0])
        )
    recorder = RouterRecorder(routers)
    with recorder.recording(TokenSelection.of_batch(rows=3, length=5)) as recording, torch.no_grad():
        model(input_ids=tokens)
    for router, means_BMK in zip(routers, recording.real_LBMK, strict=True):
        assert router.experts == 8
        assert router.kind is kind
        logits = hidden[router.name].reshape(3, 5, -1) @ modules[router.name].weight.detach().T
        scores = logits.exp() if kind is ScoreKind.SOFTMAX_LOGITS else logits.sigmoid()
        expected = (scores / scores.sum(-1, keepdim=True)).mean(1)
        assert means_BMK is not None
        torch.testing.assert_close(means_BMK[:, 0], expected, atol=1e-5, rtol=0)


def test_a_dense_model_is_refused_with_what_was_looked_for() -> None:
    with pytest.raises(ValueError, match="no routers found in Sequential"):
        find_routers(nn.Sequential(nn.Linear(2, 2)))
