"""The pruner of Optuna."""

from __future__ import annotations

from typing import TYPE_CHECKING

from optuna.pruners import BasePruner

from pathwatch.client import Credentials
from pathwatch.client.logs import QuietLogger
from pathwatch.integrations.signals import Signals
from pathwatch.v1 import signal_pb2

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial

_logger = QuietLogger("pathwatch.integrations")

RUN = "pathwatch_run"
"""User attribute of a trial that names its run; a trial without it is left to the other pruner."""


class PathwatchPruner(BasePruner):  # type: ignore[misc]
    """Prunes a trial whose run was told to stop while none of its groups has generalized.

        pruner = PathwatchPruner("sidecar:50051", credentials=Credentials(root_ca="ca.pem"))
        study = optuna.create_study(pruner=pruner)

        def objective(trial):
            trial.set_user_attr(RUN, f"{trial.study.study_name}-{trial.number}")
            ...
            if trial.should_prune():
                raise optuna.TrialPruned

    A pruned trial never becomes the best of its study, and samplers take it for a bad one. A run that stops
    because it has generalized is neither: its training ends by itself (`watch.should_stop()`) and its
    objective returns a value. What is pruned has overfitted, or was given up by its policy. Where no server
    answers, nothing is pruned, which is said once.
    """

    def __init__(
        self,
        server: str | None = None,
        *,
        also: BasePruner | None = None,
        credentials: Credentials | None = None,
    ) -> None:
        """`server` and `credentials` as for `Signals`.

        `also` is asked where pathwatch prunes nothing: a study has but one pruner.
        """
        self._signals = Signals(server, credentials)
        self._also = also

    def prune(self, study: Study, trial: FrozenTrial) -> bool:
        """Whether the trial is pruned; the reason is logged."""
        run = trial.user_attrs.get(RUN)
        signal = self._signals.newest(run) if run is not None else None
        if signal is not None and _is_hopeless(signal):
            _logger.info("pathwatch prunes trial %d: %s", trial.number, signal.reason)
            return True
        return self._also is not None and bool(self._also.prune(study, trial))


def _is_hopeless(signal: signal_pb2.Signal) -> bool:
    phases = {group.phase for group in signal.groups}
    return signal.action == signal_pb2.ACTION_STOP and signal_pb2.PHASE_GENERALIZED not in phases
