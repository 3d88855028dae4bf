"""Logits computed again while ZeRO-3 has the routers' weights in parts."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from pathwatch.integrations.capture import RouterRecorder, TokenSelection, find_routers

pytestmark = pytest.mark.slow
B, S = 2, 6


def mixtral() -> nn.Module:
    """Noise in the block; the router multiplies by its own weight."""
    from transformers import MixtralConfig, MixtralForCausalLM

    config = MixtralConfig(
        vocab_size=32, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, num_local_experts=8, num_experts_per_tok=2, router_jitter_noise=0.4,
    )  # fmt: skip
    return MixtralForCausalLM(config)


def dbrx() -> nn.Module:
    """Noise in the router; a child of it multiplies."""
    from transformers import DbrxConfig, DbrxForCausalLM

    config = DbrxConfig(
        vocab_size=32, d_model=16, n_heads=2, n_layers=2, max_seq_len=32,
        attn_config={"kv_n_heads": 2, "rope_theta": 1e4, "clip_qkv": 8.0},
        ffn_config={
            "ffn_hidden_size": 24, "moe_num_experts": 8, "moe_top_k": 2, "hidden_size": 16,
            "moe_jitter_eps": 0.4,
        },
    )  # fmt: skip
    return DbrxForCausalLM(config)


@pytest.mark.parametrize(
    ("make", "block", "weight"),
    [
        (mixtral, "model.layers.{}.mlp", "gate.weight"),
        (dbrx, "transformer.blocks.{}.ffn", "router.layer.weight"),
    ],
)
def test_noise_is_left_out_of_partitioned_routers(
    deepspeed_world: None, make: Any, block: str, weight: str
) -> None:
    import deepspeed

    torch.manual_seed(0)
    model = make()
    whole = [model.get_parameter(f"{block.format(layer)}.{weight}").detach().clone() for layer in range(2)]
    config = {
        "train_micro_batch_size_per_gpu": B,
        "steps_per_print": 1 << 30,
        "zero_optimization": {"stage": 3, "stage3_param_persistence_threshold": 0},
    }
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    engine = deepspeed.initialize(model=model, optimizer=optimizer, config=config)[0]
    parts = [engine.module.get_parameter(f"{block.format(layer)}.{weight}") for layer in range(2)]
    assert [part.numel() for part in parts] == [0, 0]
    routers = find_routers(engine.module)
    assert [router.experts for router in routers] == [8, 8]
    entering: list[torch.Tensor] = []
    for layer in range(2):
        engine.module.get_submodule(block.format(layer)).register_forward_pre_hook(
            lambda _, args: entering.append(args[0].detach().clone())
        )
    tokens = torch.randint(3, 32, (B, S), generator=torch.Generator().manual_seed(1))
    recorder = RouterRecorder(routers)
    # Without gradients: with them, ZeRO-3's hooks forbid Mixtral its noise in place.
    with recorder.recording(TokenSelection.of_batch(rows=B, length=S)) as recording, torch.no_grad():
        engine(input_ids=tokens, use_cache=False)
    assert recording.error is None
    assert [part.numel() for part in parts] == [0, 0]
    for x, matrix, means in zip(entering, whole, recording.real_LBMK, strict=True):
        scores = (x.reshape(B, S, -1) @ matrix.T).exp()
        assert means is not None
        torch.testing.assert_close(
            means[:, 0], (scores / scores.sum(-1, keepdim=True)).mean(1), atol=1e-5, rtol=0
        )
