"""pathwatch for Lightning: a callback for `lightning.pytorch` and for `pytorch_lightning`."""

from pathwatch.integrations.lightning.callback import PathwatchCallback
from pathwatch.integrations.observing import Checkpoints, Probe, ProbeGroup, Stream, Watch

__all__ = ["Checkpoints", "PathwatchCallback", "Probe", "ProbeGroup", "Stream", "Watch"]
