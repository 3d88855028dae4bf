"""What a forward pass is given says which batch it is of."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from pathwatch.integrations.capture import segment_ids_of_offsets
from pathwatch.integrations.observing.stream import Inputs, Stream, TrainingBatch, describe

_OFFSETS = ("cu_seq_lens_q", "cu_seqlens")

_Told = TypeVar("_Told")


class ForwardInputs:
    """Names the inputs of a module's forward, and describes the batch that they are."""

    def __init__(self, module: nn.Module, stream: Stream, device: torch.device) -> None:
        # torch.compile's wrapper takes (*args, **kwargs).
        forward = getattr(module, "_orig_mod", module).forward
        self._signature = inspect.signature(forward)
        self._stream = stream
        self._device = device

    def describe(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], own: Inputs) -> TrainingBatch:
        """The batch of one forward pass, from its arguments and the values of the stream's own keywords.

        Raises:
            ValueError: the inputs, or what the job's functions make of them, do not fit together.
        """
        inputs = self._named(args, kwargs)
        tokens = _token_ids(inputs)
        shape = _shape(inputs, tokens)
        if self._stream.groups is None:
            raise ValueError("Stream(groups=...) is needed for batches to describe themselves")
        groups = _told("groups", self._stream.groups, inputs, own)
        if groups is None:
            raise ValueError("the groups function gave None: give a name for all samples, or one for each")
        ids = None
        if self._stream.sample_ids is not None:
            ids = _told("sample_ids", self._stream.sample_ids, inputs, own)
        mask = inputs.get("attention_mask")
        if mask is not None and not _is(mask, shape):
            raise ValueError(
                "the attention mask is not one of rows and tokens, so that padding cannot be told: "
                "describe batches by watch.batch(...) instead of Stream(groups=...)"
            )
        segment_ids = inputs.get("segment_ids")
        offsets = next((inputs[name] for name in _OFFSETS if inputs.get(name) is not None), None)
        samples_per_row = None
        if segment_ids is None and offsets is not None and shape[0] == 1:
            segment_ids = segment_ids_of_offsets(offsets.to(self._device), shape[1])
            samples_per_row = len(offsets) - 1
        positions = inputs.get("position_ids")
        if segment_ids is None and offsets is not None and positions is None:
            raise ValueError(
                f"cumulative lengths came with {shape[0]} rows, so that samples cannot be told apart: "
                "give forward position_ids, or describe batches by watch.batch(...)"
            )
        labels, shifted = inputs.get("labels"), inputs.get("shift_labels")
        return describe(
            self._stream,
            groups=groups,
            sample_ids=ids,
            shape=shape,
            device=self._device,
            samples_per_row=samples_per_row,
            tokens=tokens,
            labels=labels if _is(labels, shape) else None,
            shifted_labels=shifted if _is(shifted, shape) else None,
            attention_mask=mask,
            segment_ids=segment_ids,
            position_ids=positions if isinstance(positions, Tensor) and positions.ndim == 2 else None,
        )

    def _named(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Inputs:
        named = dict(self._signature.bind_partial(*args, **kwargs).arguments)
        for parameter in self._signature.parameters.values():
            if parameter.kind is inspect.Parameter.VAR_KEYWORD:
                named.update(named.pop(parameter.name, {}))
        # A model whose forward takes the whole batch as one mapping.
        only = next(iter(named.values())) if len(named) == 1 else None
        return only if isinstance(only, Mapping) else named


def _told(name: str, source: Callable[[Inputs], _Told] | str, inputs: Inputs, own: Inputs) -> Any:
    """What a callable makes of the inputs, or what came under a keyword."""
    if callable(source):
        try:
            return source(inputs)
        except Exception as error:
            raise ValueError(
                f"Stream({name}=...) raised {type(error).__name__}: {error}; it was given {sorted(inputs)}"
            ) from error
    if source not in own:
        raise ValueError(f"forward was called without the keyword {source!r} that Stream({name}=...) names")
    return own[source]


def _token_ids(inputs: Inputs) -> Tensor | None:
    """`input_ids`, else the first matrix of whole numbers."""
    found = inputs.get("input_ids")
    candidates = inputs.values() if found is None else (found,)
    return next(
        (
            value
            for value in candidates
            if isinstance(value, Tensor) and value.ndim == 2 and not value.is_floating_point()
        ),
        None,
    )


def _shape(inputs: Inputs, tokens: Tensor | None) -> tuple[int, int]:
    embedded = inputs.get("inputs_embeds")
    shown = tokens if tokens is not None else embedded
    if shown is None:
        raise ValueError(
            f"no [B, S] token ids among the inputs of forward ({', '.join(sorted(inputs)) or 'none'}): "
            "describe batches by watch.batch(...) instead of Stream(groups=...)"
        )
    return int(shown.shape[0]), int(shown.shape[1])


def _is(tensor: object, shape: tuple[int, int]) -> bool:
    return isinstance(tensor, Tensor) and tuple(tensor.shape) == shape
