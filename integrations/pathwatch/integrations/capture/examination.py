"""How a router must be read, by what it did when it was tried out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from pathwatch.integrations.capture.code import names_used
from pathwatch.integrations.capture.routers import Router, linear_scores, output_at
from pathwatch.integrations.capture.scores import ScoreKind, are_probabilities, kinds_explaining
from pathwatch.integrations.capture.trial import Trial, noise_before, try_router

_KIND_BY_NAME = {"softmax": ScoreKind.SOFTMAX_LOGITS, "sigmoid": ScoreKind.SIGMOID_LOGITS}
_KIND_BY_CLASS = {
    # Sparsemixer: the weights it gives its two experts come from two softmaxes over different experts.
    "PhimoeTopKRouter": ScoreKind.SOFTMAX_LOGITS,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Matrix:
    """A weight whose rows may be the embeddings of the experts."""

    owner_name: str
    owner: nn.Module
    weight: nn.Parameter
    plain_TK: Tensor
    """What the random hidden states give with the random weight."""
    biased_TK: Tensor | None
    """The same with the bias of its module."""


def examined(name: str, module: nn.Module, block: nn.Module | None, index: int | None) -> Router:
    """The router `module`, which stands in `block`, read as its trial showed.

    Scores are taken from its output where they are clean there; where it gives none, or adds noise before,
    they are computed again from clean hidden states, provided the trial showed that this gives the same.

    Args:
        name: its qualified name.
        index: the item of its output that the model declares as logits; None = not told.

    Raises:
        ValueError: it cannot be read with certainty.
    """
    try:
        trial = try_router(module)
        position, scores_TK = _given_scores(trial, index)
        matrix = _matrix(trial, module, scores_TK)
        noisy_block = block is not None and noise_before(block, module, trial)
        noisy = position is not None and any(
            item is None or not torch.allclose(item.reshape(scores_TK.shape), scores_TK)
            for item in (run[position] for run in trial.repeated)
        )
        if position is not None and not (noisy or noisy_block):
            kind = _kind(module, block, scores_TK, trial, except_for=position)
            return Router(name=name, module=module, weight=matrix.weight, read=output_at(position), kind=kind)
        bias, logits_TK = _linear(matrix, trial, None if position is None else scores_TK)
        return Router(
            name=name,
            # Where a child multiplies by the weight, it is whole during that child's call only (ZeRO-3).
            module=matrix.owner if matrix.owner_name in trial.called else module,
            weight=matrix.weight,
            read=linear_scores(matrix.owner, bias=bias),
            kind=_kind(module, block, logits_TK, trial, except_for=position),
            clean_at=block if noisy_block else module if noisy else None,
        )
    except ValueError as error:
        raise ValueError(
            f"router {name} ({type(module).__name__}) cannot be read with certainty: {error}; "
            "say how it is read with router= (docs/routers.md)"
        ) from error


def _given_scores(trial: Trial, index: int | None) -> tuple[int | None, Tensor]:
    """Where in the output the scores of all experts are, and the scores; None where they are not in it."""
    T = len(trial.hidden_TD)
    rows = {len(weight) for weight in trial.twin.parameters() if weight.ndim == 2}
    items = trial.evaluated
    if index is None:
        fitting = [
            position
            for position, item in enumerate(items)
            if item is not None
            and item.is_floating_point()
            and item.ndim > 1
            and item.shape[-1] in rows
            and item.numel() == T * item.shape[-1]
        ]
        if len(fitting) != 1:
            return None, trial.hidden_TD.new_empty(T, 0)
        position = fitting[0]
    else:
        position = index if len(items) > 1 else 0
    found = items[position] if position < len(items) else None
    if found is None or found.ndim < 2 or found.numel() != T * found.shape[-1]:
        raise ValueError(f"item {index} of its output, declared as router logits, is not a row per token")
    scores_TK = found.reshape(T, -1)
    if bool((scores_TK == 0).any()):
        return None, trial.hidden_TD.new_empty(T, 0)  # Zero for experts that were not chosen.
    if bool((scores_TK >= 0).all()) and not are_probabilities(scores_TK):
        raise ValueError("the scores it gives out are neither logits nor probabilities")
    return position, scores_TK


def _matrix(trial: Trial, module: nn.Module, scores_TK: Tensor) -> _Matrix:
    """The weight with a row per expert: the router's own, else the one that fits the scores."""
    parameters = dict(trial.twin.named_parameters())
    found = []
    for name, value in parameters.items():
        owner_name, _, parameter_name = name.rpartition(".")
        fits = value.ndim == 2 and parameter_name == "weight"
        if not fits or (scores_TK.numel() and len(value) != scores_TK.shape[1]):
            continue
        owner = module.get_submodule(owner_name)
        bias = parameters.get(f"{owner_name}.bias".lstrip("."))
        wide = value.shape[1] == trial.hidden_TD.shape[1]
        found.append(
            _Matrix(
                owner_name=owner_name,
                owner=owner,
                weight=owner.get_parameter("weight"),
                plain_TK=linear(trial.hidden_TD, value) if wide else value.new_empty(0),
                biased_TK=linear(trial.hidden_TD, value, bias) if wide and bias is not None else None,
            )
        )
    own = [matrix for matrix in found if matrix.owner_name == ""]
    found = own or [matrix for matrix in found if _equal(matrix.plain_TK, scores_TK)] or found
    if len(found) != 1:
        experts = scores_TK.shape[1] or "its"
        raise ValueError(f"it has {len(found) or 'no'} weights with a row for each of {experts} experts")
    return found[0]


