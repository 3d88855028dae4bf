"""pathwatch for Katib: its early stopping service, for trials that print when pathwatch stops them."""

from pathwatch.integrations.katib.service import EarlyStoppingService
from pathwatch.integrations.katib.trials import Trials, TrialsError

__all__ = ["EarlyStoppingService", "Trials", "TrialsError"]
