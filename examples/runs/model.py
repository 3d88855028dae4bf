"""A small mixture-of-experts transformer whose experts are computed densely and masked.

At this size one matrix product over all experts is faster on a CPU than dispatching tokens to them.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import relu, scaled_dot_product_attention


class DenseMoE(nn.Module):
    """Softmax router, `top` of K ReLU experts, weights not renormalized."""

    def __init__(self, width: int, experts: int, hidden: int, top: int) -> None:
        super().__init__()
        self.router = nn.Linear(width, experts, bias=False)
        self.up = nn.Linear(width, experts * hidden, bias=False)
        self.down = nn.Linear(experts * hidden, width, bias=False)
        self.experts, self.hidden, self.top = experts, hidden, top
        self.weights_BSK = torch.empty(0)
        """Routing weights of the last forward pass."""
        self.balance = torch.zeros(())
        """Load-balancing loss of the last forward pass: 1 when every expert gets as many tokens as weight."""

    def forward(self, x_BSD: Tensor) -> Tensor:
        weights_BSK = self.router(x_BSD).softmax(-1)
        best, chosen = weights_BSK.topk(self.top, -1)
        masked_BSK = torch.zeros_like(weights_BSK).scatter(-1, chosen, best)
        hidden_BSKH = relu(self.up(x_BSD)).unflatten(-1, (self.experts, self.hidden)) * masked_BSK[..., None]
        share_K = (masked_BSK > 0).float().mean((0, 1))
        self.balance = self.experts * (share_K * weights_BSK.mean((0, 1))).sum() / self.top
        self.weights_BSK = weights_BSK
        return self.down(hidden_BSKH.flatten(-2))


class Block(nn.Module):
    """Attention, then routed experts, each on the normalized residual."""

    def __init__(self, width: int, heads: int, experts: int, hidden: int, top: int, *, causal: bool) -> None:
        super().__init__()
        self.attention_norm = nn.RMSNorm(width)
        self.moe_norm = nn.RMSNorm(width)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.moe = DenseMoE(width, experts, hidden, top)
        self.heads, self.causal = heads, causal

    def forward(self, x_BSD: Tensor) -> Tensor:
        B, S, D = x_BSD.shape
        split = self.qkv(self.attention_norm(x_BSD)).view(B, S, 3, self.heads, D // self.heads)
        q, k, v = split.permute(2, 0, 3, 1, 4)
        mixed_BHSd = scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        x_BSD = x_BSD + self.out(mixed_BHSd.transpose(1, 2).reshape(B, S, D))
        return x_BSD + self.moe(self.moe_norm(x_BSD))


class MoETransformer(nn.Module):
    """Tokens [B, S] → logits: [B, classes] of the last position, or [B, S, classes] of all.

    `init_scale` multiplies every initial matrix: smaller = memorizes and generalizes differently.
    """

    def __init__(
        self,
        vocabulary: int,
        classes: int,
        length: int,
        *,
        layers: int,
        width: int,
        heads: int,
        experts: int,
        hidden: int,
        top: int,
        init_scale: float = 1.0,
        causal: bool = True,
        last_only: bool = True,
    ) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        self.position = nn.Parameter(torch.zeros(length, width))
        self.blocks = nn.ModuleList(
            Block(width, heads, experts, hidden, top, causal=causal) for _ in range(layers)
        )
        self.norm = nn.RMSNorm(width)
        self.head = nn.Linear(width, classes, bias=False)
        self.last_only = last_only
        nn.init.normal_(self.embedding.weight, std=width**-0.5)
        nn.init.normal_(self.position, std=width**-0.5)
        with torch.no_grad():
            for parameter in self.parameters():
                if parameter.dim() > 1:
                    parameter *= init_scale

    def forward(self, tokens_BS: Tensor) -> Tensor:
        x_BSD = self.embedding(tokens_BS) + self.position[: tokens_BS.shape[1]]
        for block in self.blocks:
            x_BSD = block(x_BSD)
        return self.head(self.norm(x_BSD[:, -1] if self.last_only else x_BSD))

    @property
    def weights_BSLK(self) -> Tensor:
        """Routing weights of the last forward pass."""
        return torch.stack([block.moe.weights_BSK for block in self.blocks], dim=2)

    @property
    def balance(self) -> Tensor:
        """Load-balancing loss of the last forward pass, summed over layers."""
        return sum((block.moe.balance for block in self.blocks), torch.zeros(()))

    @property
    def routers_LKD(self) -> Tensor:
        """Router weights, whose rows are the expert embeddings."""
        return torch.stack([block.moe.router.weight.detach() for block in self.blocks])
