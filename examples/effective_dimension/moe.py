"""One mixture-of-experts layer with a frozen random router: the model of the paper's Theorem 4.1 (§4.4)."""

from __future__ import annotations

from typing import Literal

import torch

ExpertKind = Literal["constant", "linear"]


class OneLayerMoE(torch.nn.Module):
    """f(x) = Σ_k g_k(x)·E_k(x), g = softmax(W x / temperature); only the experts E_k are trained.

    `constant` experts return one number each, which makes the paper's routing kernel the exact kernel of the
    model; `linear` experts are affine in x. Shapes: N inputs, D their width, K experts, I what an expert sees
    (1, or 1 + D), R students that share the router.
    """

    def __init__(self, router_KD: torch.Tensor, temperature: float, kind: ExpertKind) -> None:
        super().__init__()
        self.register_buffer("router_KD", router_KD)
        self.temperature = temperature
        self.kind = kind
        self.experts_KIR = torch.nn.Parameter(router_KD.new_zeros(len(router_KD), 1, 1))

    def routing(self, x_ND: torch.Tensor) -> torch.Tensor:
        """Routing weights [N, K]."""
        return torch.softmax(x_ND @ self.router_KD.T / self.temperature, dim=-1)

    def forward(self, x_ND: torch.Tensor) -> torch.Tensor:
        """Outputs [N, R]."""
        return self._features(x_ND) @ self.experts_KIR.flatten(0, 1)

    @torch.no_grad()
    def fit(self, x_ND: torch.Tensor, targets_NR: torch.Tensor, ridge: float) -> None:
        """Trains R students, one per column of targets, on 1/N Σ (y − f(x))² + ridge·|experts|².

        The router is frozen, so the problem is convex, and solved exactly.
        """
        features_NF = self._features(x_ND)
        n, width = features_NF.shape
        moment_FF = features_NF.T @ features_NF / n + ridge * torch.eye(width, dtype=features_NF.dtype)
        solved_FR = torch.linalg.solve(moment_FF, features_NF.T @ targets_NR / n)
        self.experts_KIR = torch.nn.Parameter(solved_FR.unflatten(0, (len(self.router_KD), -1)))

    def _features(self, x_ND: torch.Tensor) -> torch.Tensor:
        """What the experts' parameters are multiplied with [N, K·I]."""
        seen_NI = torch.ones_like(x_ND[:, :1])
        if self.kind == "linear":
            # Mean square length one, so that the ridge weighs alike for both kinds.
            seen_NI = torch.cat([seen_NI, x_ND], dim=1) / (1 + x_ND.shape[1]) ** 0.5
        return torch.einsum("nk,ni->nki", self.routing(x_ND), seen_NI).flatten(1)
