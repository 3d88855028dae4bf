"""Real Ray Tune: trials that send recorded runs to a real server, one of which is told to stop."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
import recorded_run
from ray import tune

from pathwatch.integrations.ray import PathwatchStopper
from pathwatch.integrations.signals import signals
from pathwatch.server.app import BackgroundServer
from pathwatch.server.config import ServerConfig

pytestmark = pytest.mark.tools

TOLD_TO_STOP, LEFT_ALONE = "text_deferred_bS_s2", "text_c_s0"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[BackgroundServer]:
    with BackgroundServer(ServerConfig(data=tmp_path / "data")) as running:
        yield running


@pytest.fixture
def _ray(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("PYTHONPATH", str(Path(recorded_run.__file__).parent))
    ray.init(num_cpus=2, include_dashboard=False, logging_level="ERROR")
    yield
    ray.shutdown()


@pytest.fixture
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A question that failed would be a rest of half a minute, in which the trial may end by itself."""
    monkeypatch.setattr(signals, "ANSWER_SECONDS", 60.0)


@pytest.mark.usefixtures("_ray", "_patient")
def test_the_trial_that_is_told_to_stop_ends_and_the_other_goes_on(
    server: BackgroundServer, tmp_path: Path
) -> None:
    address = server.grpc_address

    def train(config: dict[str, Any]) -> None:
        """Sent by value to a process of Ray's. Its last step lies behind the stop's: the stopper ends it."""
        import time

        from recorded_run import RecordedRun, recorded

        run = tune.get_context().get_trial_id()
        trace = recorded(config["trace"])
        with RecordedRun(address, run, trace) as job:
            for step in trace.steps_T:
                job.play(1)
                tune.report({"step": int(step)})
            for further in range(1, 1200 if config["trace"] == TOLD_TO_STOP else 4):
                tune.report({"step": int(step) + further})
                time.sleep(0.05)

    tuner = tune.Tuner(
        train,
        param_space={"trace": tune.grid_search([TOLD_TO_STOP, LEFT_ALONE])},
        run_config=tune.RunConfig(
            storage_path=str(tmp_path / "results"),
            stop=PathwatchStopper(address, time_attr="step"),
            verbose=0,
        ),
    )
    results = {result.config["trace"]: result for result in tuner.fit()}
    assert [result.error for result in results.values()] == [None, None]
    last = {trace: result.metrics["step"] for trace, result in results.items()}
    assert 381 <= last[TOLD_TO_STOP] < 380 + 1199
    assert last[LEFT_ALONE] == 768 + 3
    # A search that is taken up again has its stopper with it.
    again = tune.Tuner.restore(results[LEFT_ALONE].path.rpartition("/")[0], trainable=train)
    assert {result.metrics["step"] for result in again.fit()} == set(last.values())
