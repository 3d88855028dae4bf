"""How phases are shown to people: colour and meaning, the same in terminal, figure and page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseStyle:
    """Colours from Okabe and Ito's palette, which colour-blind readers can tell apart."""

    colour: str
    """Hex, for figure and page."""
    terminal: str
    """Nearest style of the `rich` library."""
    meaning: str


PHASE_STYLES: Mapping[str, PhaseStyle] = {
    "UNKNOWN": PhaseStyle(
        colour="#BBBBBB", terminal="bright_black", meaning="too little, stale or partial data to say"
    ),
    "LEARNING": PhaseStyle(colour="#56B4E9", terminal="cyan", meaning="training loss still falls"),
    "MEMORIZED": PhaseStyle(
        colour="#E69F00",
        terminal="yellow",
        meaning="training samples are fitted, their pathways not yet shared",
    ),
    "GENERALIZING": PhaseStyle(
        colour="#CC79A7", terminal="magenta", meaning="pathways become shared: generalization is under way"
    ),
    "GENERALIZED": PhaseStyle(
        colour="#009E73", terminal="green", meaning="pathways have settled after generalizing"
    ),
    "OVERFITTING": PhaseStyle(
        colour="#D55E00", terminal="red", meaning="loss of unseen samples rises while training loss does not"
    ),
    "REGRESSING": PhaseStyle(
        colour="#0072B2", terminal="blue", meaning="training loss blew up after the group had generalized"
    ),
}
