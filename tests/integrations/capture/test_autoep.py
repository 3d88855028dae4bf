"""Models whose MoE layers DeepSpeed's AutoEP has replaced, read after `deepspeed.initialize`."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from pathwatch.integrations.capture import (
    RouterRecorder,
    ScoreKind,
    TokenSelection,
    find_routers,
    reduce_reading,
)

pytestmark = pytest.mark.slow
B, S = 2, 6
SIZES = {
    "vocab_size": 32, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 3,
    "num_attention_heads": 2, "num_key_value_heads": 2, "max_position_embeddings": 32,
}  # fmt: skip


def mixtral() -> nn.Module:
    """One expert a token: its weight is 1, which tells nothing of the scores."""
    from transformers import MixtralConfig, MixtralForCausalLM

    return MixtralForCausalLM(MixtralConfig(**SIZES, num_local_experts=8, num_experts_per_tok=1))


def qwen() -> nn.Module:
    from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM

    config = Qwen3MoeConfig(
        **SIZES,
        head_dim=8,
        num_experts=8,
        num_experts_per_tok=2,
        moe_intermediate_size=8,
        mlp_only_layers=[0],
    )
    return Qwen3MoeForCausalLM(config)


def deepseek() -> nn.Module:
    """Sigmoids, groups of experts, a bias that only chooses, scaled weights, a dense first layer."""
    from transformers import DeepseekV3Config, DeepseekV3ForCausalLM

    config = DeepseekV3Config(
        **SIZES, head_dim=4, n_routed_experts=8, num_experts_per_tok=2, n_group=2, topk_group=1,
        first_k_dense_replace=1, moe_intermediate_size=8, q_lora_rank=8, kv_lora_rank=8, qk_rope_head_dim=4,
        qk_nope_head_dim=4, v_head_dim=8, routed_scaling_factor=2.5,
    )  # fmt: skip
    return DeepseekV3ForCausalLM(config)


def initialized(model: nn.Module, preset: str, stage: int) -> Any:
    import deepspeed

    torch.manual_seed(0)
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if tensor.ndim == 2 or "bias" in name:
            nn.init.normal_(tensor, std=0.3)
    config = {
        "train_micro_batch_size_per_gpu": B,
        "steps_per_print": 1 << 30,
        "zero_optimization": {"stage": stage, "stage3_param_persistence_threshold": 0},
        "expert_parallel": {
            "enabled": True, "autoep_size": 1, "preset_model": preset, "use_grouped_mm": False
        },
    }  # fmt: skip
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    return deepspeed.initialize(model=model, optimizer=optimizer, config=config)[0]


@pytest.mark.parametrize(
    ("make", "preset", "stage", "layers", "kind"),
    [
        (mixtral, "mixtral", 0, (0, 1, 2), ScoreKind.SOFTMAX_LOGITS),
        (qwen, "qwen3_moe", 3, (1, 2), ScoreKind.SOFTMAX_LOGITS),
        (deepseek, "deepseek_v3", 0, (1, 2), ScoreKind.SIGMOID_LOGITS),
    ],
)
def test_every_replaced_layer_is_read(
    deepspeed_world: None, make: Any, preset: str, stage: int, layers: tuple[int, ...], kind: ScoreKind
) -> None:
    model = make()
    before = {layer: model.get_submodule(f"model.layers.{layer}.mlp.gate") for layer in layers}
    weights = {}
    engine = initialized(model, preset, stage)
    entering: list[torch.Tensor] = []
    for layer in layers:
        block = engine.module.get_submodule(f"model.layers.{layer}.mlp")
        assert type(block).__name__ == "AutoEPMoELayer"
        assert before[layer] is not block.router
        block.register_forward_pre_hook(lambda _, args: entering.append(args[0].detach().clone()))
        block.router.gate.register_forward_hook(
            lambda module, *_, layer=layer: weights.__setitem__(layer, module.weight.detach().clone()),
            prepend=True,
        )
    routers = find_routers(engine.module)
    assert [router.name for router in routers] == [f"model.layers.{layer}.mlp.router" for layer in layers]
    assert [router.experts for router in routers] == [8] * len(layers)
    recorder = RouterRecorder(routers)
    tokens = torch.randint(3, 32, (B, S), generator=torch.Generator().manual_seed(1))
    with recorder.recording(TokenSelection.of_batch(rows=B, length=S)) as recording:
        engine.backward(engine(input_ids=tokens, labels=tokens).loss)
    engine.step()
    assert recording.error is None
    for layer, x, means in zip(layers, entering, recording.real_LBMK, strict=True):
        logits = x.reshape(B, S, -1) @ weights[layer].T
        scores = logits.exp() if kind is ScoreKind.SOFTMAX_LOGITS else 1 / (1 + (-logits).exp())
        assert means is not None
        expected = (scores / scores.sum(-1, keepdim=True)).mean(1)
        torch.testing.assert_close(means[:, 0], expected, atol=1e-5, rtol=0)


def test_routers_found_before_the_replacement_are_noticed_to_be_silent(deepspeed_world: None) -> None:
    """So `attach` comes after `deepspeed.initialize`."""
    model = mixtral()
    recorder = RouterRecorder(find_routers(model))
    engine = initialized(model, "mixtral", 0)
    with (
        recorder.recording(TokenSelection.of_batch(rows=B, length=S)) as recording,
        torch.no_grad(),
    ):
        engine(input_ids=torch.full((B, S), 3))
    with pytest.raises(ValueError, match="routed layers 0, 1, 2 gave nothing"):
        reduce_reading(recording, None)