def _linear(matrix: _Matrix, trial: Trial, scores_TK: Tensor | None) -> tuple[bool, Tensor]:
    """Whether its logits are hidden states times weight with the bias or without, and those logits."""
    outputs = _tensors(trial.evaluated)
    for bias, logits_TK in ((True, matrix.biased_TK), (False, matrix.plain_TK)):
        if logits_TK is None or not logits_TK.numel():
            continue
        if scores_TK is not None and _equal(logits_TK, scores_TK):
            return bias, logits_TK
        if len(kinds_explaining(logits_TK, outputs) or ()) == 1:
            return bias, logits_TK
    raise ValueError(
        "it gives no scores of all experts" if scores_TK is None else "it adds noise to its scores",
    )


def _kind(
    module: nn.Module, block: nn.Module | None, scores_TK: Tensor, trial: Trial, *, except_for: int | None
) -> ScoreKind:
    """What the scores are: by their values, by the weights chosen by them, else by the code."""
    if are_probabilities(scores_TK):
        return ScoreKind.PROBABILITIES
    known = next(
        (_KIND_BY_CLASS[c.__name__] for c in type(module).__mro__ if c.__name__ in _KIND_BY_CLASS), None
    )
    if known is not None:
        return known
    others = [item for position, item in enumerate(trial.evaluated) if position != except_for]
    kinds = kinds_explaining(scores_TK, _tensors(others))
    if kinds is not None and len(kinds) != 1:
        raise ValueError("the weights of its chosen experts are neither a softmax nor sigmoids of its scores")
    if kinds is not None:
        return kinds[0]
    for cls in (type(module), type(block)):
        named = [kind for name, kind in _KIND_BY_NAME.items() if name in names_used(cls)]
        if len(named) == 1:
            return named[0]
    raise ValueError("neither what it gives out nor its code tells a softmax from a sigmoid")


def _tensors(items: Sequence[Tensor | None]) -> list[Tensor]:
    return [item for item in items if item is not None]


def _equal(one: Tensor, other: Tensor) -> bool:
    # Routers may compute in half precision.
    return one.shape == other.shape and bool(torch.allclose(one.float(), other.float(), rtol=0.02, atol=0.02))
