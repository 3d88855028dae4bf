"""The pruner, in real studies: what it prunes never wins, what has generalized may."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator

import optuna
import pytest
from optuna.trial import TrialState
from recorded_run import RecordedRun, recorded
from scripted_server import ScriptedServer, scripted_server

from pathwatch.integrations.optuna import RUN, PathwatchPruner
from pathwatch.integrations.signals import signals
from pathwatch.server.app import BackgroundServer
from pathwatch.server.config import ServerConfig


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptedServer]:
    monkeypatch.setattr(signals, "FRESH_SECONDS", 0.0)
    # However slow the machine is: after a question that failed nothing is asked for a while.
    monkeypatch.setattr(signals, "ANSWER_SECONDS", 60.0)
    with scripted_server() as said:
        yield said


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    yield
    optuna.logging.set_verbosity(optuna.logging.INFO)


def objective(run: str | None = "pair") -> Callable[[optuna.Trial], float]:
    """Reports 3, 2, 1, 0 unless it is pruned."""

    def train(trial: optuna.Trial) -> float:
        if run is not None:
            trial.set_user_attr(RUN, run)
        for step in range(4):
            trial.report(3.0 - step, step)
            if trial.should_prune():
                raise optuna.TrialPruned
        return 0.0

    return train


@pytest.mark.parametrize(
    ("action", "phases", "state"),
    [
        ("CONTINUE", {"math": "OVERFITTING", "code": "LEARNING"}, TrialState.COMPLETE),
        ("STOP", {"math": "OVERFITTING", "code": "OVERFITTING"}, TrialState.PRUNED),
        ("STOP", {"math": "MEMORIZED"}, TrialState.PRUNED),
        ("STOP", {"math": "GENERALIZED", "code": "GENERALIZED"}, TrialState.COMPLETE),
        ("STOP", {"math": "GENERALIZED", "code": "OVERFITTING"}, TrialState.COMPLETE),
    ],
)
def test_what_is_pruned(
    scripted: ScriptedServer, action: str, phases: dict[str, str], state: TrialState
) -> None:
    scripted.say(action, **phases)
    study = optuna.create_study(pruner=PathwatchPruner(scripted.address))
    study.optimize(objective(), n_trials=1)
    assert [trial.state for trial in study.trials] == [state]


def test_the_reason_is_logged(scripted: ScriptedServer, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "pathwatch")
    scripted.say("STOP", math="OVERFITTING")
    study = optuna.create_study(pruner=PathwatchPruner(scripted.address))
    study.optimize(objective(), n_trials=1)
    assert [record.getMessage() for record in caplog.records] == ["pathwatch prunes trial 0: because of STOP"]


def test_a_trial_that_names_no_run_is_left_to_the_other_pruner(scripted: ScriptedServer) -> None:
    scripted.say("STOP", math="OVERFITTING")
    strict = optuna.pruners.ThresholdPruner(upper=1.5)
    for also, state in ((None, TrialState.COMPLETE), (strict, TrialState.PRUNED)):
        study = optuna.create_study(pruner=PathwatchPruner(scripted.address, also=also))
        study.optimize(objective(run=None), n_trials=1)
        assert [trial.state for trial in study.trials] == [state]
    assert scripted.asked == 0


def test_the_other_pruner_is_asked_where_pathwatch_prunes_nothing(scripted: ScriptedServer) -> None:
    scripted.say("CONTINUE")
    study = optuna.create_study(
        pruner=PathwatchPruner(scripted.address, also=optuna.pruners.ThresholdPruner(upper=1.5))
    )
    study.optimize(objective(), n_trials=1)
    assert study.trials[0].state is TrialState.PRUNED
    assert scripted.asked == 1


def test_nothing_is_pruned_while_nobody_answers(free_port: int, caplog: pytest.LogCaptureFixture) -> None:
    study = optuna.create_study(pruner=PathwatchPruner(f"127.0.0.1:{free_port}"))
    study.optimize(objective(), n_trials=3)
    assert [trial.state for trial in study.trials] == [TrialState.COMPLETE] * 3
    assert len([record for record in caplog.records if "pathwatch" in record.name]) == 1


@pytest.mark.slow
def test_a_run_that_overfits_is_pruned_and_another_wins(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two recorded runs, sent to a real server by the trials: the first overfits in all its groups."""
    monkeypatch.setattr(signals, "FRESH_SECONDS", 0.0)
    monkeypatch.setattr(signals, "ANSWER_SECONDS", 60.0)
    with BackgroundServer(ServerConfig(data=tmp_path_factory.mktemp("data"))) as server:

        def train(trial: optuna.Trial) -> float:
            name = trial.suggest_categorical("trace", ["text_deferred_bS_s2", "text_c_s0"])
            run = f"study-{trial.number}"
            trial.set_user_attr(RUN, run)
            with RecordedRun(server.grpc_address, run, recorded(name)) as job:
                while job.steps_left:
                    job.play(min(10, job.steps_left))
                    trial.report(float(job.steps_left), 100 - job.steps_left)
                    if trial.should_prune():
                        raise optuna.TrialPruned
            return 1.0

        study = optuna.create_study(pruner=PathwatchPruner(server.grpc_address))
        study.enqueue_trial({"trace": "text_deferred_bS_s2"})
        study.enqueue_trial({"trace": "text_c_s0"})
        study.optimize(train, n_trials=2)
    assert [trial.state for trial in study.trials] == [TrialState.PRUNED, TrialState.COMPLETE]
    assert study.best_trial.number == 1
