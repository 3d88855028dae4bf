"""Where a model's routers are, and how each is read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor, nn
from torch.nn.functional import linear

from pathwatch.integrations.capture.scores import ScoreKind, detect_kind, routing_weights

_ROUTER_NAMES = ("gate", "router", "wg")


class ScoreReader(Protocol):
    """Takes a router's scores [T, K] out of one of its forward calls; None = not among them."""

    def __call__(self, hidden: Tensor | None, output: object) -> Tensor | None: ...


@dataclass(slots=True, eq=False, kw_only=True)
class Router:
    """One routed MoE layer: the module to hook and how to read it."""

    name: str
    """Qualified name of the module."""
    module: nn.Module
    weight: nn.Parameter
    """[K, D]: row k is the embedding of expert k; K is taken from here, not from the indices seen."""
    read: ScoreReader
    kind: ScoreKind | None = None
    """What the scores are; None until the first call shows it."""

    @property
    def experts(self) -> int:
        """Number of experts K."""
        return int(self.weight.shape[0])

    def weights(self, hidden: Tensor | None, output: object) -> Tensor:
        """Routing weights [T, K] of one forward call, float32.

        Raises:
            ValueError: the call's output holds no scores of K experts.
        """
        scores = self.read(hidden, output)
        if scores is None or scores.shape[-1] != self.experts:
            seen = "no tensor" if scores is None else f"a tensor of shape {tuple(scores.shape)}"
            raise ValueError(f"router {self.name}: expected scores of {self.experts} experts, found {seen}")
        scores_TK = scores.detach().reshape(-1, self.experts)
        if self.kind is None:
            self.kind = detect_kind(scores_TK, output)
        return routing_weights(scores_TK, self.kind)


class NoRoutersError(ValueError):
    """A model, or the part of it that this process holds, has no routed layers."""


def find_routers(model: nn.Module) -> list[Router]:
    """The routed layers of a model, in the order of its modules.

    DeepSpeed's gates first; then what a transformers model declares as `router_logits`; then modules named
    gate or router beside experts. Shared experts have no router and are not among them.

    Raises:
        NoRoutersError: none found.
        ValueError: layers differ in their number of experts.
    """
    routers = list(_deepspeed_gates(model)) or list(_declared_routers(model)) or list(_named_gates(model))
    if not routers:
        raise NoRoutersError(
            f"no routers found in {type(model).__name__}: neither DeepSpeed MoE layers, nor "
            "a transformers model that records router_logits, nor a 'gate' or 'router' beside 'experts'"
        )
    if len({router.experts for router in routers}) > 1:
        counts = ", ".join(f"{router.name}: {router.experts}" for router in routers)
        raise ValueError(f"all routed layers must have the same number of experts; found {counts}")
    return routers


def _deepspeed_gates(model: nn.Module) -> Iterator[Router]:
    for name, module in model.named_modules():
        if _is_a(module, "deepspeed.moe.sharded_moe", "TopKGate"):
            weight = module.get_submodule("wg").get_parameter("weight")
            yield Router(
                name=name,
                module=module,
                weight=weight,
                read=_clean_logits(weight),
                kind=ScoreKind.SOFTMAX_LOGITS,
            )


def _clean_logits(weight: nn.Parameter) -> ScoreReader:
    """DeepSpeed's logits before jitter, from the gate's input: it never calls `wg`, nor gives them out."""

    def read(hidden: Tensor | None, output: object) -> Tensor | None:
        return None if hidden is None else linear(hidden.detach().float(), weight.detach().float())

    return read


def _declared_routers(
    model: nn.Module, prefix: str = "", inherited: tuple[object, ...] = ()
) -> Iterator[Router]:
    """Modules that a transformers model names in `_can_record_outputs["router_logits"]`."""
    declared = getattr(model, "_can_record_outputs", None)
    if isinstance(declared, Mapping):
        specs = declared.get("router_logits", ())
        inherited = tuple(specs) if isinstance(specs, list | tuple) else (specs,)
    for spec in inherited:
        # A bare class stands for index 1 of its output, as in transformers' own capture.
        target = getattr(spec, "target_class", spec)
        index = getattr(spec, "index", 1)
        layer_name = getattr(spec, "layer_name", None)
        if not isinstance(target, type) or not isinstance(model, target):
            continue
        if layer_name is not None and f".{layer_name.strip('.')}." not in f".{prefix}.":
            continue
        yield Router(name=prefix, module=model, weight=_router_weight(prefix, model), read=_output_at(index))
        return
    for name, child in model.named_children():
        yield from _declared_routers(child, f"{prefix}.{name}" if prefix else name, inherited)


def _named_gates(model: nn.Module) -> Iterator[Router]:
    for name, module in model.named_modules():
        if not hasattr(module, "experts"):
            continue
        for child_name, child in module.named_children():
            if child_name in _ROUTER_NAMES:
                full_name = f"{name}.{child_name}" if name else child_name
                weight = _router_weight(full_name, child)
                yield Router(name=full_name, module=child, weight=weight, read=_first_of(weight.shape[0]))


def _output_at(index: int) -> ScoreReader:
    def read(hidden: Tensor | None, output: object) -> Tensor | None:
        found = output[index] if isinstance(output, tuple | list) else output
        return found if isinstance(found, Tensor) else None

    return read


def _first_of(experts: int) -> ScoreReader:
    """The first floating-point tensor with one column per expert."""

    def read(hidden: Tensor | None, output: object) -> Tensor | None:
        candidates = output if isinstance(output, tuple | list) else (output,)
        for item in candidates:
            if isinstance(item, Tensor) and item.is_floating_point() and item.shape[-1] == experts:
                return item
        return None

    return read


def _router_weight(name: str, module: nn.Module) -> nn.Parameter:
    """The [K, D] matrix of a router: its own `weight`, else one below it with as many rows as experts."""
    own = module._parameters.get("weight")
    if own is not None and own.ndim == 2:
        return own
    experts = next(
        (
            value
            for key in ("num_experts", "n_routed_experts")
            if isinstance(value := getattr(module, key, None), int)
        ),
        None,
    )
    matrices = [
        parameter
        for parameter_name, parameter in module.named_parameters()
        if parameter.ndim == 2 and ".experts." not in f".{parameter_name}."
    ]
    fitting = [matrix for matrix in matrices if experts is None or matrix.shape[0] == experts]
    if not fitting:
        raise ValueError(f"router {name} ({type(module).__name__}): no [experts, width] weight found in it")
    return min(fitting, key=lambda matrix: matrix.shape[0])


def _is_a(module: nn.Module, package: str, name: str) -> bool:
    """isinstance without importing the package, which need not be there."""
    return any(cls.__module__ == package and cls.__name__ == name for cls in type(module).__mro__)
