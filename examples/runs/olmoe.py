"""A tiny OLMoE of the `transformers` library, with the interface of `model.MoETransformer`."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import OlmoeConfig, OlmoeForCausalLM


class Olmoe(nn.Module):
    """Tokens [B, S] → logits [B, vocabulary] of the last position."""

    def __init__(
        self, vocabulary: int, length: int, *, layers: int, width: int, experts: int, hidden: int, top: int
    ) -> None:
        super().__init__()
        self.model = OlmoeForCausalLM(
            OlmoeConfig(
                vocab_size=vocabulary,
                max_position_embeddings=length,
                num_hidden_layers=layers,
                hidden_size=width,
                num_attention_heads=2,
                num_experts=experts,
                intermediate_size=hidden,
                num_experts_per_tok=top,
                initializer_range=0.05,
                pad_token_id=None,
                eos_token_id=None,
                output_router_logits=True,
                use_cache=False,
            )
        )
        self.weights_BSLK = torch.empty(0)
        """Routing weights of the last forward pass."""
        self.balance = torch.zeros(())
        """Load-balancing loss of the last forward pass, as OLMoE defines it."""

    def forward(self, tokens_BS: Tensor) -> Tensor:
        out = self.model(tokens_BS, logits_to_keep=1)
        layers = [logits.view(*tokens_BS.shape, -1) for logits in out.router_logits]
        self.weights_BSLK = torch.stack(layers, dim=2).softmax(-1)
        self.balance = out.aux_loss
        return out.logits[:, -1]

    @property
    def routers_LKD(self) -> Tensor:
        """Router weights, whose rows are the expert embeddings."""
        return torch.stack([layer.mlp.gate.weight.detach() for layer in self.model.model.layers])
