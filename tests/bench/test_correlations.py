"""The table of correlations over many runs, on a folder of two made ones."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

SCRIPT = Path(__file__).parents[2] / "bench" / "correlations.py"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two runs of a group whose routing sharpens as its accuracy leaps, and of one that never leaps."""
    (tmp_path / "labels").mkdir()
    points, samples = 16, 12
    steps = 10 * np.arange(points)
    leap = 1 / (1 + np.exp(-(steps - 100) / 8.0))
    for seed in (0, 1):
        random = np.random.default_rng(seed)
        losses = random.gamma(2, 0.01, (points, 2, samples)).astype(np.float32)
        sharpness = np.stack([1 + 6 * leap, np.ones(points)], axis=1)[:, :, None, None, None]
        scores = sharpness * random.normal(size=(1, 2, samples, 2, 4))
        weights = np.exp(scores) / np.exp(scores).sum(axis=-1, keepdims=True)
        groups = np.array(["add", "random"])
        np.savez(
            tmp_path / f"run{seed}.npz",
            steps=steps,
            groups=groups,
            losses=losses,
            weights=weights.astype(np.float32),
        )
        accuracy = np.stack([leap, random.uniform(0, 0.05, points)], axis=1)
        np.savez(tmp_path / "labels" / f"run{seed}.labels.npz", steps=steps, groups=groups, test_acc=accuracy)
    return tmp_path


@pytest.mark.slow
def test_groups_are_divided_by_their_labels_and_the_control_stands_first(folder: Path) -> None:
    done = subprocess.run(
        [sys.executable, SCRIPT, folder], capture_output=True, text=True, check=True, timeout=120
    )
    lines = done.stdout.splitlines()
    assert "generalizing: 2 groups of 2 runs, after memorization" in lines
    assert "never: 2 groups of 2 runs, after memorization" in lines
    assert lines[-1] == "2 runs: run0, run1"
    table = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if line.startswith("|")]
    rows = {row[0]: dict(zip(table[0], row, strict=True)) for row in table[2:]}
    assert table[2][0] == "*step number* (control)"
    assert rows["*step number* (control)"]["> step"] == ""
    entropy = rows["`routing_entropy`"]
    assert entropy["Pearson"].startswith("-0.9"), "sharper routing has less entropy"
    assert entropy["> step"] == "2/2"
    assert rows["`train_loss`"]["never: tracks"].endswith("/2")
