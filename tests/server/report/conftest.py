"""A small run's history as the service tells it: two groups, one generalizing, one overfitting."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pathwatch.server.report.data import RunHistory, run_history
from pathwatch.server.report.write import write_report
from pathwatch.v1 import run_pb2, signal_pb2

FINISHED = run_pb2.Run(name="pair", state=run_pb2.RUN_STATE_FINISHED)
STEPS = range(0, 1000, 50)
PHASES = {
    "math": {
        0: signal_pb2.PHASE_LEARNING,
        100: signal_pb2.PHASE_MEMORIZED,
        400: signal_pb2.PHASE_GENERALIZING,
        800: signal_pb2.PHASE_GENERALIZED,
    },
    "text & more": {0: signal_pb2.PHASE_LEARNING, 600: signal_pb2.PHASE_OVERFITTING},
}


@pytest.fixture
def response() -> signal_pb2.GetMetricsResponse:
    return made_up()


@pytest.fixture
def history(response: signal_pb2.GetMetricsResponse) -> RunHistory:
    return run_history(FINISHED, response)


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Page and picture of `history`, without labels. Drawing takes seconds."""
    return write_report(tmp_path_factory.mktemp("written"), run_history(FINISHED, made_up()))


def made_up() -> signal_pb2.GetMetricsResponse:
    """Twenty steps; `math` has an affinity, `text & more` an unseen loss; STOP at 950."""
    told = signal_pb2.GetMetricsResponse(closed_step=950)
    for step in STEPS:
        for group, changes in PHASES.items():
            since = max(change for change in changes if change <= step)
            window = told.windows.add(
                group=group, first_step=step, step=step, phase=changes[since], reason=f"{group} since {since}"
            )
            window.metrics["train_loss"] = 4.0 / (1 + step)
            window.metrics["path_distance_normalized"] = 0.7 - step / 5000
            window.metrics["effective_dimension"] = 5.0 - step / 400
            if group == "math":
                window.metrics["target_affinity"] = 0.8 - step / 2000
            else:
                window.metrics["unseen_loss"] = 3.0 + step / 1000
    for step, action in ((0, "CONTINUE"), (400, "CHECKPOINT"), (600, "CHECKPOINT"), (900, "STOP")):
        signal = told.signals.add(
            run="pair",
            step=step,
            action=signal_pb2.Action.Value(f"ACTION_{action}"),
            reason=f"{action} since {step}",
        )
        signal.groups.add(group="math", best_checkpoint_step=850, reason="shared <pathways>")
        signal.groups.add(group="text & more")
    told.signals[-1].stop_at_step = 950
    told.signals[-1].best_checkpoint_step = 800
    return told


@pytest.fixture
def labels_file(tmp_path: Path) -> Callable[..., Path]:
    """Writes a labels file; keywords replace its arrays, None leaves one out."""

    def write(**changes: Any) -> Path:
        accuracy = np.clip((np.array(STEPS) - 300) / 500, 0.02, 0.98)
        content = {
            "steps": np.array(STEPS),
            "groups": np.array(["math"]),
            "test_acc": accuracy[:, None].astype(np.float32),
            **changes,
        }
        path = tmp_path / "labels.npz"
        np.savez(path, **{name: array for name, array in content.items() if array is not None})
        return path

    return write
