"""Every transformers family that docs/routers.md names, against a formula from its paper or model file.

The oracle takes the hidden states as they enter the MoE block, by a hook of its own, and the router's weight,
and knows which families take a softmax and which divide sigmoids by their sum.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from pathwatch.integrations.capture import Router, RouterRecorder, TokenSelection, find_routers

pytestmark = pytest.mark.slow
DOCS = Path(__file__).parents[3] / "docs" / "routers.md"
B, S, K = 2, 6, 8
SIZES = {
    "vocab_size": 32, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 4,
    "num_attention_heads": 2, "num_key_value_heads": 2, "max_position_embeddings": 32, "head_dim": 8,
    "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
WORDS = {key: SIZES[key] for key in ("vocab_size", "pad_token_id", "bos_token_id", "eos_token_id")}
TOP_2 = {"num_experts_per_tok": 2, "moe_intermediate_size": 8}
EXPERTS = {"num_experts": K, **TOP_2}
LOCAL = {"num_local_experts": K, "num_experts_per_tok": 2}
ROUTED = {"n_routed_experts": K, "n_shared_experts": 1, **TOP_2}
GROUPED = {**ROUTED, "n_group": 2, "topk_group": 1, "first_k_dense_replace": 1}
LATENT = {
    "q_lora_rank": 8, "kv_lora_rank": 8, "qk_rope_head_dim": 4, "qk_nope_head_dim": 4, "v_head_dim": 8
}  # fmt: skip
LINEAR = {
    "linear_num_key_heads": 2, "linear_num_value_heads": 2,
    "linear_key_head_dim": 8, "linear_value_head_dim": 8,
}  # fmt: skip
SSM = {"mamba_d_state": 8, "mamba_expand": 2}

Formula = Callable[[nn.Module, torch.Tensor], torch.Tensor]


def logits_of(path: str, bias: str | None = None) -> Formula:
    """x·Wᵀ (+ b) by parameters of the block."""

    def logits(block: nn.Module, x: torch.Tensor) -> torch.Tensor:
        offset = 0 if bias is None else block.get_parameter(bias).double()
        return x.double() @ block.get_parameter(path).double().T + offset

    return logits


def softmax(logits: Formula) -> Formula:
    return lambda block, x: (z := logits(block, x).exp()) / z.sum(-1, keepdim=True)


def sigmoid(logits: Formula) -> Formula:
    return lambda block, x: (z := 1 / (1 + (-logits(block, x)).exp())) / z.sum(-1, keepdim=True)


def capped(logits: Formula, cap: float) -> Formula:
    return lambda block, x: (logits(block, x) / cap).tanh() * cap


def gemma_logits(router: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """Root-mean-square norm without scale, then a learned scale per dimension and D^-1/2."""
    x = x.double()
    normed = x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt()
    return (normed * router.scale.double() * 16**-0.5) @ router.proj.weight.double().T


GATE, ROUTER = logits_of("gate.weight"), logits_of("router.weight")


@dataclass(frozen=True)
class Family:
    """One family: how to make a tiny model, where its MoE blocks are, and what they compute."""

    config: Mapping[str, Any]
    formula: Formula
    block: str = "model.layers.{}.mlp"
    layers: tuple[int, ...] = (0, 1, 2, 3)
    sizes: Mapping[str, Any] = field(default_factory=lambda: SIZES)
    config_class: str = "{}Config"
    model_class: str = "{}ForCausalLM"
    side: str | None = None
    """Of encoder and decoder."""
    noise: Mapping[str, Any] = field(default_factory=dict)
    """Settings with which training adds noise."""


DENSE_FIRST = (1, 2, 3)
FAMILIES = {
    "Olmoe": Family(EXPERTS, softmax(GATE)),
    "FlexOlmo": Family(EXPERTS, softmax(GATE)),
    "Mixtral": Family(LOCAL, softmax(GATE), noise={"router_jitter_noise": 0.4}),
    "MiniMax": Family(
        {**LOCAL, "layer_types": ["full_attention", "linear_attention"] * 2},
        softmax(GATE), noise={"router_jitter_noise": 0.4},
    ),
    "MiniMaxM2": Family(LOCAL, sigmoid(GATE), noise={"router_jitter_noise": 0.4}),
    "Qwen2Moe": Family(
        {**EXPERTS, "shared_expert_intermediate_size": 8, "decoder_sparse_step": 2},
        softmax(GATE), layers=(1, 3),
    ),
    "Qwen3Moe": Family({**EXPERTS, "mlp_only_layers": [0]}, softmax(GATE), layers=DENSE_FIRST),
    "Qwen3Next": Family({**EXPERTS, **LINEAR, "shared_expert_intermediate_size": 8}, softmax(GATE)),
    "DeepseekV2": Family(
        {**GROUPED, **LATENT, "topk_method": "group_limited_greedy", "head_dim": 4},
        softmax(GATE), layers=DENSE_FIRST,
    ),
    "DeepseekV3": Family({**GROUPED, **LATENT, "head_dim": 4}, sigmoid(GATE), layers=DENSE_FIRST),
    "GptOss": Family(LOCAL, softmax(logits_of("router.weight", "router.bias"))),
    "GraniteMoe": Family(LOCAL, softmax(ROUTER), block="model.layers.{}.block_sparse_moe"),
    "GraniteMoeShared": Family(
        {**LOCAL, "shared_intermediate_size": 8}, softmax(ROUTER), block="model.layers.{}.block_sparse_moe"
    ),
    "GraniteMoeHybrid": Family(
        {
            **LOCAL, **SSM, "shared_intermediate_size": 8, "layer_types": ["mamba", "attention"] * 2,
            "mamba_n_heads": 4, "mamba_d_head": 8, "mamba_n_groups": 1,
        },
        softmax(ROUTER), block="model.layers.{}.block_sparse_moe",
    ),
    "Jamba": Family(
        {
            **EXPERTS, **SSM, "expert_layer_period": 2, "expert_layer_offset": 1, "attn_layer_period": 2,
            "attn_layer_offset": 1, "mamba_dt_rank": 4, "use_mamba_kernels": False,
        },
        softmax(ROUTER), block="model.layers.{}.feed_forward", layers=(1, 3),
    ),
    "Phimoe": Family(LOCAL, softmax(ROUTER), noise={"input_jitter_noise": 0.4}),
    "Glm4Moe": Family(GROUPED, sigmoid(GATE), layers=DENSE_FIRST),
    "Glm4MoeLite": Family({**GROUPED, **LATENT}, sigmoid(GATE), layers=DENSE_FIRST),
    "Dots1": Family(GROUPED, sigmoid(GATE), layers=DENSE_FIRST),
    "Ernie4_5_Moe": Family(
        {
            "moe_num_experts": K, "moe_k": 2, "moe_intermediate_size": 8, "moe_layer_start_index": 1,
            "moe_num_shared_experts": 1,
        },
        softmax(GATE), layers=DENSE_FIRST,
    ),
    "HunYuanMoEV1": Family({"num_experts": K, "moe_topk": 2}, softmax(logits_of("gate.wg.weight"))),
    "Llama4": Family(
        {**LOCAL, "intermediate_size_mlp": 24, "interleave_moe_layer_step": 2},
        sigmoid(ROUTER), block="model.layers.{}.feed_forward", layers=(1, 3), config_class="Llama4TextConfig",
    ),
    "Dbrx": Family(
        {
            "d_model": 16, "n_heads": 2, "n_layers": 4, "max_seq_len": 32,
            "ffn_config": {"ffn_hidden_size": 24, "moe_num_experts": K, "moe_top_k": 2, "hidden_size": 16},
            "attn_config": {"kv_n_heads": 2, "rope_theta": 1e4, "clip_qkv": 8.0},
        },
        softmax(logits_of("router.layer.weight")), block="transformer.blocks.{}.ffn", sizes=WORDS,
        noise={"ffn_config": {
            "ffn_hidden_size": 24, "moe_num_experts": K, "moe_top_k": 2, "hidden_size": 16,
            "moe_jitter_eps": 0.4,
        }},
    ),
    "JetMoe": Family({**LOCAL, "kv_channels": 8}, softmax(logits_of("router.layer.weight"))),
    "LongcatFlash": Family(
        {
            **LATENT, "head_dim": 4, "n_routed_experts": 6, "zero_expert_num": 2, "moe_topk": 2,
            "num_layers": 2, "expert_ffn_hidden_size": 8, "ffn_hidden_size": 24,
        },
        softmax(logits_of("router.classifier.weight")), layers=(0, 1),
    ),
    "BailingHybrid": Family({**GROUPED, **LATENT, "num_experts": K}, sigmoid(GATE), layers=DENSE_FIRST),
    "NemotronH": Family(
        {
            **ROUTED, "n_group": 2, "topk_group": 1, "mamba_num_heads": 4, "mamba_head_dim": 8, "n_groups": 1,
            "ssm_state_size": 8, "layers_block_type": ["moe", "attention", "moe", "mamba"],
        },
        sigmoid(GATE), block="model.layers.{}.mixer", layers=(0, 2),
    ),
    "Afmoe": Family(
        {**EXPERTS, "num_dense_layers": 1}, sigmoid(logits_of("router.gate.weight")), layers=DENSE_FIRST
    ),
    "Lfm2Moe": Family(
        {**EXPERTS, "num_dense_layers": 1, "layer_types": ["conv", "full_attention"] * 2},
        sigmoid(GATE), block="model.layers.{}.feed_forward", layers=DENSE_FIRST,
    ),
    "Cohere2Moe": Family({**EXPERTS, "expert_selection_fn": "sigmoid"}, sigmoid(GATE)),
    "ExaoneMoe": Family({**EXPERTS, "n_group": 2, "topk_group": 1}, sigmoid(GATE), layers=DENSE_FIRST),
    "SolarOpen": Family(GROUPED, sigmoid(GATE)),
    "Mistral4": Family({**GROUPED, **LATENT}, softmax(GATE), layers=DENSE_FIRST),
    "Laguna": Family(
        {**EXPERTS, "moe_router_logit_softcapping": 0.5}, sigmoid(capped(GATE, 0.5)), layers=DENSE_FIRST
    ),
    "Flint": Family(EXPERTS, sigmoid(GATE), layers=(2, 3)),
    "Mellum": Family(EXPERTS, softmax(GATE)),
    "Kolibri1": Family(EXPERTS, sigmoid(GATE)),
    "HYV3": Family(EXPERTS, sigmoid(GATE), layers=DENSE_FIRST),
    "AXK1": Family({**GROUPED, **LATENT, "head_dim": 4}, sigmoid(GATE), layers=DENSE_FIRST),
    "AriaText": Family(
        {"moe_num_experts": K, "moe_topk": 2, "moe_num_shared_experts": 1}, softmax(ROUTER)
    ),
    "Gemma4": Family(
        {**EXPERTS, "top_k_experts": 2, "enable_moe_block": True, "vocab_size_per_layer_input": 32},
        softmax(gemma_logits), block="model.layers.{}.router", config_class="Gemma4TextConfig",
    ),
    "SwitchTransformers": Family(
        {
            "d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 2, "num_decoder_layers": 2, "num_heads": 2,
            "num_sparse_encoder_layers": 1, "num_sparse_decoder_layers": 1, "num_experts": K,
            "decoder_start_token_id": 0,
        },
        softmax(logits_of("router.classifier.weight")), block="decoder.block.{}.layer.2.mlp", layers=(1,),
        sizes=WORDS, model_class="{}ForConditionalGeneration", side="decoder",
        noise={"router_jitter_noise": 0.4},
    ),
    "NllbMoe": Family(
        {
            "d_model": 16, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 2,
            "decoder_attention_heads": 2, "encoder_ffn_dim": 24, "decoder_ffn_dim": 24,
            "encoder_sparse_step": 1, "decoder_sparse_step": 2, "num_experts": K, "decoder_start_token_id": 0,
        },
        softmax(logits_of("router.classifier.weight")), block="model.decoder.layers.{}.ffn", layers=(1,),
        sizes=WORDS, model_class="{}ForConditionalGeneration", side="model.decoder",
        noise={"second_expert_policy": "sampling"},
    ),
}  # fmt: skip


def build(name: str, **settings: Any) -> nn.Module:
    """A model with wide random weights, also in the biases that only change which experts are chosen."""
    import transformers

    family = FAMILIES[name]
    config_class = getattr(transformers, family.config_class.format(name))
    config = config_class(**{**family.sizes, **family.config, **settings})
    torch.manual_seed(0)
    model: nn.Module = getattr(transformers, family.model_class.format(name))(config)
    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            if parameter.ndim == 2 or parameter_name.endswith("bias"):
                parameter.normal_(std=0.3)
        for buffer_name, buffer in model.named_buffers():
            if "bias" in buffer_name:
                buffer.normal_(std=0.3)
    return model


def check(name: str, model: nn.Module) -> None:
    """One pass: means of every routed layer are those of the formula."""
    family = FAMILIES[name]
    routers = find_routers(model, hook_for(model, family.side))
    blocks = [model.get_submodule(family.block.format(layer)) for layer in family.layers]
    assert len(routers) == len(blocks)
    entering: list[torch.Tensor] = []
    handles = [block.register_forward_pre_hook(note(entering, block)) for block in blocks]
    tokens = torch.randint(3, 32, (B, S), generator=torch.Generator().manual_seed(1))
    inputs = {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}
    if family.side is not None:
        inputs = {"input_ids": tokens[:, :4], "decoder_input_ids": tokens}
    recorder = RouterRecorder(routers)
    with recorder.recording(TokenSelection.of_batch(rows=B, length=S)) as recording, torch.no_grad():
        model(**inputs, use_cache=False)
    for handle in handles:
        handle.remove()
    assert recording.error is None
    assert len(entering) == len(blocks)
    for router, block, x, means in zip(routers, blocks, entering, recording.real_LBMK, strict=True):
        assert router.experts == K
        assert means is not None
        expected = family.formula(block, x.reshape(B, S, -1)).mean(1)
        torch.testing.assert_close(means[:, 0].double(), expected.detach(), atol=2e-5, rtol=0)


def note(entering: list[torch.Tensor], block: nn.Module) -> Callable[[nn.Module, tuple[Any, ...]], None]:
    return lambda _, args: entering.append(args[0].clone())


def hook_for(model: nn.Module, side: str | None) -> Callable[[str, nn.Module], Router | None] | None:
    """As docs/routers.md says how to choose a side."""
    if side is None:
        return None
    chosen = {router.module: router for router in find_routers(model.get_submodule(side))}
    return lambda name, module: chosen.get(module)


@pytest.mark.parametrize("name", FAMILIES)
def test_weights_equal_those_of_hidden_states_and_router(name: str) -> None:
    model = build(name)
    check(name, model.eval())
    check(name, model.train())


@pytest.mark.parametrize("name", [name for name, family in FAMILIES.items() if family.noise])
def test_noise_is_left_out_in_training(name: str) -> None:
    model = build(name, **FAMILIES[name].noise)
    check(name, model.train())
    check(name, model.eval())


@pytest.mark.parametrize(("setting", "kind"), [("softmax", "SOFTMAX"), ("sigmoid", "SIGMOID")])
def test_a_setting_that_changes_the_score_is_followed(setting: str, kind: str) -> None:
    routers = find_routers(build("Cohere2Moe", expert_selection_fn=setting))
    assert {router.kind.name for router in routers} == {f"{kind}_LOGITS"}


@pytest.mark.parametrize("name", [name for name, family in FAMILIES.items() if family.side])
def test_an_encoder_and_a_decoder_are_not_mixed(name: str) -> None:
    with pytest.raises(ValueError, match=r"encoder and decoder both have routers.*choose one with router="):
        find_routers(build(name))


@pytest.mark.parametrize(
    ("name", "settings", "problem"),
    [
        ("DeepseekV4", ROUTED, r"mlp\.gate .*cannot be run on hidden states alone"),
        ("Doge", {"is_moe": True, "num_experts": 16, "num_experts_per_tok": 2}, "not a row per token"),
        ("Zaya", {"num_experts": K, "num_experts_per_tok": 1}, "neither a softmax nor sigmoids"),
    ],
)
def test_families_that_cannot_be_read_are_refused(name: str, settings: dict[str, Any], problem: str) -> None:
    import transformers

    config = getattr(transformers, f"{name}Config")(**SIZES, **settings)
    model = getattr(transformers, f"{name}ForCausalLM")(config)
    with pytest.raises(ValueError, match=rf"cannot be read with certainty: .*{problem}|{problem}"):
        find_routers(model)


def test_the_page_names_the_tested_families_and_versions() -> None:
    from importlib.metadata import version

    rows = re.findall(r"^\| `(\w+)` \|", DOCS.read_text(), re.MULTILINE)
    assert rows == sorted(FAMILIES, key=str.lower)
    assert f"transformers {version('transformers')}" in DOCS.read_text()
