"""The series of a recorded run are what the live service publishes of it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from pathwatch.server.analysis.series import trace_series
from pathwatch.server.cli.root import pathwatch
from pathwatch.server.traces import load_trace

TRACES = Path(__file__).parents[2] / "data" / "traces"


@pytest.fixture
def early(tmp_path: Path) -> Path:
    """The first twelve points of a recorded run, cut to 40 samples; one loss is missing."""
    with np.load(TRACES / "pair_s1.npz") as file:
        arrays = {name: file[name] for name in file.files}
    for name in ("losses", "weights", "target_weights"):
        arrays[name] = arrays[name][:12, :, :40]
    for name in ("steps", "gram_self", "gram_next"):
        arrays[name] = arrays[name][:12]
    arrays["targets"] = arrays["targets"][:, :40]
    arrays["losses"][3, 0, 5] = np.nan
    np.savez(tmp_path / "early.npz", **arrays)
    return tmp_path / "early.npz"


@pytest.mark.slow
def test_series_are_what_a_server_says_of_the_run(early: Path) -> None:
    told = CliRunner().invoke(pathwatch, ["replay", str(early), "--json"])
    windows = [one for one in map(json.loads, told.stdout.splitlines()) if one["type"] == "window"]
    trace = load_trace(early)
    for series in trace_series(trace, range(len(trace.steps_T))):
        live = [one for one in windows if one["group"] == series.group]
        assert [one["step"] for one in live] == series.steps_T.tolist()
        for t, one in enumerate(live):
            ours = {name: values[t] for name, values in series.metrics.items() if not np.isnan(values[t])}
            assert ours == pytest.approx(one["metrics"], rel=1e-9)
        phases = [one["phase"] for one in live]
        since = series.steps_T[phases.index("MEMORIZED")] if "MEMORIZED" in phases else None
        assert series.memorized_step == since
    assert any(one["phase"] == "MEMORIZED" for one in windows), "the run must reach what is compared"


def test_only_the_points_asked_for_are_computed(early: Path) -> None:
    loaded = load_trace(early)
    first, second = trace_series(loaded, range(0, len(loaded.steps_T), 2))
    assert first.steps_T.tolist() == loaded.steps_T[::2].tolist()
    assert (first.group, second.group) == loaded.groups
    mean = np.nanmean(loaded.losses_TGN[::2, 1].astype(np.float64), axis=1)
    np.testing.assert_allclose(second.metrics["train_loss"], mean)
