"""The models that are trained: small, but the real ones of their libraries."""

from __future__ import annotations

import torch
from deepspeed.moe.layer import MoE
from torch import Tensor, nn
from transformers import OlmoeConfig, OlmoeForCausalLM

VOCABULARY = 512
LENGTH = 64
ROWS = 8
LAYERS = 4
EXPERTS = 16
WIDTH = 64
HIDDEN = 64


def olmoe(
    *, layers: int = LAYERS, experts: int = EXPERTS, width: int = WIDTH, hidden: int = HIDDEN
) -> nn.Module:
    """A small `OlmoeForCausalLM`: transformers' routers."""
    torch.manual_seed(0)
    model: nn.Module = OlmoeForCausalLM(
        OlmoeConfig(
            vocab_size=VOCABULARY,
            max_position_embeddings=LENGTH,
            num_hidden_layers=layers,
            hidden_size=width,
            num_attention_heads=2,
            num_experts=experts,
            intermediate_size=hidden,
            num_experts_per_tok=2,
            # Counted or not, the balance loss does not change what is learned: all variants train alike.
            router_aux_loss_coef=0.0,
            pad_token_id=None,
            eos_token_id=None,
            use_cache=False,
        )
    )
    return model


class _Block(nn.Module):  # type: ignore[misc] # PyTorch is not typed here
    """Causal attention, then DeepSpeed's routed experts."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(WIDTH, 2, bias=False, batch_first=True)
        self.norm = nn.RMSNorm(WIDTH)
        expert = nn.Sequential(nn.Linear(WIDTH, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, WIDTH))
        self.moe = MoE(
            WIDTH, expert, num_experts=EXPERTS, k=2, drop_tokens=False, top2_2nd_expert_sampling=False
        )

    def forward(self, x_BSD: Tensor, hidden_SS: Tensor) -> Tensor:
        attended_BSD, _ = self.attention(
            x_BSD, x_BSD, x_BSD, attn_mask=hidden_SS, is_causal=True, need_weights=False
        )
        x_BSD = x_BSD + attended_BSD
        routed_BSD, _, _ = self.moe(self.norm(x_BSD))
        mixed_BSD: Tensor = x_BSD + routed_BSD
        return mixed_BSD


class GatedModel(nn.Module):  # type: ignore[misc] # PyTorch is not typed here
    """Tokens [B, S] → logits [B, S, V], through DeepSpeed's `MoE` layers: its `TopKGate`."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, WIDTH)
        self.blocks = nn.ModuleList(_Block() for _ in range(LAYERS))
        self.head = nn.Linear(WIDTH, VOCABULARY, bias=False)

    def forward(self, input_ids: Tensor) -> Tensor:
        x_BSD = self.embedding(input_ids)
        S = input_ids.shape[1]
        hidden_SS = torch.ones(S, S, dtype=torch.bool, device=input_ids.device).triu(1)
        for block in self.blocks:
            x_BSD = block(x_BSD, hidden_SS)
        logits_BSV: Tensor = self.head(x_BSD)
        return logits_BSV


def gated() -> nn.Module:
    """A small transformer of DeepSpeed's `MoE` layers."""
    torch.manual_seed(0)
    return GatedModel()
