"""Hooks on the routers that reduce what passes while a recording is open."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import _disable_current_modes, _get_current_dispatch_mode
from torch.utils.hooks import RemovableHandle

from pathwatch.integrations.capture.means import TokenMeans
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
    _means: tuple[TokenMeans, TokenMeans | None] | None = None

    def take(self, layer: int, weights_TK: Tensor) -> None:
        """Reduce a layer's routing weights, flattened over rows and tokens, to a mean per sample."""
        B, _, S = self.selection.real_BMS.shape
        if weights_TK.shape[0] != B * S:
            raise ValueError(
                f"routed layer {layer} saw {weights_TK.shape[0]} tokens, the batch has {B} rows of {S}: "
                "tokens are split over ranks, or the batch told is not the one that ran"
            )
        weights_BSK = weights_TK.reshape(B, S, -1)
        of_real, of_target = self._means = self._means or _token_means(self.selection)
        self.real_LBMK[layer] = of_real(weights_BSK)
        if of_target is not None:
            self.target_LBMK[layer] = of_target(weights_BSK)


class RouterRecorder:
    """Reads routers by forward hooks, which are there only while a recording is open."""

    def __init__(self, routers: list[Router]) -> None:
        self.routers = routers
        self._handles: list[RemovableHandle] = []

    @contextmanager
    def recording(self, selection: TokenSelection) -> Iterator[Recording]:
        """Record the forward pass inside the block; closed also when that raises.

        The first call of each router counts: activation checkpointing calls it again, in the backward pass.
        """
        recording = self.begin(selection)
        try:
            yield recording
        finally:
            self.end()

    def begin(self, selection: TokenSelection) -> Recording:
        """Open a recording; the one before is given up."""
        self.end()
        L = len(self.routers)
        recording = Recording(selection, [None] * L, [None] * L)
        for layer, router in enumerate(self.routers):
            self._handles += _hooks(router, layer, recording)
        return recording

    def end(self) -> None:
        """Close the recording: what runs from here on (a recomputation, an evaluation) is not counted."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def renew(self, routers: list[Router]) -> None:
        """Read these from now on: the model's modules were replaced.

        Raises:
            ValueError: they are not as many, or have other numbers of experts.
        """
        before, now = ([router.experts for router in some] for some in (self.routers, routers))
        if before != now:
            raise ValueError(f"routed layers had {before} experts, and now {now}")
        self.end()
        self.routers = routers

    def close(self) -> None:
        """Take the hooks off."""
        self.end()


def _hooks(router: Router, layer: int, recording: Recording) -> list[RemovableHandle]:
    clean: list[Tensor | None] = []

    def before(module: nn.Module, args: tuple[object, ...], kwargs: Mapping[str, object]) -> None:
        if torch.compiler.is_compiling() or recording.error is not None or clean:
            return
        try:
            with _aside(router.weight.device.type):
                hidden = _hidden(args, kwargs)
                # A copy, because noise may be added in place.
                clean.append(None if hidden is None else hidden.detach().clone())
        except Exception as error:
            recording.error = error

    def after(
        module: nn.Module, args: tuple[object, ...], kwargs: Mapping[str, object], output: object
    ) -> None:
        # Compiled code must not come to contain a hook that is there for one pass.
        if torch.compiler.is_compiling() or recording.error is not None:
            return
        if recording.real_LBMK[layer] is not None:
            return
        try:
            with _aside(router.weight.device.type):
                hidden = _hidden(args, kwargs) if router.clean_at is None else clean.pop()
                _check_order(router, hidden, recording.selection)
                recording.take(layer, router.weights(hidden, output))
        except Exception as error:
            recording.error = error

    # Ahead of the hooks that are there: ZeRO-3 releases the weight in one of them, and it may be read here.
    handles = [router.module.register_forward_hook(after, with_kwargs=True, prepend=True)]
    if router.clean_at is not None:
        handles.append(router.clean_at.register_forward_pre_hook(before, with_kwargs=True))
    return handles


def _check_order(router: Router, hidden: Tensor | None, selection: TokenSelection) -> None:
    """Rows of a batch come before its tokens; the other way round, samples would be mixed up."""
    B, _, S = selection.real_BMS.shape
    if hidden is not None and hidden.ndim == 3 and B != S and hidden.shape[:2] == (S, B):
        raise ValueError(
            f"router {router.name} was given tokens first ({S} tokens of {B} rows), which would mix samples "
            "up: with router= name a module that is given rows first (docs/routers.md)"
        )


def _aside(device_type: str) -> AbstractContextManager[object]:
    """Compute without being part of the forward pass.

    No gradients; in the precision asked for, which autocast would make bfloat16; unseen by dispatch modes:
    that of selective activation checkpointing hands results out again by their order.
    """
    aside = ExitStack()
    aside.enter_context(torch.no_grad())
    if torch.is_autocast_enabled(device_type):
        aside.enter_context(torch.autocast(device_type, enabled=False))
    if _get_current_dispatch_mode() is not None:
        aside.enter_context(_disable_current_modes())
    return aside


def _token_means(selection: TokenSelection) -> tuple[TokenMeans, TokenMeans | None]:
    """Means over real tokens, and over target tokens where they are told apart."""
    alike = selection.target_BMS is selection.real_BMS
    return (
        TokenMeans(selection.real_BMS, whole=selection.whole),
        None if alike else TokenMeans(selection.target_BMS, whole=False),
    )


def _hidden(args: Sequence[object], kwargs: Mapping[str, object]) -> Tensor | None:
    """The hidden states a router was given: its first tensor."""
    return next((item for item in (*args, *kwargs.values()) if isinstance(item, Tensor)), None)
