"""pathwatch for Optuna: a pruner of trials whose runs are told to stop without having generalized."""

from pathwatch.integrations.optuna.pruner import RUN, PathwatchPruner

__all__ = ["RUN", "PathwatchPruner"]
