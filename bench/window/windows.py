"""Windows as a round closes them: random routing at the size of known models."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pathwatch.server.metrics.consistency import grams
from pathwatch.server.metrics.window import Geometry, WindowArrays

SAMPLES = 512
GROUPS = 8
TARGETS = 20
SPREAD = 1.25
"""Standard deviation of the log routing weights: 17 of 64 experts carry 0.7 of OLMoE's, 61 of 256 of V3's."""
WIDTH = 128
"""Of the router weights whose inner products are the geometry; the cost does not depend on it."""


@dataclass(frozen=True, slots=True)
class Model:
    """Routed layers and experts of a model."""

    name: str
    layers: int
    experts: int


OLMOE = Model("olmoe", 16, 64)
DEEPSEEK_V3 = Model("v3", 58, 256)


def round_of(model: Model, *, own: float = 0.87, targets: bool = True) -> Mapping[str, WindowArrays]:
    """The windows of a round: 8 groups of 512 samples.

    `own` is how much of a sample's routing is its own, 0 to 1; the rest it shares with its group. The
    default is as scattered as routing gets beside a preference of the group. With `targets` they come with
    targets and with routing weights of target tokens.
    """
    generator = np.random.default_rng(model.layers)
    return {f"group{i}": _window(f"group{i}", model, own, targets, generator) for i in range(GROUPS)}


def geometry_of(model: Model) -> Geometry:
    """Inner products of random router weights."""
    weights_LKD = np.random.default_rng(1).normal(0.1, 1, (model.layers, model.experts, WIDTH))
    gram_self_LKK, gram_next_LKK = grams(weights_LKD)
    return Geometry(
        step=1,
        gram_self_LKK=gram_self_LKK.astype(np.float32),
        gram_next_LKK=gram_next_LKK.astype(np.float32),
    )


def _window(
    group: str, model: Model, own: float, targets: bool, generator: np.random.Generator
) -> WindowArrays:
    shape = SAMPLES, model.layers, model.experts
    logits_NLK = generator.standard_normal(shape, dtype=np.float32)
    logits_NLK *= own
    logits_NLK += np.sqrt(1 - own**2) * generator.standard_normal(shape[1:], dtype=np.float32)
    target_weights_NLK = None
    if targets:
        elsewhere_NLK = generator.standard_normal(shape, dtype=np.float32)
        elsewhere_NLK *= own / 2
        elsewhere_NLK += logits_NLK
        target_weights_NLK = _softmax(elsewhere_NLK)
    return WindowArrays(
        group=group,
        first_step=1,
        step=1,
        sample_ids_N=np.sort(generator.integers(0, 2**62, SAMPLES)),
        losses_N=generator.normal(2, 0.5, SAMPLES),
        weights_NLK=_softmax(logits_NLK),
        target_weights_NLK=target_weights_NLK,
        targets_N=generator.integers(0, TARGETS, SAMPLES).astype(np.int32) if targets else None,
        visits_N=generator.integers(0, 3, SAMPLES).astype(np.int32),
        tokens_N=np.full(SAMPLES, 256),
    )


def _softmax(logits_NLK: NDArray[np.float32]) -> NDArray[np.float32]:
    logits_NLK *= SPREAD
    np.exp(logits_NLK, out=logits_NLK)
    # As they arrive: fp16 on the wire.
    weights_NLK = logits_NLK / logits_NLK.sum(axis=-1, keepdims=True)
    return np.asarray(weights_NLK.astype(np.float16).astype(np.float32))
