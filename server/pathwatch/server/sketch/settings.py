"""What is fixed for a run's sketch, and what a block must have to fit it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from pathwatch.server.sketch.errors import SketchError
from pathwatch.server.sketch.observations import ObservationBlock

MAX_TOKEN_PARTS: Final = 4096
"""Largest number of parts the tokens of a sample may be split into."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SketchSettings:
    """What is fixed for a run."""

    run: str
    """Name of the run; part of the sample hash."""
    layers: int
    """Routed MoE layers L."""
    experts: int
    """Routed experts per layer K."""
    mode: Literal["probe", "stream"]
    """probe: every observed step is a window. stream: windows are [k·window_steps, (k+1)·window_steps)."""
    window_steps: int
    """Steps per window in stream mode; not used in probe mode."""
    capacity: int = 512
    """Samples kept per group and window."""
    grace_seconds: float = 60.0
    """Seconds a window waits for the other ranks once the first has passed its end."""

    def window_of(self, step: int) -> tuple[int, int]:
        """First and last step of the window that holds `step`."""
        if self.mode == "probe":
            return step, step
        first_step = step - step % self.window_steps
        return first_step, first_step + self.window_steps - 1


def check_fit(block: ObservationBlock, settings: SketchSettings) -> None:
    """Raise SketchError unless the layers, token parts and shapes of a block fit the run and each other."""
    if not 1 <= block.token_parts <= MAX_TOKEN_PARTS:
        raise SketchError(
            "batch.fragment.token_parts", f"{block.token_parts} is outside 1 … {MAX_TOKEN_PARTS}"
        )
    if not 0 <= block.token_part < block.token_parts:
        raise SketchError(
            "batch.fragment.token_part",
            f"{block.token_part} is outside 0 … {block.token_parts - 1}, the parts it is one of",
        )
    if block.layers is not None:
        _check_layers(block.layers, settings, losses_come=block.losses_N is not None)
    layers = settings.layers if block.layers is None else len(block.layers)
    expected = (len(block.sample_ids_N), layers, settings.experts)
    for field, weights_NLK in (
        ("batch.weights", block.weights_NLK),
        ("batch.target_weights", block.target_weights_NLK),
    ):
        if weights_NLK is not None and weights_NLK.shape != expected:
            raise SketchError(
                field, f"shape {list(weights_NLK.shape)} should be {list(expected)}: samples, layers, experts"
            )


def _check_layers(layers: tuple[int, ...], settings: SketchSettings, *, losses_come: bool) -> None:
    ascending = list(layers) == sorted(set(layers))
    inside = all(0 <= layer < settings.layers for layer in layers)
    if not ascending or not inside or not (layers or losses_come):
        raise SketchError(
            "batch.fragment.layers",
            f"{list(layers)} must be ascending, without repetition and within 0 … {settings.layers - 1}, "
            "the layers of the run; none at all only where losses come without them",
        )
