"""The calls that Katib makes of an early stopping service."""

from __future__ import annotations

import logging

import grpc

from pathwatch.integrations.katib.trials import Trials, TrialsError
from pathwatch.katib import early_stopping_pb2 as katib_pb2
from pathwatch.katib import early_stopping_pb2_grpc as katib_grpc

_logger = logging.getLogger("pathwatch.integrations.katib")

ALGORITHM = "pathwatch"
"""What `spec.earlyStopping.algorithmName` of an experiment must be."""
METRIC = "pathwatch_stop"
"""A trial that prints `pathwatch_stop=1` is ended."""


class EarlyStoppingService(katib_grpc.EarlyStoppingServicer):
    """One rule for all trials, for Katib's rules are thresholds that are fixed when a trial is made.

    What pathwatch says becomes known to Katib by a line in the trial's own log, as all metrics do.
    """

    def __init__(self, trials: Trials) -> None:
        self._trials = trials

    def GetEarlyStoppingRules(
        self, request: katib_pb2.GetEarlyStoppingRulesRequest, context: grpc.ServicerContext
    ) -> katib_pb2.GetEarlyStoppingRulesReply:
        """The rule that the line fulfils."""
        rule = katib_pb2.EarlyStoppingRule(name=METRIC, value="1", comparison=katib_pb2.EQUAL)
        return katib_pb2.GetEarlyStoppingRulesReply(early_stopping_rules=[rule])

    def ValidateEarlyStoppingSettings(
        self, request: katib_pb2.ValidateEarlyStoppingSettingsRequest, context: grpc.ServicerContext
    ) -> katib_pb2.ValidateEarlyStoppingSettingsReply:
        """INVALID_ARGUMENT for another algorithm, and for settings: when to stop is the policy of the run."""
        spec = request.early_stopping
        if spec.algorithm_name != ALGORITHM:
            context.abort(
                grpc.StatusCode.INVALID_ARGUMENT,
                f"spec.earlyStopping.algorithmName: {spec.algorithm_name!r} is not {ALGORITHM!r}",
            )
        if spec.algorithm_settings:
            context.abort(
                grpc.StatusCode.INVALID_ARGUMENT,
                f"spec.earlyStopping.algorithmSettings: {spec.algorithm_settings[0].name!r} is unknown, "
                "there are none; when a run is to stop is said by the policy that it was created with",
            )
        return katib_pb2.ValidateEarlyStoppingSettingsReply()

    def SetTrialStatus(
        self, request: katib_pb2.SetTrialStatusRequest, context: grpc.ServicerContext
    ) -> katib_pb2.SetTrialStatusReply:
        """Marks the trial as stopped early; a metrics collector calls when it has ended the training."""
        try:
            self._trials.mark_early_stopped(request.trial_name)
        except ValueError as error:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        except TrialsError as error:
            _logger.error("%s", error)
            context.abort(grpc.StatusCode.UNAVAILABLE, str(error))
        _logger.info("trial %s is stopped early", request.trial_name)
        return katib_pb2.SetTrialStatusReply()
