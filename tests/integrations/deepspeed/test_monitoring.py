"""Signals as rows of DeepSpeed's own CSV monitor."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from pathwatch.integrations.deepspeed import Stream, attach
from pathwatch.v1 import signal_pb2

TOKENS = torch.randint(16, (4, 6), generator=torch.Generator().manual_seed(1))


def step(engine: Any, count: int = 1) -> None:
    for _ in range(count):
        engine.backward(engine(TOKENS).square().mean())
        engine.step()


def monitored(make_engine: Callable, folder: Path) -> Any:
    return make_engine(csv_monitor={"enabled": True, "output_path": str(folder), "job_name": "job"})


def status(group: str, phase: str, **evidence: float) -> signal_pb2.GroupStatus:
    return signal_pb2.GroupStatus(
        group=group, phase=signal_pb2.Phase.Value(f"PHASE_{phase}"), evidence=evidence
    )


def test_every_signal_is_written_once(
    make_engine: Callable, streams: list, signal: Callable, tmp_path: Path
) -> None:
    engine = monitored(make_engine, tmp_path)
    with attach(engine, run="r", stream=Stream(window_steps=5)) as watch:
        watch.begin()
        streams[0].signal = signal("CONTINUE", step=0, groups=[status("a/b", "LEARNING", fitted_share=0.25)])
        step(engine, 3)
        samples = engine.global_samples
        watch.close(60)  # written by another thread
    with attach(engine, run="r", stream=Stream(window_steps=5)) as watch:
        watch.begin()
        groups = [status("a/b", "GENERALIZING", fitted_share=1.0, drop=0.4)]
        streams[1].signal = signal(
            "STOP", step=3, stop_at_step=9, groups=groups, best_checkpoint_step=2, revision=2
        )
        step(engine)
        later = engine.global_samples
        watch.close(60)

    def rows(name: str) -> list[list[float]]:
        with (tmp_path / "job" / f"Pathwatch_{name}.csv").open() as file:
            return [[float(cell) for cell in row] for row in csv.reader(file) if row[0] != "step"]

    learning, generalizing = signal_pb2.PHASE_LEARNING, signal_pb2.PHASE_GENERALIZING
    ((first, phase), (second, phase_later)) = rows("a_b_phase")
    assert (phase, phase_later) == (learning, generalizing)
    assert 0 <= first <= samples < second <= later
    assert [value for _, value in rows("a_b_fitted_share")] == [0.25, 1.0]
    assert [value for _, value in rows("a_b_drop")] == [0.4]
    assert [value for _, value in rows("stop_at_step")] == [9]
    assert [value for _, value in rows("best_checkpoint_step")] == [2]


def test_a_monitor_that_fails_does_not_reach_training(
    make_engine: Callable, streams: list, signal: Callable, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    engine = monitored(make_engine, tmp_path)
    # What is written there finds no space left on the device.
    (tmp_path / "job" / "Pathwatch_action.csv").symlink_to("/dev/full")
    with attach(engine, run="r", stream=Stream(window_steps=5)) as watch:
        watch.begin()
        for revision in range(3):
            streams[0].signal = signal("CONTINUE", step=0, revision=revision)
            step(engine)
        watch.close(60)
    assert sum("writing to DeepSpeed's monitor" in record.message for record in caplog.records) == 1
    assert engine.global_steps == 3
