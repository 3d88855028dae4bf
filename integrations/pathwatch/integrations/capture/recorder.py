"""Hooks on the routers that reduce what passes while a recording is open."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from pathwatch.integrations.capture.routers import Router
from pathwatch.integrations.capture.tokens import TokenSelection


@dataclass(slots=True)
class Recording:
    """Mean routing weights of one forward pass, layer by layer, on the device."""

    selection: TokenSelection
    real_LBMK: list[Tensor | None] = field(default_factory=list)
    target_LBMK: list[Tensor | None] = field(default_factory=list)
    error: Exception | None = None
    """What went wrong in a hook, kept from the forward pass it ran in."""

    def take(self, layer: int, weights_TK: Tensor) -> None:
        """Reduce a layer's routing weights, flattened over rows and tokens, to a mean per sample."""
        B, _, S = self.selection.real_BMS.shape
        if weights_TK.shape[0] != B * S:
            raise ValueError(
                f"routed layer {layer} saw {weights_TK.shape[0]} tokens, the batch has {B} rows of {S}: "
                "tokens are split over ranks, or the batch told is not the one that ran"
            )
        weights_BSK = weights_TK.reshape(B, S, -1)
        self.real_LBMK[layer] = _means(self.selection.real_BMS, weights_BSK)
        if self.selection.target_BMS is not self.selection.real_BMS:
            self.target_LBMK[layer] = _means(self.selection.target_BMS, weights_BSK)


class RouterRecorder:
    """Reads routers by forward hooks; idle unless a recording is open. `close` takes the hooks off."""

    def __init__(self, routers: list[Router]) -> None:
        self.routers = routers
        self._open: Recording | None = None
        self._handles = [
            handle for layer, router in enumerate(routers) for handle in self._hooks(layer, router)
        ]

    @contextmanager
    def recording(self, selection: TokenSelection) -> Iterator[Recording]:
        """Record the forward pass inside the block.

        The first call of each router counts: activation checkpointing calls it again, in the backward pass.
        """
        recording = self.begin(selection)
        try:
            yield recording
        finally:
            self.end()

    def begin(self, selection: TokenSelection) -> Recording:
        """Open a recording; the one before is given up."""
        L = len(self.routers)
        self._open = Recording(selection, [None] * L, [None] * L)
        return self._open

    def end(self) -> None:
        """Close the recording: what runs from here on (a recomputation, an evaluation) is not counted."""
        self._open = None

    def close(self) -> None:
        """Take the hooks off."""
        self.end()
        for handle in self._handles:
            handle.remove()

    def _hooks(self, layer: int, router: Router) -> Iterator[RemovableHandle]:
        clean: list[Tensor | None] = []

        def before(module: nn.Module, args: tuple[object, ...], kwargs: Mapping[str, object]) -> None:
            recording = self._open
            if recording is not None and recording.real_LBMK[layer] is None:
                hidden = _hidden(args, kwargs)
                # A copy, because noise may be added in place.
                clean[:] = [None if hidden is None else hidden.detach().clone()]

        def after(
            module: nn.Module, args: tuple[object, ...], kwargs: Mapping[str, object], output: object
        ) -> None:
            recording = self._open
            if recording is None or recording.real_LBMK[layer] is not None:
                return
            try:
                hidden = _hidden(args, kwargs) if router.clean_at is None else clean.pop()
                with torch.no_grad(), torch.autocast(router.weight.device.type, enabled=False):
                    recording.take(layer, router.weights(hidden, output))
            except Exception as error:
                recording.error = recording.error or error

        if router.clean_at is not None:
            yield router.clean_at.register_forward_pre_hook(before, with_kwargs=True)
        # Ahead of the hooks that are there: ZeRO-3 releases the weight in one of them, and it may be read here.
        yield router.module.register_forward_hook(after, with_kwargs=True, prepend=True)


def _hidden(args: tuple[object, ...], kwargs: Mapping[str, object]) -> Tensor | None:
    """The hidden states a router was given: its first tensor."""
    return next((item for item in (*args, *kwargs.values()) if isinstance(item, Tensor)), None)


def _means(mask_BMS: Tensor, weights_BSK: Tensor) -> Tensor:
    """[B, M, K] mean over the tokens of the mask; zero where it has none."""
    mask_BMS = mask_BMS.to(weights_BSK.dtype)
    return (mask_BMS @ weights_BSK) / mask_BMS.sum(dim=-1, keepdim=True).clamp_min(1)
