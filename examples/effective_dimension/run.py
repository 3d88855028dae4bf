"""Effective dimension, pathway distance and test error of a one-layer MoE with frozen random routers.

Repeats the idea of appendix C.4 of arXiv 2506.21551, and puts the variance term of its Theorem 4.1 to the
test (docs/bound.md):

    python examples/effective_dimension/run.py [--out DIR] [--seed N]
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from itertools import product
from pathlib import Path

import matplotlib as mpl
import numpy as np
import torch
from experiment import KINDS, Measurement, Reading, Setting, correlation, measure
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from pathwatch.server.report.figure import to_png
from pathwatch.server.report.style import FAINT, SECOND, STYLE

SPREADS = (0.0, 0.1, 0.2, 0.3, 0.45, 0.6, 0.8, 1.0)
TEMPERATURES = {0.25: "#0072B2", 0.5: "#009E73", 1.0: "#E69F00", 2.0: "#D55E00"}
"""With their colours, Okabe and Ito's."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--out", type=Path, default=Path("effective-dimension-out"), help="folder for results"
    )
    parser.add_argument("--seed", type=int, default=0, help="the first seed")
    parser.add_argument("--seeds", type=int, default=10, help="how many (default 10)")
    parser.add_argument("--samples", type=int, default=256, help="training samples (default 256)")
    given = parser.parse_args()
    torch.set_num_threads(1)
    measurements = [
        measure(Setting(temperature=temperature, spread=spread, seed=seed, samples=given.samples))
        for temperature, spread, seed in product(
            TEMPERATURES, SPREADS, range(given.seed, given.seed + given.seeds)
        )
    ]
    print_correlations(measurements)
    given.out.mkdir(parents=True, exist_ok=True)
    (given.out / "measurements.json").write_text(json.dumps([asdict(one) for one in measurements], indent=1))
    (given.out / "effective_dimension.png").write_bytes(to_png(draw(measurements)))


def error(name: str, kind: str) -> Reading:
    return lambda m: getattr(m, name)[kind]


def print_correlations(measurements: Sequence[Measurement]) -> None:
    """Spearman's, as mean (standard deviation)."""

    def dimension(m: Measurement) -> float:
        return m.effective_dimension

    questions: dict[str, Reading] = {
        "D_path": lambda m: m.path_distance,
        "D_path / length": lambda m: m.path_distance_normalized,
    } | {
        f"{name}, {kind} experts": error(name, kind)
        for kind in KINDS
        for name in ("variance", "bias", "risk")
    }
    print("Spearman correlation with d_eff, which is also that with the variance term")
    print(
        f"{'':<26}"
        + "".join(f"{f'router at {t:g}':>16}" for t in TEMPERATURES)
        + f"{'same data':>16}{'all':>8}"
    )
    for question, reading in questions.items():
        cells = []
        for temperature in TEMPERATURES:
            of_one = [m for m in measurements if m.setting.temperature == temperature]
            cells.append(correlation(of_one, dimension, reading, lambda s: s.seed))
        cells.append(correlation(measurements, dimension, reading, lambda s: (s.seed, s.spread)))
        print(
            f"{question:<26}" + "".join(f"{f'{mean:+.2f} ({spread:.2f})':>16}" for mean, spread in cells),
            end="",
        )
        print(f"{correlation(measurements, dimension, reading, lambda s: 0)[0]:>+8.2f}")
    for kind in KINDS:
        ratios = [m.variance[kind] / m.variance_term for m in measurements]
        print(
            f"variance / variance term, {kind} experts: median {np.median(ratios):.2f}, max {max(ratios):.2f}"
        )


def draw(measurements: Sequence[Measurement]) -> Figure:
    """d_eff against pathway distance; below, errors against the variance term."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9.5, 7.6), layout="constrained", facecolor="white")
        axes = figure.subplots(2, 2)
        distances: tuple[tuple[str, Reading], ...] = (
            ("D_path (τ = 0.7)", lambda m: m.path_distance),
            ("D_path / pathway length", lambda m: m.path_distance_normalized),
        )
        for axis, (words, reading) in zip(axes[0], distances, strict=True):
            draw_means(axis, measurements, lambda m: m.effective_dimension, reading, filled=True)
            axis.set(xlabel="effective dimension (λ = 0.01)", ylabel=words)
        for axis, words, name in zip(
            axes[1], ("error that noise causes", "excess risk"), ("variance", "risk"), strict=True
        ):
            for kind in KINDS:
                filled = kind == "constant"
                draw_means(axis, measurements, lambda m: m.variance_term, error(name, kind), filled=filled)
            axis.axline((0.01, 0.01), (0.02, 0.02), color=SECOND, linestyle=":", linewidth=1)
            axis.set(xscale="log", yscale="log", xlabel="variance term σ²·d_eff/n")
            for side in (axis.xaxis, axis.yaxis):
                side.set_major_locator(LogLocator(subs=(1, 2, 5)))
                side.set_major_formatter("{x:g}")
                side.set_minor_formatter(NullFormatter())
            axis.set_ylabel(f"{words}\n(● constant, ○ linear experts; dotted: equal)")
        handles = axes[0, 0].get_legend_handles_labels()
        figure.legend(*handles, loc="outside lower center", ncols=len(TEMPERATURES), frameon=False)
    return figure


def draw_means(
    axis: Axes, measurements: Sequence[Measurement], x: Reading, y: Reading, *, filled: bool
) -> None:
    """Means over seeds with their standard deviation; a line joins the spreads of one temperature."""
    for temperature, colour in TEMPERATURES.items():
        cells = np.array(
            [
                [
                    (x(m), y(m))
                    for m in measurements
                    if (m.setting.temperature, m.setting.spread) == (temperature, spread)
                ]
                for spread in SPREADS
            ]
        )
        axis.errorbar(
            *cells.mean(axis=1).T,
            *cells.std(axis=1).T[::-1],
            color=colour,
            ecolor=(colour, 0.35),
            marker="o",
            markersize=4.5,
            markerfacecolor=colour if filled else "white",
            linewidth=1,
            label=f"router temperature {temperature:g}",
        )
    axis.grid(color=FAINT, linewidth=0.4)
    axis.set_axisbelow(True)


if __name__ == "__main__":
    main()
