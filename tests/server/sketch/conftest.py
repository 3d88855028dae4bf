"""Blocks and settings to feed a sketch with, and a comparison to the bit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Any

import numpy as np
import pytest

from pathwatch.server.sketch.observations import ObservationBlock
from pathwatch.server.sketch.run_sketch import Round, SketchSettings

LAYERS, EXPERTS = 3, 4


@pytest.fixture(scope="session")
def make_settings() -> Callable[..., SketchSettings]:
    def make(**changes: Any) -> SketchSettings:
        defaults: dict[str, Any] = {
            "run": "run",
            "layers": LAYERS,
            "experts": EXPERTS,
            "mode": "probe",
            "window_steps": 1,
            "capacity": 8,
            "grace_seconds": 60.0,
        }
        return SketchSettings(**(defaults | changes))

    return make


@pytest.fixture(scope="session")
def make_block() -> Callable[..., ObservationBlock]:
    """A block whose content depends on step, group and sample alone, unless told otherwise."""

    def make(
        step: int,
        sample_ids: Sequence[int],
        *,
        group: str = "math",
        layers: Sequence[int] | None = None,
        **changes: Any,
    ) -> ObservationBlock:
        held = list(range(LAYERS) if layers is None else layers)
        n = len(sample_ids)
        weights, losses = np.zeros((n, len(held), EXPERTS), np.float32), np.zeros(n)
        for row, sample_id in enumerate(sample_ids):
            rng = np.random.default_rng([step, sample_id % 2**32, len(group)])
            weights[row] = rng.dirichlet(np.ones(EXPERTS), LAYERS + 1)[
                held
            ]  # one layer too many, to be refused
            losses[row] = rng.random()
        defaults: dict[str, Any] = {
            "attempt": 0,
            "losses_N": losses,
            "tokens_N": np.full(n, 7, np.int64),
            "target_tokens_N": np.full(n, 7, np.int64),
            "weights_NLK": weights,
        }
        return ObservationBlock(
            step=step,
            group=group,
            sample_ids_N=np.array(sample_ids, np.int64),
            layers=None if layers is None else tuple(layers),
            **(defaults | changes),
        )

    return make


@pytest.fixture(scope="session")
def bits() -> Callable[[Sequence[Round]], Any]:
    """Rounds as plain values that are equal exactly if the rounds are, to the bit."""

    def plain(value: Any) -> Any:
        if isinstance(value, np.ndarray):
            return str(value.dtype), value.shape, value.tobytes()
        return value

    def of(rounds: Sequence[Round]) -> Any:
        return [
            (
                (one.attempt, one.first_step, one.step, one.partial, one.missing_ranks),
                [
                    (group, [(f.name, plain(getattr(window, f.name))) for f in fields(window)])
                    for group, window in one.windows.items()
                ],
            )
            for one in rounds
        ]

    return of
