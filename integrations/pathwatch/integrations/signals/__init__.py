"""What the sidecar says of runs, asked from outside the job: what the stoppers of search libraries share."""

from pathwatch.integrations.signals.signals import Signals

__all__ = ["Signals"]
