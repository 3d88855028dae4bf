"""A small mixture-of-experts transformer built from DeepSpeed's own MoE layer."""

from __future__ import annotations

import torch
from deepspeed.moe.layer import MoE
from torch import Tensor, nn


class Attention(nn.Module):
    """Multi-head self-attention, every token to every other."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)

    def forward(self, x_BSD: Tensor) -> Tensor:
        B, S, D = x_BSD.shape
        q, k, v = self.qkv(x_BSD).view(B, S, 3, self.heads, D // self.heads).permute(2, 0, 3, 1, 4)
        mixed_BHSd = nn.functional.scaled_dot_product_attention(q, k, v)
        return self.out(mixed_BHSd.transpose(1, 2).reshape(B, S, D))


class Block(nn.Module):
    """Attention, then routed experts (top 2, no token dropped, no noise)."""

    def __init__(self, width: int, heads: int, experts: int, hidden: int) -> None:
        super().__init__()
        self.attention_norm = nn.RMSNorm(width)
        self.attention = Attention(width, heads)
        self.moe_norm = nn.RMSNorm(width)
        expert = nn.Sequential(
            nn.Linear(width, hidden, bias=False), nn.ReLU(), nn.Linear(hidden, width, bias=False)
        )
        self.moe = MoE(
            width, expert, num_experts=experts, k=2, drop_tokens=False, top2_2nd_expert_sampling=False
        )

    def forward(self, x_BSD: Tensor) -> tuple[Tensor, Tensor]:
        x_BSD = x_BSD + self.attention(self.attention_norm(x_BSD))
        routed_BSD, balance_loss, _ = self.moe(self.moe_norm(x_BSD))
        return x_BSD + routed_BSD, balance_loss


class ArithmeticModel(nn.Module):
    """Tokens [B, 3] (a, b, operation) → logits [B, 3, p] of the answer, and the load-balancing loss."""

    def __init__(
        self,
        *,
        p: int,
        operations: int,
        layers: int = 3,
        width: int = 96,
        heads: int = 2,
        experts: int = 8,
        hidden: int = 128,
        init_std: float = 0.05,
    ) -> None:
        super().__init__()
        self.embedding = nn.Embedding(p + operations, width)
        self.position = nn.Parameter(torch.zeros(3, width))
        self.blocks = nn.ModuleList(Block(width, heads, experts, hidden) for _ in range(layers))
        self.norm = nn.RMSNorm(width)
        self.head = nn.Linear(width, p, bias=False)
        for parameter in self.parameters():
            if parameter.ndim > 1:
                nn.init.normal_(parameter, std=init_std)

    def forward(self, tokens_BS: Tensor) -> tuple[Tensor, Tensor]:
        x_BSD = self.embedding(tokens_BS) + self.position
        balance = x_BSD.new_zeros(())
        for block in self.blocks:
            x_BSD, balance_loss = block(x_BSD)
            balance = balance + balance_loss
        return self.head(self.norm(x_BSD)), balance
