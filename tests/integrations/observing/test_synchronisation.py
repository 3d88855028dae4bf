"""The accelerator is never waited for, and on steps that are not observed it is not even asked anything.

Counted on a device of host memory that tells what is done to it (bench/overhead/accelerator.py).
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[3]
EVERY, STEPS = 4, 12


@pytest.fixture(scope="module")
def counted() -> dict[str, list[dict[str, Any]]]:
    """Variant → what it did to the device in each step."""
    command = [sys.executable, "-m", "bench.overhead.synchronisation"]
    command += ["--every", str(EVERY), "--steps", str(STEPS)]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr[-3000:]
    rows: dict[str, list[dict[str, Any]]] = json.loads(ran.stdout.splitlines()[-1])
    return rows


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mode", "observed"), [("stream", {0, 4, 8}), ("probe", {0, 3, 7, 11})], ids=["stream", "probe"]
)
def test_training_is_never_made_to_wait_for_the_device(
    counted: dict[str, list[dict[str, Any]]], mode: str, observed: set[int]
) -> None:
    rows = counted[f"{mode} every {EVERY}"]
    assert len(rows) == STEPS
    for step, row in enumerate(rows):
        assert not row["blocking"], f"step {step}: {row['where']}"
        if step in observed:
            assert row["launched"], f"nothing was read in step {step}"
            assert row["copies"], f"nothing was brought to the host in step {step}"
        else:
            assert not row["launched"], f"step {step} is not observed"


@pytest.mark.slow
def test_the_count_sees_those_who_wait(counted: dict[str, list[dict[str, Any]]]) -> None:
    assert all(row["blocking"] == 2 for row in counted["output_router_logits"])
    waited = [row["blocking"] for row in counted[f"moewatch every {EVERY}"]]
    assert waited == [0, 0, 0, 6] * 3
