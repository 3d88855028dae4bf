"""Trainer on two real processes: DDP, and DeepSpeed through accelerate."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

SCRIPT = Path(__file__).with_name("two_ranks.py")


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["ddp", "zero3"])
def test_two_ranks_share_the_probe_and_decide_alike(
    run_two_ranks: Callable[..., list[dict[str, Any]]], tmp_path: Path, mode: str
) -> None:
    first, second = run_two_ranks(SCRIPT, mode)
    # The checkpoint asked for and the one of the stop are saved.
    assert first["stopped_at"] == second["stopped_at"] == 12
    assert first["saved"] == second["saved"] == [3, 12]
    state = json.loads((tmp_path / "out" / "checkpoint-3" / "trainer_state.json").read_text())
    assert state["global_step"] == 3
    assert state["stateful_callbacks"]["pathwatch"]
    # Every sample of the probe on one rank, at every reading, with both ranks' visits.
    readings = [tuple(sample) for sample in first["observed"] + second["observed"]]
    assert sorted((step, number) for step, number, _ in readings) == [
        (step, number) for step in (0, 4, 8, 12) for number in range(7)
    ]
    visits = {(step, number): count for step, number, count in readings}
    # Four rows a step of 32: all are seen in 8 steps, half in 4.
    assert {visits[0, number] for number in range(7)} == {0}
    assert {visits[8, number] for number in range(7)} == {1}
    assert {visits[4, number] for number in range(7)} <= {0, 1}
    # Router weights are whole, and sent by one rank.
    assert first["geometry"]["0"] == pytest.approx(first["expected_geometry"], rel=1e-5)
    assert not second["geometry"]
    # Both ranks end with the checkpoint that the service prefers, experts and all.
    assert first["best"] == second["best"] == "checkpoint-3"
    assert first["squares"] == pytest.approx(first["squares_at_best"], rel=1e-6)
    assert second["squares"] == pytest.approx(first["squares"], rel=1e-6)
    assert first["squares_at_end"] != pytest.approx(first["squares_at_best"], rel=1e-4)
    if mode == "ddp":
        saved = load_file(tmp_path / "out" / "checkpoint-3" / "model.safetensors")
        assert sum(float(tensor.square().sum()) for tensor in saved.values()) == pytest.approx(
            first["squares"], rel=1e-5
        )
        # In stream mode each rank sends its own rows: in the first of two epochs every one of them once.
        streamed = [number for rank in (first, second) for step, number, _ in rank["streamed"] if step < 8]
        assert sorted(streamed) == list(range(32))
