"""DeepSpeed's gates: those of its MoE layers, and those that AutoEP puts into a model."""

from __future__ import annotations

from torch import nn

from pathwatch.integrations.capture.routers import Router, linear_scores, output_at
from pathwatch.integrations.capture.scores import ScoreKind

_KIND_BY_FUNCTION = {"softmax": ScoreKind.SOFTMAX_LOGITS, "sigmoid": ScoreKind.SIGMOID_LOGITS}


def deepspeed_gate(name: str, module: nn.Module) -> Router | None:
    """The module as a router, if it is one of DeepSpeed's.

    Raises:
        ValueError: an AutoEP router scores otherwise than by softmax or sigmoid.
    """
    if _is_a(module, "deepspeed.moe.sharded_moe", "TopKGate"):
        # It multiplies by the weight of `wg` without calling it, jitters, and gives no logits out; its input
        # stays clean.
        wg = module.get_submodule("wg")
        return Router(
            name=name,
            module=module,
            weight=wg.get_parameter("weight"),
            read=linear_scores(wg),
            kind=ScoreKind.SOFTMAX_LOGITS,
        )
    if _is_a(module, "deepspeed.moe.ep_router", "TokenChoiceTopKRouter"):
        function = getattr(module, "score_func", None)
        if function not in _KIND_BY_FUNCTION:
            raise ValueError(f"router {name}: score_func={function!r} of AutoEP is not known here")
        # Its linear layer gives the logits, before the biases that only choose and before scaling; the
        # router itself gives those of chosen experts alone.
        gate = module.get_submodule("gate")
        return Router(
            name=name,
            module=gate,
            weight=gate.get_parameter("weight"),
            read=output_at(0),
            kind=_KIND_BY_FUNCTION[function],
        )
    return None


def _is_a(module: nn.Module, package: str, name: str) -> bool:
    """isinstance without importing the package, which need not be there."""
    return any(cls.__module__ == package and cls.__name__ == name for cls in type(module).__mro__)
