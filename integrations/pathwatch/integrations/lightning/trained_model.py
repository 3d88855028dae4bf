"""Which part of a LightningModule is the model."""

from __future__ import annotations

from torch import nn

from pathwatch.integrations.lightning.flavours import FLAVOURS


def trained_model(module: nn.Module, name: str | None) -> nn.Module:
    """The part that is called with a batch's inputs and gives out logits.

    That is what `name` says; else the only child with all the parameters, as in `self.model = …`; else the
    LightningModule itself, by its own `forward`.

    Raises:
        ValueError: there is none of that name, or nothing that can be called.
    """
    if name is not None:
        try:
            return module.get_submodule(name)
        except AttributeError as error:
            raise ValueError(f"model={name!r}: {type(module).__name__} has no part of that name") from error
    parameters = {id(parameter) for parameter in module.parameters()}
    for child in module.children():
        whole = {id(parameter) for parameter in child.parameters()} == parameters
        if whole and not isinstance(child, nn.ModuleList | nn.ModuleDict):
            return child
    defining = next(cls for cls in type(module).__mro__ if "forward" in vars(cls))
    if defining.__module__.startswith(FLAVOURS):
        raise ValueError(
            f"{type(module).__name__} has no forward, and no child that holds all its parameters: give "
            "PathwatchCallback(model=...) the name of the part that turns inputs into logits"
        )
    return module
