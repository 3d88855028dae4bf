"""Where a model's routers are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from torch import nn

from pathwatch.integrations.capture.examination import examined
from pathwatch.integrations.capture.gates import deepspeed_gate
from pathwatch.integrations.capture.routers import Router, RouterHook

_ROUTER_NAMES = ("gate", "router", "wg")
_PREDICTION_MODULES = ("mtp", "nextn")
"""How modules for multi-token prediction are called: their layers are not the model's."""


class NoRoutersError(ValueError):
    """A model, or the part of it that this process holds, has no routed layers."""


def find_routers(model: nn.Module, router: RouterHook | None = None) -> list[Router]:
    """The routed layers of a model, in the order of its modules (docs/routers.md).

    DeepSpeed's gates; what a transformers model declares as `router_logits`; modules named gate, router or wg
    beside experts. Each is tried out once, on a copy. Shared experts have no router, routers of attention
    and of multi-token prediction are no MoE layers: they are not among them.

    Args:
        model: searched with all its modules.
        router: says which modules are routers, and how they are read, instead of the above.

    Raises:
        NoRoutersError: none found.
        ValueError: one cannot be read with certainty, layers share one or differ in their number of experts,
            or encoder and decoder both have some.
    """
    routers = list(_built_in(_Place(model)) if router is None else _told(model, router))
    if not routers:
        looked_for = (
            "router= recognized no module of it"
            if router is not None
            else "neither DeepSpeed MoE layers, nor a transformers model that declares router_logits, "
            "nor a 'gate' or 'router' beside 'experts'; say which modules are routers with router= "
            "(docs/routers.md)"
        )
        raise NoRoutersError(f"no routers found in {type(model).__name__}: {looked_for}")
    if len({found.experts for found in routers}) > 1:
        counts = ", ".join(f"{found.name}: {found.experts}" for found in routers)
        raise ValueError(
            f"all routed layers must have the same number of experts; found {counts}; "
            "choose layers with router= (docs/routers.md)"
        )
    if len({found.module for found in routers}) < len(routers):
        names = ", ".join(found.name for found in routers)
        raise ValueError(f"layers share a router, so their readings cannot be told apart: {names}")
    sides = {part for found in routers for part in found.name.split(".")} & {"encoder", "decoder"}
    if len(sides) > 1 and router is None:
        raise ValueError(
            "encoder and decoder both have routers, and read different tokens: choose one with router= "
            "(docs/routers.md)"
        )
    return routers


@dataclass(frozen=True, slots=True)
class _Place:
    """A module on the way through a model."""

    module: nn.Module
    name: str = ""
    parent: nn.Module | None = None
    declared: tuple[object, ...] = ()
    """What the innermost transformers model around it declares as `router_logits`."""

    @property
    def last_name(self) -> str:
        return self.name.rpartition(".")[2]

    def children(self) -> Iterator[_Place]:
        for child_name, child in self.module.named_children():
            yield _Place(
                child, f"{self.name}.{child_name}" if self.name else child_name, self.module, self.declared
            )


def _told(model: nn.Module, router: RouterHook) -> Iterator[Router]:
    for name, module in model.named_modules():
        found = router(name, module)
        if found is not None:
            yield found


def _built_in(place: _Place) -> Iterator[Router]:
    module, name = place.module, place.name
    if place.parent is not None and _is_elsewhere(place):
        return
    gate = deepspeed_gate(name, module)
    if gate is not None:
        yield gate
        return
    if hasattr(module, "_can_record_outputs"):
        place = _Place(module, name, place.parent, _declarations(module._can_record_outputs))
    index = _declared_index(place)
    if index is not None and not _holds_experts(module):
        yield examined(name, module, place.parent, index)
        return
    if place.last_name in _ROUTER_NAMES and isinstance(getattr(place.parent, "experts", None), nn.Module):
        yield examined(name, module, place.parent, None)
        return
    inside = [router for child in place.children() for router in _built_in(child)]
    if index is not None and len(inside) > 1:
        names = " and ".join(router.name for router in inside)
        raise ValueError(
            f"{name} ({type(module).__name__}) is one MoE layer with several routers, {names}: "
            "choose one with router= (docs/routers.md)"
        )
    yield from inside


def _is_elsewhere(place: _Place) -> bool:
    """Whether routers below are none of the model's MoE layers."""
    attention = type(place.module).__name__.endswith("Attention")
    return attention or place.last_name.startswith(_PREDICTION_MODULES)


def _declarations(recorded: object) -> tuple[object, ...]:
    specs = recorded.get("router_logits", ()) if isinstance(recorded, Mapping) else ()
    return tuple(specs) if isinstance(specs, list | tuple) else (specs,)


def _declared_index(place: _Place) -> int | None:
    """Which item of the module's output the transformers model around it declares as `router_logits`."""
    for spec in place.declared:
        # A bare class stands for index 1 of its output, as in transformers' own capture.
        target = getattr(spec, "target_class", spec)
        layer_name = getattr(spec, "layer_name", None)
        if not isinstance(target, type) or not isinstance(place.module, target):
            continue
        if layer_name is None or f".{layer_name.strip('.')}." in f".{place.name}.":
            return int(getattr(spec, "index", 1))
    return None


def _holds_experts(module: nn.Module) -> bool:
    """Whether a module is a whole MoE block, of which the router is a part."""
    return any(name.rpartition(".")[2] == "experts" for name, _ in module.named_modules())
