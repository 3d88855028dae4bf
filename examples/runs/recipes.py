"""Which runs there are: on the first set a detector may be tuned, on the second it is only judged."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Recipe:
    """One run: AdamW at 2e-3 under a weight decay at which small models generalize within minutes."""

    groups: tuple[str, ...]
    """`operation:train fraction`, see `data.make_group`."""
    steps: int
    seed: int
    layers: int = 3
    width: int = 96
    experts: int = 8
    hidden: int = 24
    """Hidden size of an expert."""
    top: int = 2
    init_scale: float = 1.0
    olmoe: bool = False
    """A real `transformers` OLMoE instead of the example's own model."""
    p: int = 37
    """Residues: the classes to predict."""
    weight_decay: float = 2.0
    clip: float = 1.0
    """Largest gradient norm; 0 = none."""
    interval: int = 50
    """Steps between two readings of the probe."""
    probe: int = 128
    """Training samples re-read per group."""


PAIR = ("add:0.6", "sub:0.6")
STAGGERED = ("sub:0.6", "add:0.7", "mul:0.85", "rnd:0.1")
"""Three groups generalize one after the other, the fourth can only be memorized."""

TUNING = {
    "a_pair": Recipe(PAIR, 3000, seed=11),
    # Other routers: four of sixteen, one of eight (with a group of random answers), four of eight.
    "a_k16": Recipe(("add:0.6", "lin:0.6"), 3000, seed=14, experts=16, hidden=12, top=4),
    "a_top1": Recipe((*PAIR, "rnd:0.1"), 3500, seed=12, top=1),
    "a_top4": Recipe(("add:0.7", "sub:0.7", "sq:0.6"), 4000, seed=33, top=4),
    "a_stag": Recipe(STAGGERED, 4500, seed=13, layers=4, init_scale=0.5),
    "a_p31": Recipe(("add:0.65", "sq:0.7", "div:0.8"), 4000, seed=17, p=31),
    "a_L6": Recipe(PAIR, 3000, seed=28, layers=6, width=64),
    # Nothing generalizes: too few pairs, random answers; no weight decay.
    "a_neg": Recipe(("add:0.25", "rnd:0.3", "sub:0.2"), 3000, seed=18),
    "a_wd0": Recipe(PAIR, 2500, seed=19, weight_decay=0.0),
    # Groups that only memorize, dragged along by groups that generalize.
    "a_rndmix": Recipe(("add:0.7", "sub:0.6", "rnd:0.15"), 4500, seed=16),
    "a_mix": Recipe(("lin:0.65", "add:0.3", "rnd:0.1", "div:0.8"), 4500, seed=32, layers=4, init_scale=0.5),
    # Without clipping a run may collapse.
    "a_noclip": Recipe(PAIR, 3500, seed=20, clip=0),
    # OLMoE itself. The first ends while it still improves.
    "c_ol_pair": Recipe(PAIR, 2500, seed=41, olmoe=True),
    "c_ol_k16": Recipe(("add:0.65", "sub:0.65"), 3000, seed=42, olmoe=True, experts=16, hidden=12, top=4),
}
HELD_OUT = {
    "b_top1": Recipe(("sub:0.65", "add:0.65", "rnd:0.1"), 4500, seed=21, top=1, layers=4, init_scale=0.5),
    "b_k4": Recipe(PAIR, 3000, seed=24, experts=4, hidden=48, top=1),
    "b_k16": Recipe(
        ("lin:0.7", "sub:0.65", "rnd:0.1"), 4000, seed=35, experts=16, hidden=16, layers=4, init_scale=0.5
    ),
    "b_stag": Recipe(STAGGERED, 4500, seed=23, layers=4, init_scale=0.5),
    "b_d64": Recipe(("add:0.7", "sub:0.7"), 4000, seed=22, width=64),
    "b_L5": Recipe((*PAIR, "rnd:0.1"), 3500, seed=34, layers=5, width=64),
    "b_p53": Recipe(("add:0.5", "sub:0.5"), 3500, seed=30, p=53),
    "b_max": Recipe(("max:0.5", "add:0.65", "sub:0.3"), 3500, seed=27),
    # A smaller probe, and one read twice as often.
    "b_pair64": Recipe(PAIR, 3000, seed=26, probe=64),
    "b_every25": Recipe(PAIR, 2500, seed=29, interval=25),
    # Hardly enough pairs to generalize from, half enough, and random answers.
    "b_small": Recipe(("add:0.3", "sub:0.35", "mul:0.4"), 3500, seed=25),
    "b_half": Recipe(("add:0.45", "sub:0.45", "mul:0.5"), 5000, seed=31),
    "b_rnd": Recipe(("rnd:0.35", "rnd1:0.25"), 2500, seed=36),
    "b_noclip": Recipe(("add:0.65", "lin:0.65"), 3500, seed=37, clip=0),
    "c_ol_lin": Recipe(("sub:0.65", "lin:0.65"), 2500, seed=43, olmoe=True),
    "c_ol_rnd": Recipe(("add:0.65", "sub:0.65", "rnd:0.1"), 3500, seed=44, olmoe=True),
}
RECIPES = TUNING | HELD_OUT
