"""A routed layer, and how its routing weights are read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from pathwatch.integrations.capture.scores import ScoreKind, routing_weights


class ScoreReader(Protocol):
    """Takes a router's scores, T rows of K experts, out of one of its forward calls; None = not there."""

    def __call__(self, hidden: Tensor | None, output: object) -> Tensor | None: ...


@dataclass(slots=True, eq=False, kw_only=True)
class Router:
    """One routed MoE layer: the module to hook and how to read it."""

    name: str
    """Qualified name of the router."""
    module: nn.Module
    """Its forward calls are read: once per token, with all experts' scores or what they are computed from."""
    weight: nn.Parameter
    """[K, D]: row k is the embedding of expert k; K is taken from here, not from the indices seen."""
    read: ScoreReader
    """Scores [T, K] of a call from its first tensor argument and its output: before any bias that only
    changes which experts are chosen, and before noise."""
    kind: ScoreKind
    """What the scores are."""
    clean_at: nn.Module | None = None
    """Where noise is added to the hidden states: `read` is given what enters this module, copied before."""

    @property
    def experts(self) -> int:
        """Number of experts K, also while the weight is sharded."""
        return int(whole_shape(self.weight)[0])

    def weights(self, hidden: Tensor | None, output: object) -> Tensor:
        """Routing weights [T, K] of one forward call, float32.

        Raises:
            ValueError: the call's output holds no scores of K experts.
        """
        scores = self.read(hidden, output)
        if scores is None or scores.shape[-1] != self.experts:
            seen = "no tensor" if scores is None else f"a tensor of shape {tuple(scores.shape)}"
            raise ValueError(f"router {self.name}: expected scores of {self.experts} experts, found {seen}")
        return routing_weights(scores.detach().reshape(-1, self.experts), self.kind)


RouterHook = Callable[[str, nn.Module], Router | None]
"""Says of a module, by qualified name, how it is read as a router; None = it is none."""


def output_at(index: int) -> ScoreReader:
    """Scores are an item of the output, or the output itself where it is one tensor."""

    def read(hidden: Tensor | None, output: object) -> Tensor | None:
        found = output[index] if isinstance(output, tuple | list) else output
        return found if isinstance(found, Tensor) else None

    return read


def linear_scores(owner: nn.Module, *, bias: bool = False) -> ScoreReader:
    """Logits computed again, in float32, from the hidden states and the weight (and bias) of `owner`.

    The parameters are looked up in the module at each call: sharding frameworks put the whole ones there for
    the time of a forward pass (FSDP2), or fill them (ZeRO-3), and hooks of ours run before they are released.
    """

    def read(hidden: Tensor | None, output: object) -> Tensor | None:
        if hidden is None:
            return None
        weight = owner.get_parameter("weight").detach().float()
        offset = owner.get_parameter("bias").detach().float() if bias else None
        return linear(hidden.detach().reshape(-1, weight.shape[1]).float(), weight, offset)

    return read


def whole_shape(parameter: Tensor) -> torch.Size:
    """Shape of a parameter as the model defines it: ZeRO-3 leaves (0,) of it, and keeps it as `ds_shape`."""
    return torch.Size(getattr(parameter, "ds_shape", parameter.shape))
