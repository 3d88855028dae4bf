"""Records training runs of small mixture-of-experts models on modular arithmetic, one or two minutes each.

    python examples/runs a_pair c_ol_pair --out traces

Writes `NAME.npz` (trace v1, docs/traces.md) and `labels/NAME.labels.npz` (test accuracy, for judging). A run
is the same to the bit on the same machine with the same number of threads.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from runs.recipes import HELD_OUT, RECIPES, TUNING, Recipe
from runs.record import LogPoint, save_run
from runs.train import make_data, train


def record(name: str, recipe: Recipe, out: Path) -> None:
    """Train, print accuracies now and then, write trace and labels."""
    start = time.monotonic()
    # "medium" doubles the speed of plain matrix products; OLMoE's grouped ones it makes three times slower.
    torch.set_float32_matmul_precision("highest" if recipe.olmoe else "medium")
    rng = np.random.default_rng(recipe.seed + 1000)
    data = make_data(recipe, rng)
    points = []
    for point in train(recipe, data, rng, recipe.steps):
        points.append(point)
        if len(points) % 10 == 1:
            print(f"{name}  step {point.step:5d}  test accuracy  {accuracies(recipe, point)}", flush=True)
    save_run(
        out,
        name,
        recipe.groups,
        points,
        targets_GN=data.targets_GN,
        meta={"layers": recipe.layers, "experts": recipe.experts, "top": recipe.top},
    )
    print(f"{name}  {learned(recipe, points)}  ({time.monotonic() - start:.0f} s)", flush=True)


def accuracies(recipe: Recipe, point: LogPoint) -> str:
    """Test accuracy of every group."""
    pairs = zip(recipe.groups, point.truth["test_acc"], strict=True)
    return "  ".join(f"{group} {accuracy:.2f}" for group, accuracy in pairs)


def learned(recipe: Recipe, points: Sequence[LogPoint]) -> str:
    """When each group's test accuracy passed 0.5."""
    told = []
    for index, group in enumerate(recipe.groups):
        step = next((point.step for point in points if point.truth["test_acc"][index] > 0.5), None)
        told.append(f"{group}: " + ("never learned" if step is None else f"learned at step {step}"))
    return ", ".join(told)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help="runs to record (default: all, over an hour)"
    )
    parser.add_argument("--out", type=Path, default=Path("traces"), help="folder of the traces")
    parser.add_argument("--list", action="store_true", help="name the runs there are and exit")
    parser.add_argument("--threads", type=int, default=1, help="another number gives another run")
    args = parser.parse_args()
    if args.list:
        for title, recipes in (("to tune on", TUNING), ("to judge by", HELD_OUT)):
            for name, recipe in recipes.items():
                print(f"{name:12s} {title:12s} {recipe.steps} steps  {' '.join(recipe.groups)}")
        return
    if unknown := [name for name in args.names if name not in RECIPES]:
        parser.error(f"no run {unknown[0]!r}; --list names them")
    torch.set_num_threads(args.threads)
    for name in args.names or RECIPES:
        record(name, RECIPES[name], args.out)


if __name__ == "__main__":
    main()
