"""The stopper of Ray Tune."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ray.tune import Stopper

from pathwatch.client import Credentials
from pathwatch.client.logs import QuietLogger
from pathwatch.integrations.signals import Signals
from pathwatch.v1 import signal_pb2

_logger = QuietLogger("pathwatch.integrations")


class PathwatchStopper(Stopper):  # type: ignore[misc]
    """Ends a trial with the first result that it reports after its run was told to stop.

        stopper = PathwatchStopper("sidecar:50051", credentials=Credentials(root_ca="ca.pem"))
        tune.Tuner(train, run_config=tune.RunConfig(stop=stopper))

    A trial's run is named by its trial id, which the training function gets from
    `tune.get_context().get_trial_id()`. Where no server answers nothing is ended, which is said once. Tune
    asks in its own event loop, with every result of every trial: a run is asked about once a second at most.
    """

    def __init__(
        self,
        server: str | None = None,
        *,
        run: Callable[[str], str] | None = None,
        time_attr: str | None = None,
        credentials: Credentials | None = None,
    ) -> None:
        """`server` and `credentials` as for `Signals`.

        `run` makes the name of a run from the trial id, instead of taking the id itself. `time_attr` is the
        key of a result that holds the step of training: a trial then goes on to the `stop_at_step` of its
        signal, as its ranks do that ask the sidecar themselves. Tune's own `training_iteration` counts
        results, not steps.
        """
        self._signals = Signals(server, credentials)
        self._run = run
        self._time_attr = time_attr

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Whether the trial ends with this result."""
        run = self._run(trial_id) if self._run else trial_id
        signal = self._signals.newest(run)
        if signal is None or signal.action != signal_pb2.ACTION_STOP:
            return False
        if self._time_attr is not None and result.get(self._time_attr, -1) < signal.stop_at_step:
            return False
        _logger.info("pathwatch ends trial %s: %s", trial_id, signal.reason)
        return True

    def stop_all(self) -> bool:
        """Never: one run says nothing about the others."""
        return False
